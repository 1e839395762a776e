"""The parent's ComfyUI as plain data, and a ComfyUI made equal to it in the worker.

ComfyUI reads its command line when its modules are imported, so the order matters: arguments first,
then folder_paths, and only then model_management and everything that imports it.
"""

from __future__ import annotations

import enum
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from hybrid_core.errors import ProtocolError
from hybrid_core.transport import wire


def describe() -> dict[str, Any]:
    """Command-line values and model folders of this process, as primitives."""
    from comfy.cli_args import args

    return {
        "args": {name: _primitive(value) for name, value in vars(args).items()},
        "folders": folders(),
    }


def folders() -> list[list[Any]]:
    """Of each kind of model: its name, its folders, its files' endings, as they are now."""
    import folder_paths

    return [
        [name, list(map(str, paths)), sorted(extensions)]
        for name, (paths, extensions) in folder_paths.folder_names_and_paths.items()
    ]


def adopt(described: Mapping[str, Any]) -> None:
    """In the worker, before anything of ComfyUI is imported: become like the parent."""
    _adopt_args(described["args"])
    adopt_folders(described["folders"])


def compute_alike(values: Mapping[str, Any]) -> None:
    """On another computer, before anything of ComfyUI is imported: choose dtypes, attention and
    memory as over there, and keep this computer's own folders.
    """
    from comfy.cli_args import args

    _adopt_args({name: value for name, value in values.items() if hasattr(args, name)})
    import folder_paths
    import utils.extra_config

    more = os.path.join(os.path.dirname(folder_paths.__file__), "extra_model_paths.yaml")
    if os.path.isfile(more):
        utils.extra_config.load_extra_path_config(more)


def _adopt_args(values: Mapping[str, Any]) -> None:
    logging.basicConfig(level=logging.WARNING, format="[hybrid worker] %(message)s")
    from comfy import cli_args

    for name, value in values.items():
        setattr(cli_args.args, name, _restored(value, vars(cli_args)))
    # one GPU is visible here, whatever number it has in the parent
    cli_args.args.cuda_device = cli_args.args.default_device = None


def adopt_folders(found: Sequence[Any]) -> None:
    """In the worker: look for models where the parent does. Raises ProtocolError."""
    import folder_paths

    for entry in found:
        match entry:
            case [str(name), [*paths], [*endings]] if _texts(paths) and _texts(endings):
                folder_paths.folder_names_and_paths[name] = (paths, set(endings))
            case _:
                raise ProtocolError(
                    f"a model folder is {wire.shown(entry)}, expected a name, folders and endings"
                )


def _texts(values: Sequence[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _primitive(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return {"enum": type(value).__name__, "value": value.value}
    if isinstance(value, set | frozenset):
        return {"set": [_primitive(item) for item in value]}
    if isinstance(value, list | tuple):
        return [_primitive(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _restored(value: Any, classes: Mapping[str, Any]) -> Any:
    if isinstance(value, dict) and "enum" in value:
        return classes[value["enum"]](value["value"])
    if isinstance(value, dict):
        return {_restored(item, classes) for item in value["set"]}
    if isinstance(value, list):
        return [_restored(item, classes) for item in value]
    return value

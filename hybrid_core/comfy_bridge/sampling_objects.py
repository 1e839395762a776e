"""model_sampling objects as data: ComfyUI makes their classes on the spot, so none pickles."""

from __future__ import annotations

import os
import sys
from typing import Any

import comfy.model_sampling
import comfy_extras
import torch

from hybrid_core.errors import NotPartitionable, ProtocolError
from hybrid_core.machine.checksum import checksum
from hybrid_core.stages.described import SCALARS, is_own
from hybrid_core.transport.carry import flatten

EXTRAS = "nodes_model_advanced"  # of comfy_extras: LCM, X0 and the distilled schedule
_MODULE_STATE = frozenset(vars(torch.nn.Module()))


def _class_here(name: str) -> type | None:
    """A class that both processes have under this name."""
    found = getattr(comfy.model_sampling, name, None)
    if found is None:
        from comfy_extras import nodes_model_advanced

        found = getattr(nodes_model_advanced, name, None)
    return found if isinstance(found, type) else None


def _is_there(cls: type) -> bool:
    """Whether the other process has this class under its name.

    ComfyUI loads the nodes of comfy_extras under their file's path, so a class there is another
    object than the one that an import gives: such a class is known by its file.
    """
    if getattr(comfy.model_sampling, cls.__name__, None) is cls:
        return True
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    ours = [os.path.join(folder, f"{EXTRAS}.py") for folder in comfy_extras.__path__]
    return (
        file is not None
        and cls.__qualname__ == cls.__name__
        and os.path.realpath(file) in map(os.path.realpath, ours)
    )


def describe(sampling: torch.nn.Module) -> dict[str, Any]:
    """Base classes by name, attributes and buffers. Raises NotPartitionable for foreign code."""
    own = type(sampling)
    bases = [own] if _is_there(own) else list(own.__bases__)
    foreign = [base.__name__ for base in bases if not _is_there(base)]
    methods = [] if bases == [own] else [n for n, v in vars(own).items() if callable(v)]
    if foreign or methods:
        raise NotPartitionable(
            f"the model's sampling ({own.__name__}) is another pack's: "
            f"{', '.join(foreign + methods)}"
        )
    if sampling._parameters or sampling._modules:
        raise NotPartitionable(f"the model's sampling ({own.__name__}) holds layers of its own")
    plain = {
        name: value
        for name, value in vars(sampling).items()
        if name not in _MODULE_STATE and not is_own(sampling, name, value)
    }
    return {
        "bases": [base.__name__ for base in bases],
        "values": plain,
        "buffers": dict(sampling._buffers),
    }


def digest(sampling: torch.nn.Module) -> str:
    """Changes with every number in what `describe` gives; of foreign code, with its numbers."""
    try:
        return _digest(describe(sampling))
    except NotPartitionable:
        own = type(sampling)
        plain = {n: v for n, v in vars(sampling).items() if isinstance(v, SCALARS)}
        return f"{own.__module__}.{own.__qualname__}:{_digest([plain, dict(sampling._buffers)])}"


def _digest(value: Any) -> str:
    tensors: list[Any] = []
    tree = flatten(value, tensors)
    return f"{hash((str(tree), *map(checksum, tensors))):x}"


def rebuild(described: dict[str, Any]) -> torch.nn.Module:
    """The object that `describe` described. Raises ProtocolError for unknown classes."""
    bases = [found for name in described["bases"] if (found := _class_here(name)) is not None]
    if not bases or len(bases) != len(described["bases"]):
        raise ProtocolError(f"sampling classes {described['bases']} are not known here")
    own = bases[0] if len(bases) == 1 else type("ModelSampling", tuple(bases), {})
    sampling: Any = object.__new__(own)
    torch.nn.Module.__init__(sampling)
    for name, buffer in described["buffers"].items():
        sampling.register_buffer(name, buffer, persistent=False)
    for name, value in described["values"].items():
        setattr(sampling, name, value)
    return sampling

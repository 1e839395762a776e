"""Code that other nodes have put on a MODEL, and where it keeps what it remembers.

Everything here compares or describes; nothing is called or changed.
"""

from __future__ import annotations

import functools
from collections.abc import Container, Iterator, Mapping
from types import FunctionType, MethodType
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, WrappersMP

from hybrid_core.comfy_bridge.support import WRAPPER_KEY
from hybrid_core.stages import described

IN_THE_FORWARD = (WrappersMP.APPLY_MODEL, WrappersMP.DIFFUSION_MODEL)
WHILE_LOADING = (
    CallbacksMP.ON_LOAD, CallbacksMP.ON_PRE_RUN,
    CallbacksMP.ON_PREPARE_STATE, CallbacksMP.ON_APPLY_HOOKS,
)  # fmt: skip
OTHERS_AFFAIR = {"wrappers", "callbacks"}  # looked at by kind
DEEPEST = 3  # functions that a function calls


def acting(patcher: ModelPatcher, options: Mapping[str, Any]) -> dict[str, Any]:
    """What acts inside an evaluation, by place; plain values are left out."""
    found: dict[str, Any] = {}
    transformer = options.get("transformer_options", {})
    for place, value in leaves({k: v for k, v in transformer.items() if k not in OTHERS_AFFAIR}):
        found[place] = value
    if "model_function_wrapper" in options:
        found["model_function_wrapper"] = options["model_function_wrapper"]
    for name, value in patcher.object_patches.items():
        if name != "model_sampling":
            found[f"object {name}"] = value
    for group, kinds in ((patcher.wrappers, IN_THE_FORWARD), (patcher.callbacks, WHILE_LOADING)):
        for kind in kinds:
            for key, several in group.get(kind, {}).items():
                if key != WRAPPER_KEY:
                    found |= {f"{kind} {key} {at}": one for at, one in enumerate(several)}
    found |= {f"injection {name}": value for name, value in patcher.injections.items() if value}
    return found


def added(run: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    """Places of `run` where something else acts than in `before`."""
    return [place for place, value in run.items() if not _same(value, before.get(place))]


def _same(one: Any, other: Any) -> bool:
    if one is other or described.Held(one) == described.Held(other):
        return True
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    # ComfyUI copies objects when it clones a model, and moves them to the device of the run
    return type(one) is type(other) and described.is_plain_object(one)


def leaves(value: Any, place: str = "", plain: bool = False) -> Iterator[tuple[str, Any]]:
    """Whatever is no plain value in nested lists and dicts, by its place; plain: the others."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from leaves(inner, f"{place} {key}".strip(), plain)
    elif isinstance(value, list | tuple):
        for at, inner in enumerate(value):
            yield from leaves(inner, f"{place} {at}", plain)
    elif isinstance(value, (*described.SCALARS, torch.Tensor)) is plain:
        yield place, value


def plain_among(options: Mapping[str, Any], names: Container[str]) -> dict[str, Any]:
    """Plain values in these of the network's options, by place."""
    transformer = options.get("transformer_options", {})
    return dict(leaves({k: v for k, v in transformer.items() if k in names}, plain=True))


def memory(
    values: Mapping[str, Any], tensors: dict[str, list[torch.Tensor]] | None = None
) -> dict[str, Any]:
    """What the code in `values` can remember, as values that can be compared later.

    tensors: takes those among it, by place. While they are held no other gets their address.
    """
    seen: set[int] = set()
    found: dict[str, Any] = {}
    for place, value in values.items():
        kept: list[torch.Tensor] = []
        found[place] = _remembered(value, seen, 0, kept)
        if tensors is not None:
            tensors[place] = kept
    return found


def _remembered(value: Any, seen: set[int], depth: int, kept: list[torch.Tensor]) -> Any:
    if id(value) in seen or depth > DEEPEST:
        return None
    seen.add(id(value))
    if isinstance(value, functools.partial):
        return [_remembered(v, seen, depth, kept) for v in (value.func, *value.args)]
    if isinstance(value, MethodType):
        own = _of_object(value.__self__, seen, depth, kept)
        return [_remembered(value.__func__, seen, depth, kept), own]
    if isinstance(value, FunctionType):
        return _of_function(value, seen, depth, kept)
    if isinstance(value, list | tuple):
        return [_remembered(one, seen, depth + 1, kept) for one in value]
    return _of_object(value, seen, depth, kept)


def _of_function(
    function: FunctionType, seen: set[int], depth: int, kept: list[torch.Tensor]
) -> Any:
    cells = [cell.cell_contents for cell in function.__closure__ or () if _filled(cell)]
    names = [n for n in function.__code__.co_names if n in function.__globals__]
    used = [function.__globals__[n] for n in names]
    own = [v for v in used if getattr(v, "__module__", None) == function.__module__]
    plain = [v for v in used if isinstance(v, dict | list | set)]
    kept += _tensors([cells, plain])
    return [
        described.describe([cells, plain, list(function.__defaults__ or ())]),
        described.describe({k: v for k, v in vars(function).items() if k != "__wrapped__"}),
        [_remembered(v, seen, depth + 1, kept) for v in (*cells, *own) if callable(v)],
    ]


def _of_object(value: Any, seen: set[int], depth: int, kept: list[torch.Tensor]) -> Any:
    """Attributes of an object and of its class, and what functions among them close over."""
    kept += _tensors(value)
    if not described.is_plain_object(value):
        return described.describe(value)
    cls = type(value)
    of_class = {
        name: held
        for name, held in vars(cls).items()
        if isinstance(held, dict | list | set | int | float) and not name.startswith("__")
    }
    inner = [v for v in vars(value).values() if isinstance(v, FunctionType | MethodType)]
    return [
        described.describe(value),
        described.describe(of_class),
        [_remembered(v, seen, depth + 1, kept) for v in inner],
    ]


def _tensors(value: Any, depth: int = 0) -> Iterator[torch.Tensor]:
    """In nested lists, dicts and plain objects."""
    if isinstance(value, torch.Tensor):
        yield value
    elif depth >= described.DEEPEST or isinstance(value, described.SCALARS):
        return
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _tensors(inner, depth + 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _tensors(inner, depth + 1)
    elif described.is_plain_object(value):
        for inner in vars(value).values():
            yield from _tensors(inner, depth + 1)


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018  raises while the variable has no value yet
    except ValueError:
        return False
    return True

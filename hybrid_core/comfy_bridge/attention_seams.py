"""Where ComfyUI's networks call attention, whatever name they got it by."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import comfy.ldm.modules.attention as comfy_attention

from hybrid_core.stages.attention import Attention, Entry

FUNCTION = "func"  # what ComfyUI's decorator calls


class WrappedSeam:
    """A function that ComfyUI's `wrap_attn` has wrapped: what it wraps is replaced."""

    def __init__(self, wrapper: Callable[..., Any]):
        free = wrapper.__code__.co_freevars
        self._cell = dict(zip(free, wrapper.__closure__ or (), strict=True))[FUNCTION]
        self._original = self._cell.cell_contents

    def get(self) -> Entry:
        found: Entry = self._cell.cell_contents
        return found

    def put(self, entry: Entry) -> None:
        self._cell.cell_contents = entry

    def read(self, function: Entry, args: Any, keywords: Any) -> Any:
        names = tuple(signature(self._original).parameters)
        given = {**dict(zip(names, args, strict=False)), **keywords}
        q, k, v, mask = (given.pop(name, None) for name in (*names[:3], "mask"))

        def kernel(q: Any, k: Any, v: Any, mask: Any) -> Any:
            return function(q, k, v, mask=mask, **given)

        return kernel, q, k, v, mask, -2 if given.get("skip_reshape") else 1


def _wrapped() -> list[WrappedSeam]:
    functions = {
        id(function): function
        for function in vars(comfy_attention).values()
        if FUNCTION in getattr(getattr(function, "__code__", None), "co_freevars", ())
    }
    return [WrappedSeam(function) for function in functions.values()]


ATTENTION = Attention(_wrapped())

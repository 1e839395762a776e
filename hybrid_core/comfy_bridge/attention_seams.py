"""Where ComfyUI's networks call attention, whatever name they got it by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.ldm.modules.attention as comfy_attention

from hybrid_core.stages.attention import Attention, Entry

FUNCTION = "func"  # what ComfyUI's decorator calls


class WrappedSeam:
    """A function that ComfyUI's `wrap_attn` has wrapped: what it wraps is replaced."""

    def __init__(self, wrapper: Callable[..., Any]):
        self._cell = dict(zip(wrapper.__code__.co_freevars, wrapper.__closure__ or (), strict=True))

    def get(self) -> Entry:
        found: Entry = self._cell[FUNCTION].cell_contents
        return found

    def put(self, entry: Entry) -> None:
        self._cell[FUNCTION].cell_contents = entry

    def read(self, function: Entry, args: Any, keywords: Any) -> Any:
        names = ("q", "query", "k", "key", "v", "value", "mask")
        q, k, v, *more = (*args, *(keywords[name] for name in names[:-1] if name in keywords))
        rest = {name: value for name, value in keywords.items() if name not in names}
        mask = more.pop(1) if len(more) > 1 else keywords.get("mask")
        if len(more) > 1:  # given by their places
            rest |= dict(zip(("attn_precision", "skip_reshape"), more[1:], strict=False))

        def kernel(q: Any, k: Any, v: Any, mask: Any) -> Any:
            return function(q, k, v, *more[:1], mask=mask, **rest)

        return kernel, q, k, v, mask, -2 if rest.get("skip_reshape") else 1


def _wrapped() -> list[WrappedSeam]:
    functions = {
        id(function): function
        for function in vars(comfy_attention).values()
        if FUNCTION in getattr(getattr(function, "__code__", None), "co_freevars", ())
    }
    return [WrappedSeam(function) for function in functions.values()]


ATTENTION = Attention(_wrapped())

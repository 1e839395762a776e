"""What a model is called where artists read it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import Any


def spoken_name(patcher: Any) -> str:
    """The file that a ModelPatcher was loaded from; its model's class where that is not known."""
    match getattr(patcher, "cached_patcher_init", None):  # how ComfyUI would load it again
        case (_, (*arguments,), *_):
            for text in _texts(arguments):
                return PurePath(text).name or text
    return type(patcher.model).__name__


def _texts(values: list[Any]) -> Iterator[str]:
    """Those among `values`, and among the lists in it (CLIP may come from several files)."""
    for value in values:
        if isinstance(value, str) and value:
            yield value
        elif isinstance(value, list):
            yield from _texts(value)

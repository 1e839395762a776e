"""Which of a run's options ComfyUI's networks may look for.

Other packs leave objects in transformer_options for their own samplers (RES4LYF). No network asks
for those, so they need not leave this process.
"""

from __future__ import annotations

import inspect
import os
import sys
from functools import lru_cache
from types import CodeType, FunctionType, ModuleType
from typing import Any

import comfy.samplers

from hybrid_core.errors import NotPartitionable
from hybrid_core.transport.carry import flatten


def is_nobodys(key: Any, value: Any) -> bool:
    """Whether the option cannot leave this process and nothing there would look for it."""
    return not is_plain(value) and isinstance(key, str) and key not in texts_of(len(_loaded()))


def is_plain(value: Any) -> bool:
    """Whether a value can leave this process."""
    try:
        flatten(value, [])
    except NotPartitionable:
        return False
    return True


def _loaded() -> list[ModuleType]:
    """Modules of ComfyUI's folder comfy."""
    folder = os.path.dirname(str(comfy.samplers.__file__))
    found = [module for name, module in sys.modules.items() if name.startswith("comfy.")]
    return [m for m in found if str(getattr(m, "__file__", None)).startswith(folder)]


@lru_cache(maxsize=1)
def texts_of(_count: int) -> frozenset[str]:
    """Every string in the code of ComfyUI's own modules; looked for anew when more are loaded."""
    found: set[str] = set()
    for module in _loaded():
        for value in list(vars(module).values()):
            found |= {value} if isinstance(value, str) else _texts(value, module.__name__)
    return frozenset(found)


def _texts(value: Any, module: str) -> set[str]:
    """In the code of a function, or of the methods of a class of this module."""
    if isinstance(value, CodeType):
        inner = [_texts(const, module) for const in value.co_consts if isinstance(const, CodeType)]
        return {const for const in value.co_consts if isinstance(const, str)}.union(*inner)
    if isinstance(value, type):
        own = vars(value).values() if value.__module__ == module else ()
        return set[str]().union(*(_texts(inner, module) for inner in own))
    function = getattr(value, "__func__", value)  # of classmethod and staticmethod
    if isinstance(function, FunctionType):
        return _texts(inspect.unwrap(function).__code__, module)
    return set()

"""Weight patches (LoRA and its kin) as data."""

from __future__ import annotations

from typing import Any

import comfy.weight_adapter
from comfy.weight_adapter import WeightAdapterBase

from hybrid_core.errors import ProtocolError


def is_data(patch: tuple[Any, ...]) -> bool:
    """Whether a patch is numbers alone, for code that the worker has."""
    _, value, _, _, function = patch
    if function is not None or isinstance(value, list):
        return False
    if isinstance(value, WeightAdapterBase):
        return type(value) in comfy.weight_adapter.adapters
    return True


def describe(patch: tuple[Any, ...]) -> tuple[Any, ...]:
    """A patch that is data; adapters as (class name, weights)."""
    strength, value, strength_model, offset, _ = patch
    if isinstance(value, WeightAdapterBase):
        value = ("adapter", (type(value).__name__, value.weights))
    return strength, value, strength_model, offset


def restore(described: tuple[Any, ...]) -> tuple[Any, ...]:
    """The patch that was described. Raises ProtocolError for an adapter that is not known."""
    strength, value, strength_model, offset = described
    if value[0] == "adapter":
        name, weights = value[1]
        by_name = {adapter.__name__: adapter for adapter in comfy.weight_adapter.adapters}
        if name not in by_name:
            raise ProtocolError(f"weight adapter {name!r} is not known here")
        value = by_name[name](set(), weights)
    return strength, value, strength_model, offset, None

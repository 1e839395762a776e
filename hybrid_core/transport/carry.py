"""Nested Python values as (JSON tree, list of tensors), and back.

A tree node is a JSON scalar, or a one-key object: {"t": index of a tensor}, {"l": [..]} a list,
{"u": [..]} a tuple, {"d": [[key, value], ..]} a dict, {"dtype": name}, {"uuid": text}.
What is none of these raises NotPartitionable.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hybrid_core.errors import NotPartitionable, ProtocolError
from hybrid_core.transport.headers import DTYPES, dtype_name
from hybrid_core.transport.wire import shown

MAX_DEPTH = 12
KEYS = (str, int, float, bool, type(None))  # of dicts


def flatten(value: Any, tensors: list[torch.Tensor], where: str = "value", depth: int = 0) -> Any:
    """The tree of `value`; its tensors are appended to `tensors`.

    Raises NotPartitionable, naming `where`, for anything that is not plain data.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if depth > MAX_DEPTH:
        raise NotPartitionable(f"{where[:80]} is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, torch.Tensor):
        if type(value) not in (torch.Tensor, torch.nn.Parameter) or value.dtype not in set(
            DTYPES.values()
        ):
            raise NotPartitionable(f"{where} is a {type(value).__name__} of {value.dtype}")
        tensors.append(value.detach())
        return {"t": len(tensors) - 1}
    if type(value) is list:
        return {"l": _items(value, tensors, where, depth)}
    if type(value) in (tuple, torch.Size):
        return {"u": _items(value, tensors, where, depth)}
    if type(value) is dict:
        for key in value:
            if not isinstance(key, KEYS):
                raise NotPartitionable(f"{where} has a {type(key).__name__} for a key")
        pairs = [[k, flatten(v, tensors, f"{where}.{k}", depth + 1)] for k, v in value.items()]
        return {"d": pairs}
    if isinstance(value, torch.dtype):
        return {"dtype": dtype_name(value)}
    if isinstance(value, uuid.UUID):
        return {"uuid": value.hex}
    raise NotPartitionable(f"{where} is a {type(value).__name__}, which cannot leave this process")


def _items(value: Any, tensors: list[torch.Tensor], where: str, depth: int) -> list[Any]:
    return [flatten(v, tensors, f"{where}[{i}]", depth + 1) for i, v in enumerate(value)]


@dataclass(frozen=True)
class Carried:
    """A value that can leave this process."""

    tree: Any
    tensors: list[torch.Tensor]

    @property
    def size(self) -> int:
        """Bytes of its tensors."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors)


def carry(value: Any, where: str = "value") -> Carried:
    """`value`, ready to leave. Raises NotPartitionable like `flatten`."""
    tensors: list[torch.Tensor] = []
    return Carried(flatten(value, tensors, where), tensors)


def unflatten(tree: Any, tensors: Sequence[torch.Tensor], depth: int = 0) -> Any:
    """The value of `tree`. Raises ProtocolError for anything that flatten does not write."""
    if tree is None or type(tree) in (bool, int, float, str):
        return tree
    if depth > MAX_DEPTH or not isinstance(tree, dict) or len(tree) != 1:
        raise ProtocolError(f"a value's tree is malformed or deeper than {MAX_DEPTH}")
    ((kind, content),) = tree.items()
    if kind == "t" and type(content) is int and 0 <= content < len(tensors):
        return tensors[content]
    if kind in ("l", "u") and isinstance(content, list):
        values = [unflatten(c, tensors, depth + 1) for c in content]
        return values if kind == "l" else tuple(values)
    if kind == "d" and isinstance(content, list) and all(_is_pair(c) for c in content):
        return {k: unflatten(v, tensors, depth + 1) for k, v in content}
    if kind == "dtype" and isinstance(content, str) and content in DTYPES:
        return DTYPES[content]
    if kind == "uuid" and isinstance(content, str) and re.fullmatch("[0-9a-f]{32}", content):
        return uuid.UUID(hex=content)
    raise ProtocolError(f"a value's tree holds {shown(kind)}: {shown(content)}")


def _is_pair(content: Any) -> bool:
    return isinstance(content, list) and len(content) == 2 and isinstance(content[0], KEYS)

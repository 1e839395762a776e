"""A tensor in a slot, as a header in a message: dtype, shape and offset, checked before use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from hybrid_core.errors import ArenaTooSmall, ProtocolError
from hybrid_core.transport.wire import shown

ALIGN = 64
SLOTS = 4  # two for each direction
MAX_PLACES = 1 << 48  # of one tensor, those that its empty dimensions would have included
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16,
        torch.float8_e4m3fn, torch.float8_e5m2,
        torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
    )
}  # fmt: skip

Header = dict[str, Any]


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def lay_out(tensors: Sequence[torch.Tensor], slot_bytes: int) -> list[Header]:
    """Headers of `tensors` one after the other in a slot.

    Raises ArenaTooSmall when they do not fit.
    """
    headers, at = [], 0
    for tensor in tensors:
        size = tensor.numel() * tensor.element_size()
        if at + size > slot_bytes:
            raise ArenaTooSmall(
                f"{sum(t.numel() * t.element_size() for t in tensors)} bytes were to be "
                f"exchanged at once, a slot of the shared memory holds {slot_bytes}"
            )
        headers.append({"dtype": dtype_name(tensor.dtype), "shape": list(tensor.shape), "at": at})
        at += -(-size // ALIGN) * ALIGN
    return headers


def in_slot(header: Any, slot_bytes: int) -> tuple[torch.dtype, list[int], int, int]:
    """Like `check_header`, and inside a slot. Raises ProtocolError otherwise."""
    dtype, shape, at, size = check_header(header)
    if at % ALIGN or at + size > slot_bytes:
        raise ProtocolError(
            f"a tensor of {size} bytes at {at} is outside a slot of {slot_bytes} bytes"
        )
    return dtype, shape, at, size


def check_header(header: Any) -> tuple[torch.dtype, list[int], int, int]:
    """dtype, shape, offset and size in bytes. Raises ProtocolError when anything is off."""
    if not isinstance(header, dict) or header.keys() != {"dtype", "shape", "at"}:
        raise ProtocolError(f"a tensor header is {shown(header)}, expected dtype, shape and at")
    dtype = DTYPES.get(header["dtype"]) if isinstance(header["dtype"], str) else None
    if dtype is None:
        raise ProtocolError(f"dtype {shown(header['dtype'])} is not one of {', '.join(DTYPES)}")
    shape, at = header["shape"], header["at"]
    if not isinstance(shape, list) or len(shape) > 9 or not all(map(_is_size, [*shape, at])):
        raise ProtocolError(f"shape {shown(shape)} at {shown(at)} is not a tensor's")
    if math.prod(filter(None, shape)) > MAX_PLACES:
        raise ProtocolError(f"a tensor of shape {shown(shape)} is larger than any memory")
    return dtype, shape, at, math.prod(shape) * dtype.itemsize


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 48

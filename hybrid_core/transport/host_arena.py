"""Tensors in shared host memory.

The block is cut in four slots, two for each direction; message number n uses slot n & 1 of its
direction, so a writer never touches what the other side may still be reading. A tensor in a
message is a header: dtype, shape, offset in its slot. Headers are checked before they are used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from mmap import mmap
from typing import Any

import torch

from hybrid_core.errors import ArenaTooSmall, ProtocolError

ALIGN = 64
SLOTS = 4
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


class HostArena:
    """One side's view of the block. `parent` says which direction it writes."""

    def __init__(self, block: mmap, parent: bool):
        self.slot_bytes = len(block) // SLOTS // ALIGN * ALIGN
        whole = torch.frombuffer(block, dtype=torch.uint8)
        slots = [whole[i * self.slot_bytes : (i + 1) * self.slot_bytes] for i in range(SLOTS)]
        self._mine, self._theirs = (slots[:2], slots[2:]) if parent else (slots[2:], slots[:2])

    def write(self, number: int, tensors: Sequence[torch.Tensor]) -> list[Header]:
        """Copy `tensors` (any device) into my slot of message `number`; their headers.

        Raises ArenaTooSmall when they do not fit into one slot.
        """
        headers, at = [], 0
        slot = self._mine[number & 1]
        for tensor in tensors:
            size = tensor.numel() * tensor.element_size()
            if at + size > self.slot_bytes:
                raise ArenaTooSmall(
                    f"{sum(t.numel() * t.element_size() for t in tensors)} bytes were to be "
                    f"exchanged at once, a slot of the shared memory holds {self.slot_bytes}"
                )
            self._view(slot, tensor.dtype, tensor.shape, at).copy_(tensor)
            headers.append(
                {"dtype": dtype_name(tensor.dtype), "shape": list(tensor.shape), "at": at}
            )
            at += -(-size // ALIGN) * ALIGN
        return headers

    def read(self, number: int, header: Any) -> torch.Tensor:
        """A copy of the tensor that the other side put into its slot of message `number`.

        Raises ProtocolError for a header that is malformed or points outside the slot.
        """
        dtype, shape, at, size = check_header(header)
        if at % ALIGN or at + size > self.slot_bytes:
            raise ProtocolError(
                f"a tensor of {size} bytes at {at} is outside a slot of {self.slot_bytes} bytes"
            )
        return self._view(self._theirs[number & 1], dtype, torch.Size(shape), at).clone()

    @staticmethod
    def _view(slot: torch.Tensor, dtype: torch.dtype, shape: torch.Size, at: int) -> torch.Tensor:
        size = math.prod(shape) * dtype.itemsize
        return slot[at : at + size].view(dtype).view(shape)


def check_header(header: Any) -> tuple[torch.dtype, list[int], int, int]:
    """dtype, shape, offset and size in bytes. Raises ProtocolError when anything is off."""
    if not isinstance(header, dict) or header.keys() != {"dtype", "shape", "at"}:
        raise ProtocolError(f"a tensor header is {str(header)[:80]}, expected dtype, shape and at")
    dtype = DTYPES.get(header["dtype"]) if isinstance(header["dtype"], str) else None
    if dtype is None:
        raise ProtocolError(f"dtype {header['dtype']!r} is not one of {', '.join(DTYPES)}")
    shape, at = header["shape"], header["at"]
    if not isinstance(shape, list) or len(shape) > 9 or not all(map(_is_size, [*shape, at])):
        raise ProtocolError(f"shape {shape!r} at {at!r} is not a tensor's")
    return dtype, shape, at, math.prod(shape) * dtype.itemsize


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 48

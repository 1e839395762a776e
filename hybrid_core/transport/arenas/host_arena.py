"""Tensors in shared host memory, by blocking copies."""

from __future__ import annotations

from collections.abc import Sequence
from mmap import mmap
from typing import Any

import torch

from hybrid_core.transport.headers import ALIGN, SLOTS, Header, in_slot, lay_out

FOOT = 4096  # bytes behind the slots: how far each one is filled, see pinned_arena


def block_bytes(slot_bytes: int) -> int:
    """Size of the memory that holds slots of `slot_bytes`."""
    return SLOTS * slot_bytes + FOOT


class HostArena:
    """One side's view of the block. `parent` says which direction it writes."""

    def __init__(self, block: mmap, parent: bool):
        self.slot_bytes = (len(block) - FOOT) // SLOTS // ALIGN * ALIGN
        self.whole = torch.frombuffer(block, dtype=torch.uint8)
        slots = [self.whole[i * self.slot_bytes : (i + 1) * self.slot_bytes] for i in range(SLOTS)]
        self.mine, self.theirs = (slots[:2], slots[2:]) if parent else (slots[2:], slots[:2])

    def write(self, number: int, tensors: Sequence[torch.Tensor]) -> list[Header]:
        headers = lay_out(tensors, self.slot_bytes)
        slot = self.mine[number & 1]
        for header, tensor in zip(headers, tensors, strict=True):
            _, _, at, size = in_slot(header, self.slot_bytes)
            slot[at : at + size].view(tensor.dtype).view(tensor.shape).copy_(tensor)
        return headers

    def finish(self) -> None:
        """The copies were blocking: nothing is left."""

    def read(self, number: int, header: Any, device: torch.device | None = None) -> torch.Tensor:
        dtype, shape, at, size = in_slot(header, self.slot_bytes)
        seen = self.theirs[number & 1][at : at + size].view(dtype).view(shape)
        return seen.clone() if device is None or device.type == "cpu" else seen.to(device)

    def close(self) -> None:
        """The memory goes with its last user."""

"""Patterns sent through an arena in both directions: what comes out differs, or it does not.

An exchange is named by its message's number and the tensors' sizes, so that both sides know the
pattern of each tensor without being told it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hybrid_core.transport.arenas.arena import Arena
from hybrid_core.transport.arenas.cuda_calls import CudaCalls

LARGEST = 4 << 20
SHIFTS = 256


def exchanges(slot_bytes: int) -> list[list[int]]:
    """Sizes of the tensors of each exchange: one byte, odd sizes, a latent, whole slots."""
    large = min(LARGEST, slot_bytes)
    full = [large] * (slot_bytes // large)
    small = [size for size in (1, 63, 4097) if size <= slot_bytes // 8]
    return [[1], small, [min((1 << 17) + 3, large)], full, full]


class Patterns:
    """The same bytes in both processes, cut at places that follow from an exchange's number."""

    def __init__(self, calls: CudaCalls, device: torch.device, slot_bytes: int):
        length = min(LARGEST, slot_bytes) + 2 * SHIFTS
        mixed = torch.arange(length, dtype=torch.int64) * 2654435761
        self._calls = calls
        self._bytes = calls.empty((length,), torch.uint8, device)
        self._bytes.copy_((mixed >> 11 & 255).to(torch.uint8))

    def outward(self, number: int, sizes: Sequence[int], answer: bool) -> list[torch.Tensor]:
        """The parent's tensors of an exchange, or the worker's answer."""
        starts = [(number * 37 + i * 11) % SHIFTS + SHIFTS * answer for i in range(len(sizes))]
        return [
            self._bytes[start : start + size] for start, size in zip(starts, sizes, strict=True)
        ]

    def difference(
        self,
        arena: Arena,
        number: int,
        headers: Sequence[object],
        sizes: Sequence[int],
        answer: bool,
    ) -> str | None:
        """What is wrong with what the other side has sent, None when nothing is."""
        if len(headers) != len(sizes):
            return f"{len(headers)} tensors came, expected {len(sizes)}"
        expected = self.outward(number, sizes, answer)
        seen = [arena.read(number, header, self._bytes.device) for header in headers]
        for one, other in zip(seen, expected, strict=True):
            if one.shape != other.shape or not self._calls.same(one, other):
                return f"a pattern of {len(other)} bytes came out different"
        return None

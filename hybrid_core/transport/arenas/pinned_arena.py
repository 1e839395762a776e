"""Tensors in shared host memory that both processes have pinned: copies run asynchronously.

A tensor is copied in pieces. The writer sends the message as soon as the first piece is there and
then says, piece by piece, how far the slot is filled; the reader copies to its GPU what is there.
So the two sides' copies overlap. Copies run on the current stream of the tensor's GPU, so no other
stream has to wait for them, and no thread ever waits for more than these copies' own events.

    slot 0 | slot 1 | slot 2 | slot 3 | filled 0 .. filled 3
    filled: message number in the upper 32 bits, bytes in the lower
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from mmap import mmap
from typing import Any

import torch

from hybrid_core.errors import CudaFailed, WorkerTimeout
from hybrid_core.transport.arenas.cuda_calls import CudaCalls
from hybrid_core.transport.arenas.host_arena import HostArena
from hybrid_core.transport.headers import SLOTS, Header, in_slot, lay_out

PIECE = 1 << 20
STALLED_SECONDS = 5.0


class PinnedArena:
    """One side's view. Raises CudaFailed when the memory cannot be pinned."""

    def __init__(self, block: mmap, parent: bool, calls: CudaCalls):
        self._calls, self._host = calls, HostArena(block, parent)
        self.slot_bytes = self._host.slot_bytes
        words = memoryview(block).cast("Q")[SLOTS * self.slot_bytes // 8 :]
        self._filled_mine, self._filled_theirs = words[:2], words[2:4]
        if not parent:
            self._filled_mine, self._filled_theirs = self._filled_theirs, self._filled_mine
        self._number = 0
        self._under_way: list[tuple[Any, int]] = []  # a piece's mark, where it ends
        self._held: list[torch.Tensor] = []  # sources of these pieces
        self._reading: dict[int, Any] = {}  # by GPU: after the latest copy out of a slot
        calls.register(self._host.whole.data_ptr(), len(block))

    def write(self, number: int, tensors: Sequence[torch.Tensor]) -> list[Header]:
        headers = lay_out(tensors, self.slot_bytes)
        self._finish_reading()
        slot = self._host.mine[number & 1]
        self._number, self._under_way, self._held = number, [], []
        self._filled_mine[number & 1] = _filled(number, 0)
        for header, tensor in zip(headers, tensors, strict=True):
            _, _, at, size = in_slot(header, self.slot_bytes)
            flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
            gpu = self._calls.gpu_of(tensor)
            if gpu is None:
                slot[at : at + size].copy_(flat)
                self._under_way.append((None, at + size))
                continue
            self._held.append(flat)
            for start in range(0, size, PIECE):
                end = min(start + PIECE, size)
                self._calls.copy(slot[at + start : at + end], flat[start:end])
                self._under_way.append((self._calls.mark(gpu), at + end))
        self._fill(1)
        return headers

    def finish(self) -> None:
        self._fill(len(self._under_way))
        self._held = []

    def _fill(self, count: int) -> None:
        """Wait for the next `count` pieces and say that they are there."""
        ready, self._under_way = self._under_way[:count], self._under_way[count:]
        for mark, end in ready:
            if mark is not None:
                self._calls.wait(mark)
            self._filled_mine[self._number & 1] = _filled(self._number, end)

    def read(self, number: int, header: Any, device: torch.device | None = None) -> torch.Tensor:
        dtype, shape, at, size = in_slot(header, self.slot_bytes)
        if device is None or device.type == "cpu":
            self._await(number, at + size if size else 0)
            return self._host.read(number, header)
        out = self._calls.empty(shape, dtype, device)
        flat, slot = out.reshape(-1).view(torch.uint8), self._host.theirs[number & 1]
        for start in range(0, size, PIECE):
            end = min(start + PIECE, size)
            self._await(number, at + end)
            self._calls.copy(flat[start:end], slot[at + start : at + end])
        gpu = self._calls.gpu_of(out)
        if size and gpu is not None:
            self._reading[gpu] = self._calls.mark(gpu)
        return out

    def _await(self, number: int, end: int) -> None:
        """Until the other side has filled its slot of message `number` up to `end`."""
        deadline = None
        while not _reaches(self._filled_theirs[number & 1], number, end):
            deadline = deadline or time.monotonic() + STALLED_SECONDS
            if time.monotonic() > deadline:
                raise WorkerTimeout(
                    f"{end} bytes of message {number} had not arrived after {STALLED_SECONDS:.0f} s"
                )
            time.sleep(0)

    def _finish_reading(self) -> None:
        for mark in self._reading.values():
            self._calls.wait(mark)
        self._reading = {}

    def close(self) -> None:
        for last in (
            self._finish_reading,
            self.finish,
            self._filled_mine.release,
            self._filled_theirs.release,
            lambda: self._calls.unregister(self._host.whole.data_ptr()),
        ):
            with suppress(CudaFailed):
                last()


def _filled(number: int, end: int) -> int:
    return (number & 0xFFFFFFFF) << 32 | end


def _reaches(word: int, number: int, end: int) -> bool:
    return word >> 32 == number & 0xFFFFFFFF and word & 0xFFFFFFFF >= end

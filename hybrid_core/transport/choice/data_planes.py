"""The worker's side of the data planes: which arena requests use, and the check of a new one."""

from __future__ import annotations

from collections.abc import Callable
from mmap import mmap

import torch

from hybrid_core.errors import ProtocolError
from hybrid_core.transport import wire
from hybrid_core.transport.arenas.arena import Arena
from hybrid_core.transport.arenas.cuda_arena import OpenedArena
from hybrid_core.transport.arenas.cuda_calls import CudaCalls, IpcCalls
from hybrid_core.transport.arenas.host_arena import HostArena
from hybrid_core.transport.arenas.pinned_arena import PinnedArena
from hybrid_core.transport.choice.planes import CUDA_IPC, HOST, HOST_PINNED
from hybrid_core.transport.choice.selftest import Patterns
from hybrid_core.transport.headers import Header


class DataPlanes:
    """Starts on shared host memory; the parent chooses."""

    def __init__(
        self,
        block: mmap,
        pinned_calls: Callable[[], CudaCalls] = CudaCalls,
        ipc_calls: Callable[[], IpcCalls] = IpcCalls,
    ):
        self._block, self._pinned_calls, self._ipc_calls = block, pinned_calls, ipc_calls
        self._host = HostArena(block, parent=False)
        self._calls: CudaCalls | None = None  # of the present arena
        self._patterns: Patterns | None = None
        self.arena: Arena = self._host
        self.device: torch.device | None = None  # where this arena puts tensors; None: the CPU

    def carrier(self, op: str) -> tuple[Arena, torch.device | None]:
        """The arena of a request `op` and the device for its tensors."""
        if op in wire.IN_HOST_MEMORY:
            return self._host, None
        return self.arena, self.device

    def choose(self, message: wire.Message) -> None:
        """Let go of the present arena and take the one that `message` asks for.

        Raises CudaFailed, PlaneUnavailable, ProtocolError; the arena is the host's then.
        """
        self.close()
        kind = wire.text(message, "kind")
        if kind == HOST:
            return
        if kind == HOST_PINNED:
            self._calls = self._pinned_calls()
            gpu = self._calls.current_device()
            self.arena = PinnedArena(self._block, parent=False, calls=self._calls)
        elif kind == CUDA_IPC:
            calls = self._ipc_calls()
            self._calls, gpu = calls, calls.current_device()
            self.arena = OpenedArena(calls, gpu, self._host.slot_bytes, message)
        else:
            raise ProtocolError(f"data plane {kind!r} is asked for, expected one of this pack's")
        self.device = torch.device("cuda", gpu)

    def probe(self, message: wire.Message) -> tuple[list[Header], str | None]:
        """Read one exchange of the self-test and write the answer; what differed."""
        if self._calls is None or self.device is None:
            raise ProtocolError("a check was asked for, and no data plane of a GPU is open")
        sizes = wire.items(message, "sizes", 1000)
        if not all(type(size) is int and 0 < size <= self.arena.slot_bytes for size in sizes):
            raise ProtocolError(f"a check of {str(sizes)[:80]} bytes is not this pack's")
        if self._patterns is None:
            self._patterns = Patterns(self._calls, self.device, self.arena.slot_bytes)
        number, headers = message["seq"], wire.items(message, "tensors", 1000)
        differs = self._patterns.difference(self.arena, number, headers, sizes, answer=False)
        answer = self._patterns.outward(number, sizes, answer=True)
        self._calls.delay(self._calls.current_device())  # so that a reply sent too early is seen
        return self.arena.write(number, answer), differs

    def close(self) -> None:
        """Back to host memory. The parent's side closes after this one."""
        arena, self.arena = self.arena, self._host
        self._calls = self._patterns = self.device = None
        arena.close()

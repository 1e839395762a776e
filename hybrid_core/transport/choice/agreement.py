"""The parent's side of choosing a data plane: try one after the other, on a thread of its own.

Making a CUDA context and pinning memory take tenths of a second, which the prompt's thread does not
wait for. While this goes on, nobody else uses the channel.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from mmap import mmap
from typing import Any

import torch

from hybrid_core.config import WorkerDevice
from hybrid_core.errors import PlaneUnavailable, WorkerDied, WorkerTimeout
from hybrid_core.planning.tokens import Link
from hybrid_core.transport import wire
from hybrid_core.transport.arenas.arena import Arena
from hybrid_core.transport.arenas.cuda_arena import ExportedArena
from hybrid_core.transport.arenas.cuda_calls import CudaCalls, IpcCalls
from hybrid_core.transport.arenas.host_arena import HostArena
from hybrid_core.transport.arenas.pinned_arena import PinnedArena
from hybrid_core.transport.channel import Channel
from hybrid_core.transport.choice.planes import CUDA_IPC, HOST, HOST_PINNED
from hybrid_core.transport.choice.selftest import Patterns, exchanges


class Unsound(PlaneUnavailable):
    """The worker did not survive the check, or cannot be trusted after it."""


@dataclass(frozen=True)
class Side:
    """What the parent needs to make its side of any plane."""

    block: mmap
    device: WorkerDevice
    pinned_calls: Callable[[], CudaCalls] = CudaCalls
    ipc_calls: Callable[[], IpcCalls] = IpcCalls

    def calls(self, plane: str) -> CudaCalls:
        return self.ipc_calls() if plane == CUDA_IPC else self.pinned_calls()

    def make(self, plane: str, calls: CudaCalls, slot_bytes: int) -> tuple[Arena, dict[str, Any]]:
        """The parent's arena, and what the worker must be told. Raises WorkerError."""
        if plane == HOST_PINNED:
            return PinnedArena(self.block, parent=True, calls=calls), {}
        assert isinstance(calls, IpcCalls)
        gpu = calls.gpu_by_uuid(self.device.uuid or "")
        if gpu is None:
            raise PlaneUnavailable(f"{self.device.label} is hidden from this process")
        arena = ExportedArena(calls, gpu, slot_bytes)
        return arena, arena.offer


class Agreement:
    """Found when `done()`: a plane and its arena, or why the worker must be ended.

    `link`: how fast the plane is, None where that was not measured.
    """

    def __init__(
        self,
        channel: Channel,
        side: Side,
        planes: Sequence[str],
        present: Arena,
        number: int,
        seconds: float,
    ):
        """present: the arena until now; number: of the latest request; seconds: for each plane."""
        self.plane, self.arena = HOST, present
        self.link: Link | None = None
        self.number = number
        self.reasons: list[str] = []  # why planes were not taken
        self.unsound: tuple[str, str] | None = None  # a plane and what happened
        self.since = time.monotonic()
        self._channel, self._side, self._planes = channel, side, planes
        self._seconds, self._deadline = seconds, 0.0
        self._abandoned = self._over = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="hybrid-planes", daemon=True)
        self._thread.start()

    def done(self) -> bool:
        return not self._thread.is_alive()

    def overdue(self) -> bool:
        """Whether a CUDA call of this process does not return."""
        return time.monotonic() - self.since > self._seconds * (1 + 2 * len(self._planes))

    def abandon(self) -> None:
        """The worker has ended: what was made is closed, now or when a CUDA call returns."""
        self._thread.join(1.0)
        with self._lock:
            self._abandoned = True
            if self._over:
                self.arena.close()

    def _run(self) -> None:
        self._choose()
        with self._lock:
            self._over = True
            if self._abandoned:
                self.arena.close()

    def _choose(self) -> None:
        plane = HOST
        try:
            self._ask("plane", kind=HOST)
            self.arena.close()
            self.arena = HostArena(self._side.block, parent=True)
            for plane in self._planes:
                if plane == HOST or self._tried(plane):
                    return
        except Exception as error:  # noqa: BLE001  a thread's last words
            self.unsound = plane, f"{type(error).__name__}: {error}"

    def _tried(self, plane: str) -> bool:
        """Whether `plane` moves every pattern. Raises what leaves the worker in doubt.

        What was made is kept in `arena` then: the parent closes after the worker's end.
        """
        before = self.plane, self.arena
        self._deadline = time.monotonic() + self._seconds
        try:
            calls = self._side.calls(plane)
            with calls.apart(self._gpu(calls)):
                made, offer = self._side.make(plane, calls, self.arena.slot_bytes)
            self.plane, self.arena = plane, made
            refusal = self._ask("plane", kind=plane, **offer).get("error")
            reason = refusal if refusal is not None else self._check(calls, made)
        except (WorkerDied, WorkerTimeout, Unsound):
            raise
        except Exception as error:  # noqa: BLE001  whatever it is, another plane may do
            reason = str(error)
        if reason is None:
            return True
        self.reasons.append(f"{plane}: {reason}")
        self._deadline = time.monotonic() + self._seconds
        self._ask("plane", kind=HOST)  # the worker lets go first
        if self.plane == plane:
            self.arena.close()
            self.plane, self.arena = before
        return False

    def _gpu(self, calls: CudaCalls) -> int:
        """That this process computes on; a new thread's own is always the first."""
        own = self._side.device.parents_gpu
        return calls.current_device() if own is None else own

    def _check(self, calls: CudaCalls, arena: Arena) -> str | None:
        """What came out different, None when nothing did."""
        gpu = self._gpu(calls)
        with calls.apart(gpu):  # a prompt may have filled the current stream for many seconds
            return self._exchanged(calls, gpu, arena)

    def _exchanged(self, calls: CudaCalls, gpu: int, arena: Arena) -> str | None:
        patterns = Patterns(calls, torch.device("cuda", gpu), arena.slot_bytes)
        every = exchanges(arena.slot_bytes)
        for sizes in every:
            calls.delay(gpu)  # so that a copy that nobody waited for is seen
            differs = self._there_and_back(patterns, arena, sizes)
            if differs is not None:
                return differs
        small, large = every[0], every[-1]
        seconds = []
        for sizes in (small, large):
            since = time.monotonic()
            differs = self._there_and_back(patterns, arena, sizes)
            if differs is not None:
                return differs
            seconds.append(time.monotonic() - since)
        self.link = measured(seconds[0], seconds[1], sum(large) - sum(small))
        return None

    def _there_and_back(self, patterns: Patterns, arena: Arena, sizes: Sequence[int]) -> str | None:
        """One exchange; what came out different, None when nothing did."""
        self.number += 1
        headers = arena.write(self.number, patterns.outward(self.number, sizes, False))
        self._channel.send("probe", self.number, tensors=headers, sizes=sizes)
        arena.finish()
        reply = self._reply("result")
        if reply["op"] == "failed":
            raise Unsound(f"the worker could not read a pattern: {wire.text(reply, 'error')}")
        if reply.get("differs") is not None:
            return f"to the worker: {wire.text(reply, 'differs')}"
        headers = wire.items(reply, "tensors", 1000)
        differs = patterns.difference(arena, self.number, headers, sizes, True)
        return None if differs is None else f"from the worker: {differs}"

    def _ask(self, op: str, **fields: Any) -> wire.Message:
        """The reply, "ok" or "failed"."""
        if self._deadline == 0.0:
            self._deadline = time.monotonic() + self._seconds
        self.number += 1
        self._channel.send(op, self.number, tensors=[], **fields)
        return self._reply("ok")

    def _reply(self, op: str) -> wire.Message:
        message = self._channel.receive(max(0.0, self._deadline - time.monotonic()))
        if message["seq"] != self.number or message["op"] not in (op, "failed"):
            raise Unsound(f"request {self.number} was answered {message['op']} {message['seq']}")
        return message


def measured(small: float, large: float, more: int) -> Link:
    """By the seconds of two round trips, of which the larger one moved `more` bytes more each way,
    one way after the other. Looking at what came is in them, so the link is faster than this.
    """
    return Link(latency=small / 2, rate=2 * more / max(large - small, 1e-6))

"""The GPUs of fake_cuda: memory, events, and streams whose work waits until it is waited for."""

from __future__ import annotations

import random
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from hybrid_core.errors import CudaFailed
from hybrid_core.transport.arenas.cuda_calls import HANDLE_BYTES


@dataclass
class Memory:
    gpu: int
    data: bytearray
    owner: str
    handle: bytes = b""
    freed: bool = False
    open_in: set[str] = field(default_factory=set)


@dataclass
class Point:
    """An event: how often it was recorded, and how much of that the GPU has reached."""

    gpu: int
    owner: str
    shared: bool
    recorded: int = 0
    reached: int = 0
    told: int = 0  # recordings that a message has been sent after


@dataclass
class Op:
    kind: str  # copy, record, wait
    work: Any = None
    point: Point | None = None
    version: int = 0
    shared: bool = False  # it touches memory on a GPU that both processes see
    pinned: bool = False  # it touches pinned memory


class Machine:
    """What exists once: GPUs' memory, events, streams."""

    def __init__(self, seed: int = 0, gpus: int = 2):
        self.lock = threading.RLock()
        self.problems: list[str] = []
        self.random = random.Random(seed)  # noqa: S311
        self.eager = self.random.choice((0.0, 0.0, 0.05, 0.5))  # GPUs: how much goes on by itself
        self.queues: dict[tuple[str, int, int], deque[Op]] = {}
        self.memories: dict[bytes, Memory] = {}
        self.points: dict[bytes, Point] = {}
        self.gpus = gpus
        self.dead: set[str] = set()
        self.corrupt = False  # whether copies between two GPUs change a byte, silently
        self.next_address = 1 << 50

    def handle(self) -> bytes:
        return self.random.randbytes(HANDLE_BYTES)

    def run(self, queue: deque[Op]) -> None:
        """Everything in `queue`, and what it waits for."""
        while queue:
            self.advance(queue, force=True)

    def advance(self, queue: deque[Op], force: bool) -> bool:
        """One operation. False when it must wait for another stream and is not forced."""
        op = queue[0]
        if op.kind == "wait" and op.point is not None and op.point.reached < op.version:
            if not force:
                return False
            self.reach(op.point, op.version)
        queue.popleft()
        if op.kind == "copy":
            op.work()
        if op.kind == "record" and op.point is not None:
            op.point.reached = max(op.point.reached, op.version)
        return True

    def reach(self, point: Point, version: int) -> None:
        for queue in list(self.queues.values()):
            if any(op.kind == "record" and op.point is point for op in queue):
                while point.reached < version and queue:
                    self.advance(queue, force=True)
        if point.reached < version:
            raise CudaFailed("an event that is waited for is never reached")

    def by_chance(self) -> None:
        """GPUs go on by themselves."""
        for queue in list(self.queues.values()):
            if self.random.random() >= self.eager:
                continue
            for _ in range(self.random.choice((1, 2, 5))):
                if not queue or not self.advance(queue, force=False):
                    break

    def message(self, sender: str) -> None:
        """Called when a message is sent: what must be the case by then."""
        with self.lock:
            if sender == "parent":
                points = [p for p in self.points.values() if p.shared and p.owner == "parent"]
                new = [p for p in points if p.recorded > p.told]
                if points and len(new) != 1:
                    self.problems.append(f"{len(new)} events recorded before a message")
                for point in points:
                    point.told = point.recorded
            else:
                for (process, _, _), queue in self.queues.items():
                    if process == sender and any(op.shared for op in queue):
                        self.problems.append("the worker replied before it was synchronised")

    def die(self, process: str) -> None:
        with self.lock:
            self.dead.add(process)
            for memory in self.memories.values():
                memory.open_in.discard(process)
            for key in [key for key in self.queues if key[0] == process]:
                del self.queues[key]

    def left(self) -> list[str]:
        """What is still allocated or open."""
        return [m.owner for m in self.memories.values() if not m.freed or m.open_in]

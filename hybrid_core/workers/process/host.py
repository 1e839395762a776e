"""The parent's side of the worker's process: start it, send requests, take replies, end it.

One request is under way at a time. A request that is given up stays "outstanding" until its reply
has come in and was dropped; meanwhile `idle()` is False and callers evaluate in the parent.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from hybrid_core.config import Settings, WorkerDevice
from hybrid_core.errors import (
    PlaneUnavailable,
    ProtocolError,
    WorkerDied,
    WorkerError,
    WorkerFailed,
    WorkerStopped,
    WorkerTimeout,
)
from hybrid_core.transport import wire
from hybrid_core.transport.arenas.arena import Arena
from hybrid_core.transport.arenas.host_arena import HostArena, block_bytes
from hybrid_core.transport.arenas.shared_memory import SharedMemory
from hybrid_core.transport.bulk import pieces
from hybrid_core.transport.channel import Channel
from hybrid_core.transport.choice.agreement import Side
from hybrid_core.transport.choice.plane_choice import PlaneChoice
from hybrid_core.workers.contract import Tick
from hybrid_core.workers.evaluator import Models
from hybrid_core.workers.process import entry, spawning

log = logging.getLogger("hybrid_ksampler")
MakeModels = Callable[[Mapping[str, Any]], Models]  # of an importable module, light to import


@dataclass
class Reply:
    fields: wire.Message
    tensors: list[torch.Tensor]


@dataclass(frozen=True)
class Means:
    """What a process and its connection are made of."""

    start: Callable[..., BaseProcess] = spawning.start
    pipe: Callable[[], tuple[Connection, Connection]] = spawning.pipe
    memory: Callable[[int], SharedMemory] = SharedMemory
    channel: Callable[..., Channel] = Channel
    side: Callable[..., Side] = Side


USUAL = Means()


class Host:
    """One process on `device`, started on first use and started anew after a failure."""

    def __init__(
        self,
        device: WorkerDevice,
        settings: Settings,
        make_models: MakeModels,
        boot: Mapping[str, Any],
        means: Means = USUAL,
    ):
        """make_models: called in the worker with `boot`, primitives that tell of this process."""
        self.device = device
        self.settings = settings
        self.lock = threading.RLock()  # the prompt's thread against the janitor
        self.last_error: str | None = None
        self.started_at = 0.0
        self.start_seconds: float | None = None
        self.last_used = time.monotonic()
        self.epoch = 0  # counts the processes: what was told to an earlier one is forgotten
        self.bytes_sent = self.bytes_received = 0
        self._make_models, self._boot, self._means = make_models, boot, means
        self._process: BaseProcess | None = None
        self._channel: Channel | None = None
        self.planes = PlaneChoice(device, settings, means.side)
        self._host_arena: HostArena | None = None  # of the shared memory, whatever the plane
        self._arena: Arena | None = None
        self._memory: SharedMemory | None = None
        self._number = self._born = 0  # numbers of requests go on over all processes
        self._outstanding: int | None = None
        self._late_at: float | None = None  # when the outstanding request counts as unanswered
        self._ready = False

    @property
    def data_plane(self) -> str:
        """How tensors travel: a word of DATA_PLANES."""
        return self.planes.plane

    @property
    def data_plane_reason(self) -> str | None:
        """Why not in a better way, or in the wanted one."""
        return self.planes.reason

    @property
    def alive(self) -> bool:
        return self._process is not None

    @property
    def under_way(self) -> int | None:
        """Number of the request that is not answered yet."""
        return self._outstanding

    @property
    def pid(self) -> int | None:
        """Process id, None while there is no worker."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the process if there is none. Returns at once; `ready` says when it is up.

        Raises WorkerFailed when the system refuses.
        """
        if self._process is not None:
            return
        environment, boot = dict(self.device.environment), dict(self._boot)
        with ExitStack() as opened, ExitStack() as on_failure:
            try:
                ours, theirs = self._means.pipe()
                opened.callback(theirs.close)
                on_failure.callback(ours.close)
                memory = self._means.memory(block_bytes(self.settings.slot_bytes))
                opened.callback(memory.close_descriptor)
                process = self._means.start(
                    entry.main,
                    (
                        theirs, memory.ticket(), environment, self.device.cores,
                        self._make_models, boot,
                    ),
                )  # fmt: skip
            except OSError as error:
                raise WorkerFailed(f"the worker's process could not be started: {error}") from error
            on_failure.pop_all()
        self._process, self._memory = process, memory
        self._channel = self._means.channel(ours, wire.REPLIES)
        self._arena = self._host_arena = HostArena(memory.map, parent=True)
        self._born, self._outstanding, self._ready = self._number, 0, False
        self.epoch += 1
        self.started_at, self.start_seconds = time.monotonic(), None
        self.last_error = None
        self.last_used = time.monotonic()
        log.info("worker %s started on %s", process.pid, self.device.label)

    def ready(self) -> bool:
        """Whether the worker is up. Never waits. Raises WorkerError when it failed to come up."""
        if self._process is None:
            return False
        if self.planes.under_way:
            return self._plane_taken()
        if self._ready and (self.planes.up_to_date or self._outstanding is not None):
            return True
        if self._ready or self.idle():
            return self._choose_plane()
        if time.monotonic() - self.started_at > self.settings.start_seconds:
            raise WorkerTimeout(f"the worker was not up after {self.settings.start_seconds:.0f} s")
        return False

    def _choose_plane(self) -> bool:
        assert self._memory is not None
        arena, channel = self._require_arena(), self._require_channel()
        self._ready = self.planes.choose(channel, self._memory.map, arena, self._number)
        return self._ready and self._up()

    def _plane_taken(self) -> bool:
        try:
            taken = self.planes.taken()
        except PlaneUnavailable as error:
            self.end(str(error))
            self.start()
            return False
        if taken is None:
            return False
        self._arena, self._number = taken
        self._ready = True
        return self._up()

    def _up(self) -> bool:
        if self.start_seconds is None:
            self.start_seconds = time.monotonic() - self.started_at
        return True

    def idle(self) -> bool:
        """Whether no request is under way; takes in and drops a late reply. Never waits."""
        while self._outstanding is not None and self._require_channel().waiting():
            message = self._require_channel().receive(0.0)
            if message["seq"] == self._outstanding:
                self._outstanding = None
                if message["op"] == "failed" and message["seq"] == 0:
                    raise WorkerDied(f"the worker did not come up: {wire.text(message, 'error')}")
        late = self._late_at
        if self._outstanding and late is not None and time.monotonic() > late:
            waited = time.monotonic() - self.last_used
            raise WorkerTimeout(f"the worker does not answer (waited {waited:.0f} s)")
        return self._outstanding is None

    def post(
        self,
        op: str,
        fields: Mapping[str, Any],
        tensors: Sequence[torch.Tensor] = (),
        tick: Tick | None = None,
    ) -> int:
        """Send a request whose tensors fit into one slot. Its number, for `wait`.

        Raises ArenaTooSmall, WorkerDied, ProtocolError (also for a request under way).
        """
        if self._outstanding is not None:
            raise ProtocolError(f"'{op}' was asked while request {self._outstanding} is under way")
        number = self._number + 1
        arena = self._require_arena(op)
        headers = arena.write(number, tensors)
        self._number = self._outstanding = number
        self._late_at, waits = None, (tick, self.settings.request_seconds)
        with self._given_up_where_it_raises():
            self._require_channel().send(op, number, *waits, **fields, tensors=headers)
        self.bytes_sent += sum(t.numel() * t.element_size() for t in tensors)
        arena.finish()
        self.last_used = time.monotonic()
        return number

    def keep_free(self, numbers: int) -> None:
        """The numbers after the latest request's are its own: for exchanges inside it."""
        self._number += numbers

    def take_as_answered(self) -> None:
        """The worker has said inside the request that it failed."""
        self._outstanding = None

    def post_any_size(
        self,
        op: str,
        fields: Mapping[str, Any],
        tensors: Sequence[torch.Tensor],
        tick: Tick | None = None,
    ) -> int:
        """Like `post`, for tensors of any size: what does not fit goes ahead in pieces."""
        slot = self._require_arena().slot_bytes
        if sum(t.numel() * t.element_size() + 64 for t in tensors) <= slot:
            return self.post(op, fields, tensors, tick)
        for piece in pieces(tensors, slot):
            number = self.post("chunk", piece.fields, [piece.data], tick)
            self.wait(number, "more", self.settings.request_seconds, tick)
        return self.post(op, {**fields, "pieced": len(tensors)}, (), tick)

    def wait(
        self,
        number: int,
        op: str,
        seconds: float,
        tick: Tick | None = None,
        device: torch.device | None = None,
        at: int | None = None,
    ) -> Reply:
        """The reply `op` to request `number`, its tensors on `device`.

        at: the number under which they were written, where that is another. `tick` runs while
        waiting and may raise.

        Raises WorkerTimeout, WorkerDied, WorkerFailed (the worker's own words), ProtocolError,
        WorkerStopped for a request to an earlier process.
        """
        channel, deadline = self._require_channel(), time.monotonic() + seconds
        if number <= self._born:
            raise WorkerStopped
        while True:
            with self._given_up_where_it_raises():
                message = channel.receive(max(0.0, deadline - time.monotonic()), tick)
            if message["seq"] == number:
                break
            if message["seq"] > number:
                raise ProtocolError(f"reply {message['seq']} came to request {number}")
        self._outstanding = None
        self.last_used = time.monotonic()
        if message["op"] == "failed":
            failure = WorkerDied if message.get("gone") else WorkerFailed  # what it stands for
            raise failure(wire.text(message, "error"))
        if message["op"] != op:
            raise ProtocolError(f"request {number} was answered '{message['op']}', expected '{op}'")
        headers = wire.items(message, "tensors", 64) if op == "result" else []
        arena, slot = self._require_arena(), number if at is None else at
        tensors = [arena.read(slot, header, device) for header in headers]
        self.bytes_received += sum(t.numel() * t.element_size() for t in tensors)
        return Reply(message, tensors)

    @contextmanager
    def _given_up_where_it_raises(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.expect_answer(self.settings.request_seconds)
            raise

    def expect_answer(self, seconds: float) -> None:
        """Nobody waits for the request under way any more: after so long the worker is stuck."""
        self._late_at = time.monotonic() + seconds

    def replied(self, number: int) -> bool:
        """Whether a message can be received at once."""
        return self._outstanding != number or self._require_channel().waiting()

    def cancel(self) -> None:
        """Ask the worker to stop what is under way. Its late reply is dropped by `idle`."""
        if self._outstanding and self._channel is not None:  # 0 is the worker's coming up
            if self._late_at is None:
                self.expect_answer(self.settings.request_seconds)
            try:
                self._channel.send("cancel", self._outstanding, seconds=0.0)
            except WorkerError as error:  # gone, or it reads nothing any more
                self.end(str(error))

    def stop(self) -> None:
        """End the process: ask, then make sure. All its memory is free afterwards."""
        if self._process is None:
            return
        try:
            self._require_channel().send("stop", self._number + 1, seconds=0.0)
            self._process.join(2.0)
        except WorkerError:
            pass  # already what was wanted, or it has to be ended by force
        self.end(None)

    def abandon(self) -> None:
        process = self._process
        if process is not None:
            with suppress(ValueError):  # closed in the meantime
                process.kill()

    def end(self, why: str | None) -> None:
        """End the process at once and let go of everything shared with it."""
        process, channel = self._process, self._channel
        if process is None or channel is None:
            return
        arena = self._arena
        self._process = self._channel = self._arena = self._host_arena = self._memory = None
        self._outstanding, self._ready = None, False
        channel.close()
        process.kill()
        process.join(5.0)
        exit_code = process.exitcode
        with suppress(ValueError):  # a driver may keep it from ending for a while
            process.close()
        self.planes.end(arena)
        if why is not None:
            self.last_error = f"{why} (exit code {exit_code})"
            log.warning("worker stopped: %s", self.last_error)

    def _require_channel(self) -> Channel:
        if self._channel is None:
            raise WorkerStopped
        return self._channel

    def _require_arena(self, op: str = "evaluate") -> Arena:
        arena = self._host_arena if op in wire.IN_HOST_MEMORY else self._arena
        if arena is None:
            raise WorkerStopped
        return arena

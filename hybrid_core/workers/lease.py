"""One sampling call: which evaluations the worker does, and what happened."""

from __future__ import annotations

import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch

from hybrid_core.config import Tuning
from hybrid_core.errors import (
    ArenaTooSmall,
    NoRoom,
    NotPartitionable,
    ProtocolError,
    ReplicaMismatch,
    WorkerError,
    WorkerFailed,
    WorkerStopped,
)
from hybrid_core.telling.report import Report
from hybrid_core.transport import wire
from hybrid_core.transport.carry import flatten, unflatten
from hybrid_core.workers.process.host import WorkerHost

log = logging.getLogger("hybrid_ksampler")

WORKER_IS_SOUND = (WorkerFailed, ReplicaMismatch, ArenaTooSmall, NoRoom, NotPartitionable)
CONTEXTS_KEPT = 4  # by both processes, oldest out first
PUBLISHED = Tuning()


class Times(NamedTuple):
    """Of one request, in seconds: the worker's own, and this side's waiting for it."""

    worker: float
    waited: float


class Source(Protocol):
    """The parent's model, as the run needs it."""

    base_key: str
    key: str
    name: str

    def payload(self, with_base: bool) -> dict[str, Any]: ...
    def verify(self, theirs: Any) -> None: ...
    def needed_bytes(self) -> int: ...


@dataclass
class Partner:
    """What is known of the worker's state, kept between runs. Void when its process changes."""

    host: WorkerHost
    epoch: int = -1
    bases: set[str] = field(default_factory=set)
    key: str | None = None
    model_name: str | None = None  # of the replica
    loading: tuple[int, str, float] | None = None  # request, key, since
    contexts: OrderedDict[str, tuple[int, list[torch.Tensor]]] = field(default_factory=OrderedDict)
    next_context: int = 0
    to_forget: list[str] = field(default_factory=list)
    load_seconds: float | None = None
    loads: int = 0  # replicas loaded or patched anew
    refused: dict[str, str] = field(default_factory=dict)  # models that came out different

    @property
    def up_to_date(self) -> bool:
        """Whether this is known of the present process."""
        return self.epoch == self.host.epoch

    @property
    def awaits_load(self) -> bool:
        """Whether the reply to a load is still to be taken in, by a run."""
        return self.loading is not None and self.up_to_date

    @property
    def replica_name(self) -> str | None:
        """Class of the model that the worker holds."""
        return self.model_name if self.up_to_date else None

    def sync(self) -> None:
        if not self.up_to_date:
            self.epoch = self.host.epoch
            self.bases, self.key, self.loading, self.model_name = set(), None, None, None
            self.contexts = OrderedDict()


class Run:
    """Brings the partner up without waiting for it, shares evaluations with it, survives it."""

    def __init__(
        self,
        partner: Partner,
        source: Source,
        tick: Callable[[], None],
        report: Report,
        tuning: Tuning = PUBLISHED,
    ):
        """tuning: how long a replica's loading and a step may take."""
        self.report = report
        self.times: Times | None = None  # of the latest request that was answered
        self.worker_speed = 1.0  # of the parent's, by the latest step that both evaluated in full
        self._partner, self._host, self._source, self._tick = partner, partner.host, source, tick
        self._load_seconds = tuning.load_seconds or self._host.settings.load_seconds
        self._step_seconds = tuning.step_seconds or self._host.settings.step_seconds
        self._plane = tuning.data_plane
        self._gone = False
        self._epoch: int | None = None  # of the worker that this run began with

    @property
    def apart(self) -> bool:
        """Whether the parent evaluates its branches one by one when it evaluates them all.

        As the worker would: then a run's numbers are the same, bit for bit, whether the worker took
        part from the first step, from a later one, or died on the way. A run that has given up
        before it shared anything is KSampler's.
        """
        return not self._gone or self.report.partitioned + self.report.pipelined > 0

    def obstacle_to(self, boundary_bytes: int) -> str | None:
        """Why one exchange with the worker cannot hold a boundary, None when it can."""
        if boundary_bytes > self._host.settings.slot_bytes:
            return "the network's features are larger than the shared memory"
        return None

    def prepare(self) -> None:
        """Start what takes time. The parent may not have loaded its model: nothing is compared."""
        self._move_on(may_verify=False)

    def ready(self, wait_seconds: float = 0.0) -> bool:
        """Whether the worker holds an equal model. Moves its start and loading on meanwhile.

        The parent's own model must be loaded with its patches: it is compared.
        """
        deadline = time.monotonic() + wait_seconds
        while not self._gone:
            if self._move_on(may_verify=True):
                return True
            if time.monotonic() >= deadline:
                return False
            self._tick()
            time.sleep(0.02)
        return False

    def _move_on(self, may_verify: bool) -> bool:
        try:
            with self._host.lock:
                return self._advance(may_verify)
        except (WorkerError, NotPartitionable) as error:
            self.give_up(error)
            return False

    def _advance(self, may_verify: bool) -> bool:
        host, partner, source = self._host, self._partner, self._source
        if source.key in partner.refused:
            raise ReplicaMismatch(partner.refused[source.key])
        host.planes.want(self._plane)
        if self._epoch is None:
            host.start()
            self._epoch = host.epoch
        if host.pid is None or host.epoch != self._epoch:
            raise WorkerStopped
        partner.sync()
        if not host.ready():
            return False
        self._note_plane()
        if partner.loading is not None:
            number, key, since = partner.loading
            left = since + self._load_seconds - time.monotonic()
            if not host.replied(number) and left > 0:
                return False
            if key == source.key and not may_verify:
                return False
            partner.loading = None
            reply = host.wait(number, "ok", 0.0)
            partner.bases.add(key.partition(":")[0])
            partner.load_seconds = time.monotonic() - since
            partner.loads += 1
            if key == source.key:
                self._verify(reply.fields.get("portrait"))
                partner.key = key
        if not host.idle():
            return False
        self._forget_gone_models()
        if partner.key == source.key:
            return True
        self._check_room()
        since = time.monotonic()
        partner.key, partner.model_name = None, source.name
        tensors: list[torch.Tensor] = []
        tree = flatten(source.payload(source.base_key not in partner.bases), tensors, "the model")
        number = host.post_any_size("load", {"data": tree}, tensors, self._tick)
        partner.loading = (number, source.key, since)
        return False

    def _note_plane(self) -> None:
        report, planes = self.report, self._host.planes
        if report.data_plane is None and planes.missed is not None:
            report.reasons.append(planes.missed)
        report.data_plane, report.data_plane_reason = planes.plane, planes.reason

    def _check_room(self) -> None:
        """Asked before each load, once a run: memory that is taken now may be free for the next."""
        number = self._host.post("status", {})
        status = self._host.wait(number, "ok", self._host.settings.request_seconds).fields
        available, needed = status.get("available_bytes"), self._source.needed_bytes()
        if isinstance(available, int) and needed > available:
            raise NoRoom(
                f"{self._source.name} needs {needed / 1e9:.1f} GB on {self._host.device.label}, "
                f"{available / 1e9:.1f} GB are free there; close what else uses it"
            )

    def _verify(self, portrait: Any) -> None:
        try:
            self._source.verify(portrait)
        except ReplicaMismatch as error:
            self._partner.refused[self._source.key] = str(error)
            self._partner.bases.discard(self._source.base_key)
            raise

    def _forget_gone_models(self) -> None:
        partner = self._partner
        while partner.to_forget:
            key = partner.to_forget.pop()
            if key in partner.bases:
                partner.bases.discard(key)
                partner.contexts.clear()  # as the worker does
                number = self._host.post("forget", {"base_key": key})
                self._host.wait(number, "ok", self._host.settings.request_seconds)

    def post(
        self, op: str, context: Any, x: torch.Tensor, sigma: torch.Tensor, **fields: Any
    ) -> int | None:
        """Ask the worker for a "step" or a "stage" of `context` at (x, sigma).

        Its number, None when it cannot be asked. Raises NotPartitionable for a context that is not
        plain data.
        """
        tensors: list[torch.Tensor] = []
        tree = flatten(context, tensors, "conditioning")
        before = self._host.bytes_sent
        try:
            with self._host.lock:
                number = self._context_number(tree, tensors)
                asked = self._host.post(op, {**fields, "context": number}, [x, sigma])
        except WorkerError as error:
            self.give_up(error)
            return None
        self.report.bytes_sent += self._host.bytes_sent - before
        return asked

    def _context_number(self, tree: Any, tensors: list[torch.Tensor]) -> int:
        """The number under which the worker holds this context; sends it when it is new."""
        known = self._partner.contexts
        signature = json.dumps([tree, [identity(tensor) for tensor in tensors]])
        if signature in known:
            return known[signature][0]
        number = self._partner.next_context
        self._partner.next_context += 1
        held = dict(known)
        known.clear()  # should the sending be interrupted, nothing is taken for known
        request = self._host.post_any_size(
            "conds", {"data": tree, "context": number}, tensors, self._tick
        )
        self._host.wait(request, "ok", self._host.settings.request_seconds, self._tick)
        known.update(held)
        known[signature] = (number, tensors)  # held, so that no other tensor gets their place
        while len(known) > CONTEXTS_KEPT:
            known.popitem(last=False)
        return number

    def collect(
        self, number: int, like: torch.Tensor, count: int, began: float, own_seconds: float
    ) -> tuple[list[torch.Tensor], Any] | None:
        """The worker's `count` results, each like `like`, and its boundaries; None when it failed.

        began: time.monotonic() before the step was posted; own_seconds: the parent's own branch.
        """
        taken = self._reply(number, own_seconds, count, like)
        if taken is None:
            return None
        results, boundary, times = taken
        self.report.own_seconds += own_seconds
        self.report.overhead_seconds += time.monotonic() - began - max(own_seconds, times.worker)
        self.report.partitioned += 1
        self.report.wait_seconds += times.waited
        self.worker_speed = own_seconds / max(times.worker, 1e-6)
        return results, boundary

    def collect_stage(self, number: int, own_seconds: float, like: torch.Tensor) -> Any | None:
        """The boundaries of a "stage" on `like`'s device. None when it failed."""
        taken = self._reply(number, own_seconds, 0, like)
        if taken is None:
            return None
        _, boundary, times = taken
        self.report.stage_wait_seconds += times.waited
        self.report.stage_seconds += times.worker
        self.report.stages += 1
        return boundary

    def _reply(
        self, number: int, own_seconds: float, count: int, like: torch.Tensor
    ) -> tuple[list[torch.Tensor], Any, Times] | None:
        since, self.times = time.monotonic(), None
        seconds = self._step_seconds + self._host.settings.step_factor * own_seconds
        before = self._host.bytes_received
        try:
            with self._host.lock:
                reply = self._host.wait(number, "result", seconds, self._tick, like.device)
            check_results(reply.tensors[:count], like, count)
            theirs = wire.whole_number(reply.fields, "micros") / 1e6
            boundary = unflatten(reply.fields.get("boundary"), reply.tensors)
        except WorkerError as error:
            self.give_up(error)
            return None
        self.report.bytes_received += self._host.bytes_received - before
        self.times = Times(theirs, time.monotonic() - since)
        return reply.tensors[:count], boundary, self.times

    def cancel(self) -> None:
        """The sampler was stopped: nothing that is under way is wanted."""
        with self._host.lock:
            self._host.cancel()

    def give_up(self, error: Exception) -> None:
        """The rest of this run is local. A worker that cannot be trusted any more is ended."""
        self._gone = True
        reason = f"evaluated in this process alone: {error}"
        self.report.reasons.append(reason)
        log.warning("%s", reason)
        if isinstance(error, WorkerStopped):
            return
        if isinstance(error, WORKER_IS_SOUND):
            self._host.last_error = str(error)
        else:
            with self._host.lock:
                self._host.kill(str(error))


def identity(tensor: torch.Tensor) -> list[Any]:
    """Equal for the same memory seen the same way and, where torch knows, not written to since."""
    version = 0 if tensor.is_inference() else tensor._version
    return [tensor.data_ptr(), list(tensor.shape), tensor.stride(), str(tensor.dtype), version]


def check_results(results: Sequence[torch.Tensor], like: torch.Tensor, count: int) -> None:
    """Raise ProtocolError unless there are `count` tensors of `like`'s shape and dtype."""
    seen = [(tuple(t.shape), t.dtype) for t in results]
    expected = [(tuple(like.shape), like.dtype)] * count
    if seen != expected:
        raise ProtocolError(f"the worker returned {seen}, expected {expected}")

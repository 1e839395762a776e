"""One sampling call: which evaluations the worker does, and what happened."""

from __future__ import annotations

import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from hybrid_core.errors import (
    ArenaTooSmall,
    NotPartitionable,
    ProtocolError,
    ReplicaMismatch,
    WorkerError,
    WorkerFailed,
)
from hybrid_core.transport import wire
from hybrid_core.transport.carry import flatten
from hybrid_core.worker.host import WorkerHost

log = logging.getLogger("hybrid_ksampler")
WORKER_IS_SOUND = (WorkerFailed, ReplicaMismatch, ArenaTooSmall, NotPartitionable)
CONTEXTS_KEPT = 4  # by both processes, oldest out first


class Source(Protocol):
    """The parent's model, as the run needs it."""

    base_key: str
    key: str

    def payload(self, with_base: bool) -> dict[str, Any]: ...
    def verify(self, theirs: Any) -> None: ...


@dataclass
class Partner:
    """What is known of the worker's state, kept between runs. Void when its process changes."""

    host: WorkerHost
    epoch: int = -1
    bases: set[str] = field(default_factory=set)
    key: str | None = None
    loading: tuple[int, str, float] | None = None  # request, key, since
    contexts: OrderedDict[str, tuple[int, list[torch.Tensor]]] = field(default_factory=OrderedDict)
    next_context: int = 0
    to_forget: list[str] = field(default_factory=list)
    load_seconds: float | None = None
    loads: int = 0  # replicas loaded or patched anew
    refused: dict[str, str] = field(default_factory=dict)  # models that came out different

    def sync(self) -> None:
        if self.epoch != self.host.epoch:
            self.epoch = self.host.epoch
            self.bases, self.key, self.loading = set(), None, None
            self.contexts = OrderedDict()


@dataclass
class Report:
    """What a run did; times in seconds."""

    partitioned: int = 0  # evaluations shared with the worker
    local: int = 0  # evaluations of two branches by the parent alone
    single: int = 0  # evaluations that had one branch only
    own_seconds: float = 0.0
    wait_seconds: float = 0.0
    overhead_seconds: float = 0.0  # beyond the slower branch's own time
    reasons: list[str] = field(default_factory=list)

    def line(self) -> str:
        """The run in one line of words."""
        total = self.partitioned + self.local
        words = f"{self.partitioned} of {total} steps shared with the second process"
        if self.single:
            words += f", {self.single} with one branch"
        if self.partitioned:
            mean = self.wait_seconds / self.partitioned * 1000
            words += f", waited {mean:.1f} ms a step for it"
        return "; ".join([words, *self.reasons])


class Run:
    """Brings the partner up without waiting for it, shares evaluations with it, survives it."""

    def __init__(self, partner: Partner, source: Source, tick: Callable[[], None], report: Report):
        self.report = report
        self._partner, self._host, self._source, self._tick = partner, partner.host, source, tick
        self._gone = False

    @property
    def apart(self) -> bool:
        """Whether the parent evaluates its branches one by one when it evaluates them all.

        As the worker would: then a run's numbers are the same, bit for bit, whether the worker took
        part from the first step, from a later one, or died on the way. A run that has given up
        before it shared anything is KSampler's.
        """
        return not self._gone or self.report.partitioned > 0

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
        host.start()
        partner.sync()
        if not host.ready():
            return False
        if partner.loading is not None:
            number, key, since = partner.loading
            left = since + host.settings.load_seconds - time.monotonic()
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
        since = time.monotonic()
        partner.key = None
        tensors: list[torch.Tensor] = []
        tree = flatten(source.payload(source.base_key not in partner.bases), tensors, "the model")
        number = host.post_any_size("load", {"data": tree}, tensors, self._tick)
        partner.loading = (number, source.key, since)
        return False

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
                number = self._host.post("forget", {"base_key": key})
                self._host.wait(number, "ok", self._host.settings.request_seconds)

    def post(self, context: Any, x: torch.Tensor, sigma: torch.Tensor) -> int | None:
        """Ask the worker to evaluate `context` at (x, sigma). None when it cannot be asked.

        Raises NotPartitionable for a context that is not plain data.
        """
        tensors: list[torch.Tensor] = []
        tree = flatten(context, tensors, "conditioning")
        try:
            with self._host.lock:
                number = self._context_number(tree, tensors)
                return self._host.post("step", {"context": number}, [x, sigma])
        except WorkerError as error:
            self.give_up(error)
            return None

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
    ) -> list[torch.Tensor] | None:
        """The worker's `count` results, each like `like`, on its device. None when it failed.

        began: time.monotonic() before the step was posted; own_seconds: the parent's own branch.
        """
        settings, since = self._host.settings, time.monotonic()
        seconds = settings.step_seconds + settings.step_factor * own_seconds
        try:
            with self._host.lock:
                reply = self._host.wait(number, "result", seconds, self._tick)
            check_results(reply.tensors, like, count)
            theirs = wire.whole_number(reply.fields, "micros") / 1e6
        except WorkerError as error:
            self.give_up(error)
            return None
        results = [tensor.to(like.device) for tensor in reply.tensors]
        now = time.monotonic()
        self.report.partitioned += 1
        self.report.own_seconds += own_seconds
        self.report.wait_seconds += now - since
        self.report.overhead_seconds += now - began - max(own_seconds, theirs)
        return results

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

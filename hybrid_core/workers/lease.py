"""One run's use of one worker: an equal model there, requests, and the end of trust."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from hybrid_core.config import Tuning
from hybrid_core.errors import (
    NoRoom,
    NotPartitionable,
    ProtocolError,
    ReplicaMismatch,
    WorkerError,
    WorkerStopped,
    WorkerTimeout,
)
from hybrid_core.telling.report import Report
from hybrid_core.transport.carry import carry
from hybrid_core.workers.contract import (
    Answer,
    Part,
    Tick,
    TokenLink,
    Tokens,
    check_outputs,
    settle,
)
from hybrid_core.workers.holdings import Holdings, Loading
from hybrid_core.workers.likeness import Likeness, Source

log = logging.getLogger("hybrid_ksampler")

PUBLISHED = Tuning()
POLL_SECONDS = 0.02
Tensor = torch.Tensor


@dataclass(frozen=True)
class Awaited:
    """An evaluation that both sides make, and whose answer is not waited for."""

    number: int  # of the request
    part: Part  # one branch of the whole batch
    ours: Tensor  # what this process made of it
    since: float  # time.monotonic()


class Lease:
    """Brings the worker up without waiting for it, shares evaluations with it, survives it."""

    def __init__(
        self,
        holdings: Holdings,
        source: Source,
        tick: Tick,
        report: Report,
        tuning: Tuning = PUBLISHED,
    ):
        """tuning: how long a replica's loading and a step may take."""
        self.holdings, self.worker = holdings, holdings.worker
        settings = self.worker.settings
        self._source, self._tick, self._report = source, tick, report
        self._load_seconds = tuning.load_seconds or settings.load_seconds
        self._step_seconds = tuning.step_seconds or settings.step_seconds
        self._plane = tuning.data_plane
        self.gone = False  # whether the rest of the run goes on without it
        self.has_company = False  # whether the run has other workers
        self._epoch: int | None = None  # of the worker that this run began with
        # other packs' code may compile at its first evaluation there: nobody waits for that
        self.patient = bool(source.by)
        self._awaited: Awaited | None = None
        self.likeness = Likeness(holdings, source)

    def obstacle_to(self, boundary_bytes: int) -> str | None:
        """Why one exchange with the worker cannot hold features, None when it can."""
        if self.worker.device.remote:
            return "features of the network are not sent to another computer"
        if boundary_bytes > self.worker.settings.slot_bytes:
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
        while not self.gone:
            if self._move_on(may_verify=True):
                if not self.likeness.known_to_differ:
                    return True
                self.give_up(ReplicaMismatch(self.likeness.known_to_differ))
                return False
            if time.monotonic() >= deadline:
                return False
            self._tick()
            time.sleep(POLL_SECONDS)
        return False

    def _move_on(self, may_verify: bool) -> bool:
        try:
            with self.worker.lock:
                return self._advance(may_verify)
        except (WorkerError, NotPartitionable) as error:
            self.give_up(error)
            return False

    def _advance(self, may_verify: bool) -> bool:
        worker, holdings, source = self.worker, self.holdings, self._source
        if source.key in holdings.refused:
            raise ReplicaMismatch(holdings.refused[source.key])
        worker.prefer(self._plane)
        if self._epoch is None:
            worker.start()
            self._epoch = worker.epoch
        if not worker.alive or worker.epoch != self._epoch:
            raise WorkerStopped
        holdings.sync()
        if not worker.ready():
            return False
        self._note_plane()
        if holdings.loading is not None and not self._taken_in(holdings.loading, may_verify):
            return False
        if self._awaited is not None and not self._compared(self._awaited):
            return False
        if not worker.idle():
            return False
        self._forget_gone_models()
        if holdings.key == source.key:
            return True
        self._check_room()
        since = time.monotonic()
        holdings.key, holdings.model_name = None, source.name
        replica = carry(source.payload(source.base_key not in holdings.bases), "the model")
        holdings.loading = Loading(worker.load(replica, self._tick), source.key, since)
        return False

    def _note_plane(self) -> None:
        missed = self.worker.data_plane_missed
        if self._report.data_plane is None and missed is not None:
            self._report.note(missed)
        self._report.data_plane = self.worker.data_plane
        self._report.data_plane_reason = self.worker.data_plane_reason

    def _taken_in(self, loading: Loading, may_verify: bool) -> bool:
        """Whether the model that was asked for, by this run or an earlier one, is there."""
        if loading.key == self._source.key and not may_verify:
            return False
        holdings = self.holdings
        left = loading.since + self._load_seconds - time.monotonic()
        try:
            portrait = self.worker.loaded(loading.number, left)
        except WorkerError:
            holdings.loading = None
            raise
        if portrait is None:
            return False
        holdings.loading = None
        holdings.bases.add(loading.key.partition(":")[0])
        holdings.load_seconds = time.monotonic() - loading.since
        holdings.loads += 1
        if loading.key == self._source.key:
            self._verify(portrait)
            holdings.key = loading.key
        return True

    def _check_room(self) -> None:
        """Asked before each load, once a run: memory that is taken now may be free for the next."""
        worker = self.worker
        status = worker.status(worker.settings.request_seconds, self._tick)
        available, needed = status.get("available_bytes"), self._source.needed_bytes()
        if isinstance(available, int) and needed > available:
            raise NoRoom(
                f"{self._source.name} needs {needed / 1e9:.1f} GB on {worker.device.label}, "
                f"{available / 1e9:.1f} GB are free there; close what else uses it"
            )

    def _verify(self, portrait: Any) -> None:
        try:
            self._source.verify(portrait)
        except ReplicaMismatch as error:
            self.holdings.refused[self._source.key] = str(error)
            self.holdings.bases.discard(self._source.base_key)
            raise

    def _forget_gone_models(self) -> None:
        holdings = self.holdings
        while holdings.to_forget:
            key = holdings.to_forget.pop()
            if key in holdings.bases:
                holdings.bases.discard(key)
                holdings.contexts.clear()  # as the worker does
                self.worker.forget(key, self._tick)

    def ask(self, context: Any, inputs: tuple[Tensor, Tensor], part: Part) -> int | None:
        """Ask the worker for a part of the evaluation of `context` (prompts, options) at `inputs`.

        The request's number, None when it cannot be asked. Raises NotPartitionable for a context
        that is not plain data.
        """
        carried = carry(context, "conditioning")
        before = self.worker.bytes_sent
        try:
            with self.worker.lock:
                held = self.holdings.context_number(carried, self._tick)
                number = self.worker.evaluate(held, *inputs, part)
        except WorkerError as error:
            self.give_up(error)
            return None
        self._report.bytes_sent += self.worker.bytes_sent - before
        return number

    def collect(self, number: int, part: Part, like: Tensor, own_seconds: float) -> Answer | None:
        """What came of a request: outputs like `like`, on its device. None when it failed.

        like: of the whole batch. own_seconds: what the parent's own part took.
        """
        since, before = time.monotonic(), self.worker.bytes_received
        seconds = self._step_seconds + self.worker.settings.step_factor * own_seconds
        try:
            with self.worker.lock:
                answer = self.worker.collect(number, part, seconds, self._tick, like.device)
            expected = like if part.pictures is None else part.pictures.of(like)
            check_outputs(answer.outputs, expected, part.gives)
            if (part.upto is not None or part.keep is not None) and not answer.boundaries:
                raise ProtocolError("the worker left out the features that it was asked for")
        except WorkerError as error:
            self.give_up(error)
            return None
        self._report.bytes_received += self.worker.bytes_received - before
        return replace(answer, waited=time.monotonic() - since)

    def link(
        self, number: int, tokens: Tokens, own_seconds: float, device: torch.device
    ) -> TokenLink:
        """Exchanges inside a request; own_seconds: what one device takes for all of it."""
        seconds = self._step_seconds + self.worker.settings.step_factor * own_seconds
        return self.worker.link(number, tokens, seconds, self._tick, device)

    def compare(self, ours: Tensor, theirs: Tensor, shape: Sequence[int]) -> bool:
        """Whether two evaluations of the same, here and there, are equal up to rounding.

        A difference ends the sharing of this model; numbers that are none say nothing of it. Waits
        for the device.
        """
        if not bool(torch.isfinite(ours).all()):
            return False
        reason = self.likeness.difference(ours, theirs, shape)
        if reason is not None:
            self.give_up(ReplicaMismatch(reason))
        return reason is None

    def compare_later(self, awaited: Awaited) -> None:
        """Like `compare`, once the worker has answered; until then it takes no part."""
        self._awaited = awaited
        self.worker.expect_answer(self._load_seconds)

    def _compared(self, awaited: Awaited) -> bool:
        """Whether the answer has come, and is equal."""
        if not self.worker.answered(awaited.number):
            if time.monotonic() - awaited.since > self._load_seconds:
                raise WorkerTimeout(
                    f"the first evaluation took longer than {self._load_seconds:.0f} s"
                )
            return False
        self._awaited, ours = None, awaited.ours
        answer = self.collect(awaited.number, awaited.part, ours, 0.0)
        return answer is not None and self.compare(ours, answer.outputs[0], ours.shape)

    def check_unchanged(self) -> None:
        """At a run's last evaluation: say it if somebody has changed the network on the way."""
        changed = None if self.gone else self.likeness.changed_meanwhile()
        if changed is not None:
            self._report.note(changed)

    def cancel(self) -> None:
        """The sampler was stopped: nothing that is under way is wanted."""
        with self.worker.lock:
            self.worker.cancel()

    def give_up(self, error: Exception) -> None:
        """The rest of this run goes on without this worker."""
        self.gone = True
        alone = "evaluated in this process alone"
        how = f"without {self.worker.device.label}" if self.has_company else alone
        reason = f"{how}: {error}"
        self._report.reasons.append(reason)
        log.warning("%s", reason)
        settle(self.worker, error)

"""Carrying out the plan of one evaluation: ask the others, evaluate here, collect."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from hybrid_core.course.steps import Step
from hybrid_core.driver import division
from hybrid_core.driver.call import Call
from hybrid_core.driver.division import Plan, Share
from hybrid_core.driver.pipeline import Early, Pipeline
from hybrid_core.errors import HybridError, NotPartitionable
from hybrid_core.machine.settled import settled
from hybrid_core.stages.staging import Boundaries, Each
from hybrid_core.telling.report import Report
from hybrid_core.workers.contract import Part
from hybrid_core.workers.lease import Lease

log = logging.getLogger("hybrid_ksampler")
WORKER = 0
INSEPARABLE = "this network's pictures of one batch depend on each other"
Tensor = torch.Tensor
Outputs = dict[int, Tensor]  # by branch
Asked = dict[Share, int | None]  # the others' shares and their requests; None: it stays here


@dataclass(frozen=True)
class Taking:
    """Who takes part in one evaluation."""

    lease: Lease | None  # the worker's, when it is ready
    pipeline: Pipeline | None  # while there is a Parallelism stage
    apart: bool  # whether this process evaluates its branches one by one when it evaluates them all


class FrameworksOwn(Exception):
    """An error of the framework's evaluation, which it would have raised without this pack."""

    def __init__(self, cause: Exception):
        super().__init__(str(cause))
        self.cause = cause


class Inseparable(HybridError):
    """A network that does not evaluate some pictures of a batch without the others."""


def joined(pieces: Iterable[tuple[Part, Outputs]]) -> Outputs:
    """Outputs of parts that make up an evaluation, pictures in their order."""
    out: dict[int, list[Tensor]] = {}
    for _, outputs in sorted(pieces, key=lambda piece: first_picture(piece[0])):
        for branch, output in outputs.items():
            out.setdefault(branch, []).append(output)
    return {branch: torch.cat(some) if some[1:] else some[0] for branch, some in out.items()}


def first_picture(part: Part) -> int:
    return 0 if part.pictures is None else part.pictures.first


def apart(lease: Lease, report: Report) -> bool:
    """Whether this process evaluates as the worker would: then a run's numbers are the same, bit
    for bit, whether the worker took part from the first step, from a later one, or died on the way.
    A run that has given up before it shared anything is the framework's own.
    """
    return not lease.gone or report.shared > 0


def keep_together(lease: Lease, call: Call, report: Report) -> None:
    """Batches like this one are not divided any more."""
    lease.likeness.keep_together(call.x.shape)
    report.note(INSEPARABLE)


class Execution:
    """One evaluation; `stay_local` is told why the worker cannot take part in any."""

    def __init__(
        self,
        call: Call,
        step: Step,
        taking: Taking,
        report: Report,
        cancelled: type[BaseException],
        stay_local: Callable[[str], None],
    ):
        self._call, self._step, self._taking, self._report = call, step, taking, report
        self._cancelled, self._stay_local = cancelled, stay_local

    def carried_out(self, plan: Plan) -> tuple[Outputs, Boundaries | None]:
        """Outputs of every share, and features that were kept.

        Raises FrameworksOwn, and Inseparable where pictures cannot be evaluated apart.
        """
        try:
            asked = self._ask(plan)
            own = self._evaluate_own(plan[0].part)
            return self._collect(plan[0].part, asked, own)
        except BaseException:
            if self._taking.lease is not None:
                self._taking.lease.cancel()  # of a step only: a replica that loads is of use later
            raise

    def _ask(self, plan: Plan) -> Asked:
        """Post every share that is another device's: their requests, None where it stays here.

        When nothing can be sent before anything was shared, the plan becomes the framework's own.
        """
        call, lease, pipeline = self._call, self._taking.lease, self._taking.pipeline
        asked: Asked = {}
        for share in plan[1:]:
            number, ahead = None, self._step.ahead if share.early else None
            if lease is not None and share.device == WORKER:
                branches, pictures = share.part.branches, share.part.pictures
                if ahead is None:
                    inputs = call.inputs(branches, pictures)
                else:
                    inputs = call.inputs_at(ahead.x, ahead.sigma)
                try:
                    number = lease.ask(call.context(branches), inputs, share.part)
                except NotPartitionable as error:
                    self._stay_local(str(error))
                    lease.gone = True
                if ahead is None and number is None and not apart(lease, self._report):
                    plan[:] = division.alone(call.branches)
                    return {}
            if ahead is None:
                asked[share] = number
            elif number is not None and pipeline is not None:
                pipeline.asked(Early(number, share.part, ahead, self._step.record))
        return asked

    def _evaluate_own(self, part: Part) -> Outputs:
        call, pipeline, each = self._call, self._taking.pipeline, None
        together = 1 < len(part.branches) == len(call.branches) and part.pictures is None
        if pipeline is not None and not together:
            each = pipeline.each(self._step)
        since = time.monotonic()
        out = self._evaluated(part, each)
        seconds = settled(call.x.device) - since
        if not together:
            self._step.record.own_seconds = seconds
        return out

    def _evaluated(self, part: Part, each: Each | None = None) -> Outputs:
        """Here; an error is the framework's where nothing of this pack takes part."""
        try:
            return self._call.evaluate(part.branches, each, part.pictures)
        except self._cancelled:
            raise
        except Exception as error:
            if part.pictures is not None:
                log.debug("pictures could not be evaluated apart", exc_info=error)
                raise Inseparable from error
            if each is not None:
                raise
            raise FrameworksOwn(error) from error

    def _collect(
        self, own_part: Part, asked: Asked, own: Outputs
    ) -> tuple[Outputs, Boundaries | None]:
        """All shares' outputs, made here where a device failed, and the kind of the step."""
        call, record, lease = self._call, self._step.record, self._taking.lease
        kept, own_seconds, shown = None, record.own_seconds or 0.0, next(iter(own.values()))
        whole = shown[:1].expand(len(call.x), *shown.shape[1:])  # (B, ...)
        pieces, helped, theirs = [(own_part, own)], False, None
        for share, number in asked.items():
            part, answer = share.part, None
            if lease is not None and number is not None:
                answer = lease.collect(number, part, whole, own_seconds)
            if answer is not None:
                record.worker_seconds, record.waited_seconds = answer.seconds, answer.waited
            if share.compared:
                theirs = None if answer is None else answer.outputs[0]
            elif answer is None:
                pieces.append((part, self._evaluated(part)))
            else:
                helped, kept = True, answer.boundaries
                pieces.append((part, dict(zip(part.branches, answer.outputs, strict=True))))
                if self._taking.pipeline is not None:
                    self._taking.pipeline.worker_speed = own_seconds / max(answer.seconds, 1e-6)
        out, pictures = joined(pieces), own_part.pictures
        if theirs is not None and lease is not None:
            helped = record.compared = self._compare(lease, out, theirs, by_picture=bool(pictures))
        if helped and pictures is not None:
            record.kind, record.share = "shared", pictures.count / pictures.batch
        elif len(call.branches) == 1:
            record.kind = "single"
        else:
            record.kind = "exact" if helped else "local"
        return out, kept

    def _compare(self, lease: Lease, out: Outputs, theirs: Tensor, by_picture: bool) -> bool:
        """Whether the first branch of `out` is `theirs`, the worker's of the whole batch.

        When a division by picture is what makes the difference, `out` becomes the framework's own.
        """
        call, first = self._call, next(iter(out))
        if not by_picture:
            return lease.compare(out[first], theirs, call.x.shape)
        if lease.likeness.same_in_parts(out[first], theirs, call.x.shape):
            return True
        out |= self._evaluated(Part(tuple(call.branches)))
        if lease.compare(out[first], theirs, call.x.shape):
            keep_together(lease, call, self._report)
        return False

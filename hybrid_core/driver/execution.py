"""Carrying out the plan of one evaluation: ask the others, evaluate here, collect."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch

from hybrid_core.course.steps import Step
from hybrid_core.driver import division
from hybrid_core.driver.call import Call
from hybrid_core.driver.crew import Crew
from hybrid_core.driver.division import HERE, Plan, Share
from hybrid_core.driver.pipeline import Early, Pipeline
from hybrid_core.errors import HybridError, NotPartitionable
from hybrid_core.machine.settled import settled
from hybrid_core.stages.staging import Boundaries, Each
from hybrid_core.telling.report import Report
from hybrid_core.workers.contract import Answer, Part
from hybrid_core.workers.lease import Awaited, Lease

log = logging.getLogger("hybrid_ksampler")
Tensor = torch.Tensor
Outputs = dict[int, Tensor]  # by branch
Asked = dict[Share, int | None]  # the others' shares and their requests; None: it stays here


@dataclass(frozen=True)
class Taking:
    """Who takes part in one evaluation."""

    leases: Mapping[int, Lease]  # by device, of the workers that are ready
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


class Execution:
    """One evaluation; `stay_local` is told why the worker cannot take part in any."""

    def __init__(
        self,
        call: Call,
        step: Step,
        taking: Taking,
        crew: Crew,
        report: Report,
        cancelled: type[BaseException],
        stay_local: Callable[[str], None],
    ):
        self._call, self._step, self._taking, self._report = call, step, taking, report
        self._crew = crew
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
            for lease in self._taking.leases.values():
                lease.cancel()  # of a step only: a replica that loads is of use later
            raise

    def _ask(self, plan: Plan) -> Asked:
        """Post every share that is another device's: their requests, None where it stays here.

        When nothing can be sent before anything was shared, the plan becomes the framework's own.
        """
        call, pipeline = self._call, self._taking.pipeline
        asked: Asked = {}
        for share in plan[1:]:
            lease = self._taking.leases.get(share.device)
            number, ahead = None, self._step.ahead if share.early else None
            if lease is not None and not lease.gone:
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
                if ahead is None and number is None and not self._crew.apart(self._report):
                    plan[:] = division.alone(call.branches)
                    return {}
            if ahead is None:
                asked[share] = number
            elif number is not None and pipeline is not None and lease is not None:
                pipeline.asked(Early(number, share.part, ahead, self._step.record, lease))
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

    def _may_compile(self, lease: Lease) -> bool:
        return lease.patient and not lease.likeness.evaluated(self._call.x.shape)

    def _collect(
        self, own_part: Part, asked: Asked, own: Outputs
    ) -> tuple[Outputs, Boundaries | None]:
        """All shares' outputs, made here where a device failed, and the kind of the step."""
        record, shown = self._step.record, next(iter(own.values()))
        whole = shown[:1].expand(len(self._call.x), *shown.shape[1:])  # (B, ...)
        done, kept, helped = [(HERE, own_part, own)], None, False
        theirs: list[tuple[Lease, int, Tensor]] = []
        by_picture = own_part.pictures is not None
        for share, number in asked.items():
            part, lease = share.part, self._taking.leases.get(share.device)
            if share.compared and lease is not None and self._may_compile(lease) and not by_picture:
                if number is not None:
                    ours = own[part.branches[0]].clone()
                    lease.compare_later(Awaited(number, part, ours, time.monotonic()))
                continue
            answer = self._answer(share, number, whole)
            if share.compared:
                if answer is not None and lease is not None:
                    theirs.append((lease, part.branches[0], answer.outputs[0]))
            elif answer is None:
                done.append((HERE, part, self._evaluated(part)))
            else:
                helped, kept = True, kept or answer.boundaries
                outputs = dict(zip(part.branches, answer.outputs, strict=True))
                done.append((share.device, part, outputs))
                self._measure(share, own_part, answer)
        out = joined((part, outputs) for _, part, outputs in done)
        for device, part, _ in done:
            record.loads[device] = record.loads.get(device, 0.0) + part.forwards
        for lease, branch, output in theirs:
            alike = self._compare(lease, out, branch, output, by_picture)
            record.compared = alike or record.compared
        helped, record.share = helped or record.compared, own_part.forwards / len(out)
        if helped and any(part.pictures is not None for _, part, _ in done):
            record.kind = "shared"
        elif len(out) == 1:
            record.kind = "single"
        else:
            record.kind = "exact" if helped else "local"
        return out, kept

    def _answer(self, share: Share, number: int | None, whole: Tensor) -> Answer | None:
        lease, record = self._taking.leases.get(share.device), self._step.record
        if lease is None or number is None:
            return None
        answer = lease.collect(number, share.part, whole, record.own_seconds or 0.0)
        if answer is not None:
            record.worker_seconds = max(answer.seconds, record.worker_seconds or 0.0)
            record.waited_seconds = answer.waited + (record.waited_seconds or 0.0)
        return answer

    def _measure(self, share: Share, own_part: Part, answer: Answer) -> None:
        """How fast that device is beside this process."""
        own_seconds, pipeline = self._step.record.own_seconds or 0.0, self._taking.pipeline
        own, theirs = own_seconds / own_part.forwards, answer.seconds / share.part.forwards
        self._taking.leases[share.device].holdings.saw(own, theirs)
        if pipeline is not None:
            pipeline.worker_speed = own_seconds / max(answer.seconds, 1e-6)

    def _compare(
        self, lease: Lease, out: Outputs, branch: int, theirs: Tensor, by_picture: bool
    ) -> bool:
        """Whether this branch of `out` is `theirs`, a worker's of the whole batch.

        When a division by picture is what makes the difference, `out` becomes the framework's own.
        """
        call = self._call
        if not by_picture:
            return lease.compare(out[branch], theirs, call.x.shape)
        if lease.likeness.same_in_parts(out[branch], theirs, call.x.shape):
            return True
        out |= self._evaluated(Part(tuple(call.branches)))
        if lease.compare(out[branch], theirs, call.x.shape):
            self._crew.keep_together(call.x.shape, self._report)
        return False


def given(
    call: Call,
    out: Outputs,
    cond: Tensor,
    uncond: Tensor | None = None,
    as_it_was: tuple[Tensor, Tensor] | None = None,
) -> Outputs:
    """`out` with these denoised latents; as_it_was: one of them, and the output it is of."""
    for place, one in zip(call.branches, (cond, uncond), strict=False):
        if as_it_was is not None and one is as_it_was[0]:
            out[place] = as_it_was[1]
        elif one is not None:
            out[place] = call.output(one)
    return out

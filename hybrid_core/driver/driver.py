"""The loop of a run, for every framework: decide, divide, ask, evaluate, collect, learn."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from hybrid_core.course.course import Course
from hybrid_core.course.steps import PipelinedStep, Step
from hybrid_core.driver import division
from hybrid_core.driver.call import Call
from hybrid_core.driver.division import HERE, Plan, Share
from hybrid_core.driver.pipeline import MORE_BRANCHES, Early, Pipeline
from hybrid_core.errors import NotPartitionable, ProtocolError
from hybrid_core.machine.settled import settled
from hybrid_core.stages.staging import Boundaries, Each
from hybrid_core.telling.report import Report, StepRecord, Watcher
from hybrid_core.workers.contract import Part
from hybrid_core.workers.lease import Lease

log = logging.getLogger("hybrid_ksampler")
WORKER = 0
Outputs = dict[int, torch.Tensor]  # by branch
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


def evaluated(call: Call, branches: Sequence[int], each: Each | None = None) -> Outputs:
    """Here. Raises FrameworksOwn where nothing of this pack takes part."""
    try:
        return call.evaluate(branches, each)
    except Exception as error:
        if each is not None:
            raise
        raise FrameworksOwn(error) from error


class Driver:
    """Shares the evaluations of one run, or says once why it does not."""

    def __init__(
        self,
        course: Course,
        pipeline: Pipeline | None,
        rent: Callable[[], Lease],
        report: Report,
        watcher: Watcher,
        announce: Callable[[str], None],
        one_branch: bool,
        cancelled: type[BaseException],
        wait_seconds: float = 0.0,
    ):
        """pipeline: of a mode with a Parallelism stage. one_branch: the guider has cfg 1.

        rent: a worker for this run, asked once; raises NotPartitionable. announce: called at most
        once, with a sentence. cancelled: what ends a run on purpose. wait_seconds: how long the
        first evaluation may wait for the worker.
        """
        self.report = report
        self._course, self._pipeline, self._rent, self._watcher = course, pipeline, rent, watcher
        self._announce, self._announced = announce, False
        self._one_branch, self._wait_seconds = one_branch, wait_seconds
        self._cancelled = cancelled
        self._lease: Lease | None = None
        self._rented = self._local = self._broken = False

    def prepare(self, obstacle: str | None = None) -> None:
        """Start what takes time: the worker and its replica. obstacle: why none can take part."""
        self._watcher.began(self.report)
        if obstacle is not None:
            self._rented = True
            self._stay_local(obstacle)
        elif not self._one_branch or self._pipeline is not None:
            lease = self._own_lease()
            if lease is not None:
                lease.prepare()

    def evaluate(self, call: Call) -> Outputs:
        """An output for each branch of the call.

        Whatever goes wrong with sharing costs no image: the evaluation is made again by the
        framework itself, and so is the rest of the run. The framework's own errors are raised.
        """
        if not self._broken:
            try:
                return self._shared(call)
            except self._cancelled:
                raise
            except FrameworksOwn as error:
                raise error.cause from error.cause.__cause__
            except Exception as error:  # noqa: BLE001  see above
                self.give_up(error)
        began = time.monotonic()
        out = call.evaluate(call.branches)
        kind = "single" if len(out) == 1 else "local"
        self.report.steps.append(StepRecord(kind=kind, seconds=time.monotonic() - began))
        return out

    def give_up(self, error: Exception) -> None:
        """After an error of this pack: the worker cannot be trusted, the run is local."""
        log.debug("sharing failed", exc_info=error)
        self._broken = True
        reason = f"a fault of this pack, {type(error).__name__}: {error}"
        if self._lease is not None:
            self._lease.give_up(ProtocolError(reason))
        self._stay_local(reason)

    def _shared(self, call: Call) -> Outputs:
        began = time.monotonic()
        step, taking = self._decide(call)
        step, plan = self._divide(call, step, taking)
        try:
            asked = self._ask(call, step, plan, taking)
            out = self._evaluate_own(call, step, plan[0].part, taking)
            kept = self._collect(call, step.record, asked, taking, out)
        except BaseException:
            if taking.lease is not None:
                taking.lease.cancel()  # of a step only: a replica that loads serves the next run
            raise
        self._learn(call, step, taking, out, kept)
        step.record.seconds = time.monotonic() - began
        self.report.steps.append(step.record)
        self._watcher.stepped(self.report)
        return out

    def _decide(self, call: Call) -> tuple[Step, Taking]:
        """What this evaluation is to be, and who takes part."""
        count, pipeline = len(call.branches), self._pipeline
        on_course = count == (1 if self._one_branch else 2)
        if count > 2 and pipeline is not None:
            pipeline.obstacle = pipeline.obstacle or MORE_BRANCHES
        if not on_course or (pipeline is not None and pipeline.obstacle is not None):
            pipeline = None
        lease = self._checked_lease(call) if count > 1 or pipeline is not None else None
        answer = None
        if lease is None:
            pipeline = None
        elif self._pipeline is not None:
            answer = self._pipeline.take_in(lease, call.x)
        if pipeline is not None:
            pipeline.follow(call)
        step = self._course.begin(call.x, call.sigma, call.prompts) if on_course else Step.aside()
        if answer is not None:
            step.record.worker_seconds, step.record.waited_seconds = answer.seconds, answer.waited
        if lease is None:
            return step, Taking(None, None, apart=False)
        wait, self._wait_seconds = self._wait_seconds, 0.0
        ready = lease.ready(wait)
        return step, Taking(lease if ready else None, pipeline, self._apart(lease))

    def _apart(self, lease: Lease) -> bool:
        """As the worker would evaluate: then a run's numbers are the same, bit for bit, whether the
        worker took part from the first step, from a later one, or died on the way. A run that has
        given up before it shared anything is the framework's own.
        """
        return not lease.gone or self.report.shared > 0

    def _own_lease(self) -> Lease | None:
        if not self._rented:
            self._rented = True
            try:
                self._lease = self._rent()
            except NotPartitionable as error:
                self._stay_local(str(error))
        return self._lease

    def _checked_lease(self, call: Call) -> Lease | None:
        """None where this evaluation must be the framework's own."""
        lease = self._own_lease()
        try:
            if lease is not None:
                call.check()
        except NotPartitionable as error:
            self._stay_local(str(error))
            return None
        return lease

    def _divide(self, call: Call, step: Step, taking: Taking) -> tuple[Step, Plan]:
        pipeline, lease = taking.pipeline, taking.lease
        device = HERE if lease is None else WORKER
        sure = lease is not None and lease.compared(call.x.shape)
        if isinstance(step, PipelinedStep):
            plan = None
            if pipeline is not None and sure:
                plan = pipeline.plan(call, step, device)
            if plan is not None:
                return step, plan
            step = step.in_full()
        if not taking.apart:
            return step, division.alone(call.branches)
        turned = pipeline is not None and pipeline.turned(call)
        if lease is not None and not sure:
            return step, division.to_compare(call.branches, device, turned)
        keep = None if pipeline is None else pipeline.keeps(step)
        return step, division.by_branch(call.branches, device, turned, keep)

    def _ask(self, call: Call, step: Step, plan: Plan, taking: Taking) -> Asked:
        """Post every share that is another device's: their requests, None where it stays here.

        When nothing can be sent before anything was shared, the plan becomes the framework's own.
        """
        asked: Asked = {}
        for share in plan[1:]:
            number, ahead = None, step.ahead if share.early else None
            if taking.lease is not None and share.device == WORKER:
                branches = share.part.branches
                inputs = call.inputs_at(ahead.x, ahead.sigma) if ahead else call.inputs(branches)
                try:
                    number = taking.lease.ask(call.context(branches), inputs, share.part)
                except NotPartitionable as error:
                    self._stay_local(str(error))
                    taking.lease.gone = True
                if ahead is None and number is None and not self._apart(taking.lease):
                    plan[:] = division.alone(call.branches)
                    return {}
            if ahead is None:
                asked[share] = number
            elif number is not None and taking.pipeline is not None:
                taking.pipeline.asked(Early(number, share.part, ahead, step.record))
        return asked

    @staticmethod
    def _evaluate_own(call: Call, step: Step, part: Part, taking: Taking) -> Outputs:
        together = 1 < len(part.branches) == len(call.branches)
        each = None
        if taking.pipeline is not None and not together:
            each = taking.pipeline.each(step)
        since = time.monotonic()
        out = evaluated(call, part.branches, each)
        seconds = settled(call.x.device) - since
        if together:
            step.record.kind = "local"
        else:
            step.record.own_seconds = seconds
            if len(call.branches) == 1:
                step.record.kind = "single"
        return out

    @staticmethod
    def _collect(
        call: Call,
        record: StepRecord,
        asked: Asked,
        taking: Taking,
        out: Outputs,
    ) -> Boundaries | None:
        """The other shares, evaluated here where their device failed; features that were kept."""
        kept, own_seconds, own = None, record.own_seconds or 0.0, next(iter(out.values()))
        for share, number in asked.items():
            part, answer = share.part, None
            if taking.lease is not None and number is not None:
                answer = taking.lease.collect(number, part, own, own_seconds)
            if answer is not None:
                record.worker_seconds, record.waited_seconds = answer.seconds, answer.waited
            if share.compared:
                if answer is not None and taking.lease is not None:
                    theirs = answer.outputs[0]
                    record.compared = taking.lease.compare(own, theirs, call.x.shape)
            elif answer is None:
                out |= evaluated(call, part.branches)
                record.kind = "exact" if record.compared else "local"
            else:
                out |= dict(zip(part.branches, answer.outputs, strict=True))
                kept = answer.boundaries
                if taking.pipeline is not None:
                    taking.pipeline.worker_speed = own_seconds / max(answer.seconds, 1e-6)
        return kept

    def _learn(
        self, call: Call, step: Step, taking: Taking, out: Outputs, kept: Boundaries | None
    ) -> None:
        """Give the step what came out; it may change that."""
        if isinstance(step, PipelinedStep):
            (result,) = out.values()
            seen = call.denoised(result)
            for place, one in zip(call.branches, step.both(seen), strict=False):
                out[place] = result if one is seen else call.output(one)
            return
        boundaries = None
        if taking.pipeline is not None:
            boundaries = taking.pipeline.saw(self._lease, kept)
        denoised = [call.denoised(out[place]) for place in call.branches]
        shift = step.finish(denoised[0], denoised[1] if len(denoised) > 1 else None, boundaries)
        if shift is not None:
            for place, one in zip(call.branches, denoised, strict=True):
                out[place] = call.output(one + shift)

    def finish(self, status: str) -> None:
        """After the run, however it ended: done, interrupted or failed."""
        report, pipeline = self.report, self._pipeline
        report.status = status
        self._course.close()
        if pipeline is not None:
            pipeline.finish(self._lease)
            report.cut = pipeline.cut_name
            obstacle = pipeline.obstacle or self._course.obstacle
            if obstacle and not report.pipelined and not self._local:
                report.note(f"both branches in full at every step: {obstacle}")
        self._watcher.ended(report)
        if report.reasons:
            self._say(report.line())

    def _stay_local(self, reason: str) -> None:
        self._local = True
        self.report.note(reason)
        self._say(f"runs as KSampler, on one device: {reason}")

    def _say(self, text: str) -> None:
        if not self._announced:
            self._announced = True
            self._announce(text)

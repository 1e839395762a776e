"""The loop of a run, for every framework: decide, divide, ask, evaluate, collect, learn."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import torch

from hybrid_core.course.course import Course
from hybrid_core.course.steps import ForecastStep, PipelinedStep, Step
from hybrid_core.driver import dividing, division
from hybrid_core.driver.call import Call, check_torch
from hybrid_core.driver.crew import Crew
from hybrid_core.driver.division import Plan
from hybrid_core.driver.execution import (
    Execution,
    FrameworksOwn,
    Inseparable,
    Outputs,
    Taking,
    given,
)
from hybrid_core.driver.pipeline import MORE_BRANCHES, Pipeline
from hybrid_core.driver.tokens import TokenExecution, TokenSharing
from hybrid_core.errors import NotPartitionable, NotYet, ProtocolError
from hybrid_core.stages.staging import Boundaries
from hybrid_core.telling.report import Report, StepRecord, Watcher
from hybrid_core.workers.lease import Lease

log = logging.getLogger("hybrid_ksampler")
Tensor = torch.Tensor
NO_MEMORY = (MemoryError, torch.cuda.OutOfMemoryError)
ONE_BY_ONE = "this guider evaluates its prompts one by one and does not say how it joins them"


class Driver:
    """Shares the evaluations of one run, or says once why it does not."""

    def __init__(
        self,
        course: Course,
        pipeline: Pipeline | None,
        rent: Callable[[], Sequence[Lease]],
        report: Report,
        watcher: Watcher,
        announce: Callable[[str], None],
        one_branch: bool,
        cancelled: type[BaseException],
        wait_seconds: float = 0.0,
        tokens: TokenSharing | None = None,
    ):
        """pipeline: of a mode with a Parallelism stage. one_branch: the guider has cfg 1.

        rent: workers for this run, those first that are of most use; asked once, raises
        NotPartitionable when there is none. announce: called at most once, with a sentence.
        cancelled: what ends a run on purpose. wait_seconds: how long the first evaluation may wait
        for the first worker. tokens: where those of a branch may be divided.
        """
        self.report = report
        self._course, self._pipeline, self._rent, self._watcher = course, pipeline, rent, watcher
        self._announce, self._announced = announce, False
        self._one_branch, self._wait_seconds = one_branch, wait_seconds
        self._cancelled, self._tokens = cancelled, tokens
        self._crew = Crew()
        self._rented = self._broken = False
        self._by_itself = False  # the latest call on the course, of a guider that joins it itself

    def prepare(self, batch: int, obstacle: str | None = None) -> None:
        """Start what takes time: the worker and its replica.

        batch: how many pictures are sampled. obstacle: why no worker can take part.
        """
        branches, pipelined = 1 if self._one_branch else 2, self._pipeline is not None
        try:
            self._watcher.began(self.report)
            if obstacle is not None:
                self._rented = True
                self._stay_local(obstacle)
            elif dividing.worth_asking(branches, batch, pipelined or self._tokens is not None):
                crew, by_tokens = self._hired(), self._tokens is not None
                workers = crew.near
                crew.prepare(dividing.of_use(branches, batch, pipelined, by_tokens, workers))
        except self._cancelled:
            raise
        except Exception as error:  # noqa: BLE001  as in `evaluate`
            self.give_up(error)

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
        try:
            self._watcher.stepped(self.report)
        except Exception as error:  # noqa: BLE001  it may be what has failed
            log.debug("the run could not be shown", exc_info=error)
        return out

    def give_up(self, error: Exception) -> None:
        """After an error of this pack: no worker can be trusted, the run is local."""
        log.debug("sharing failed", exc_info=error)
        self._broken = True
        reason = f"a fault of this pack, {type(error).__name__}: {error}"
        self._crew.give_up(ProtocolError(reason))
        self._stay_local(reason)

    def _shared(self, call: Call) -> Outputs:
        began = time.monotonic()
        step, taking = self._decide(call)
        if isinstance(step, ForecastStep):
            out = given(call, {}, *step.both())
        else:
            step, out = self._made(call, step, taking)
        if step.record.step == self.report.total - 1:
            self._crew.check_unchanged()
        step.record.seconds = time.monotonic() - began
        self.report.steps.append(step.record)
        self._watcher.stepped(self.report)
        return out

    def guided(self, denoised: Tensor) -> None:
        """What the framework made of the latest evaluation, with guidance functions and all."""
        try:
            self._course.guided(denoised)
        except Exception as error:  # noqa: BLE001  as in `evaluate`
            self.give_up(error)

    def leave(self, reason: str) -> None:
        """Something that this run does not evaluate has a part in its images."""
        self.report.note(reason)
        self._course.stop(reason)

    def _made(self, call: Call, step: Step, taking: Taking) -> tuple[Step, Outputs]:
        """The step as it was evaluated, and what came out."""
        step, plan = self._divide(call, step, taking)
        execution = self._execution(plan, call, step, taking)
        try:
            out, kept = execution.carried_out(plan)
            if self._tokens is not None and type(execution) is Execution:
                self._tokens.took(step.record)
        except Inseparable as error:
            if not isinstance(error.__cause__, NO_MEMORY):  # that tells nothing of the network
                self._crew.keep_together(call.x.shape, self.report)
            out, kept = execution.carried_out(division.alone(call.branches))
        self._learn(call, step, taking, out, kept)
        return step, out

    def _execution(self, plan: Plan, call: Call, step: Step, taking: Taking) -> Execution:
        rest = call, step, taking, self._crew, self.report, self._cancelled, self._stay_local
        part = plan[0].part
        if self._tokens is None or not (part.tokens or part.recorded):
            return Execution(*rest)
        return TokenExecution(self._tokens, *rest)

    def _tokens_of(self, call: Call) -> TokenSharing | None:
        return None if call.aside else self._tokens

    def _decide(self, call: Call) -> tuple[Step, Taking]:
        """What this evaluation is to be, and who takes part."""
        count, pipeline = len(call.branches), self._pipeline
        on_course = count == (1 if self._one_branch else 2)
        if on_course and call.aside and self._course.is_at(call.sigma):  # one more, as PAG's
            on_course = False
            if self._by_itself:
                self._course.stop(ONE_BY_ONE)
        elif on_course:
            self._by_itself = call.aside
        if count > 2 and pipeline is not None:
            pipeline.obstacle = pipeline.obstacle or MORE_BRANCHES
        if not on_course or (pipeline is not None and pipeline.obstacle is not None):
            pipeline = None
        other_ways = pipeline is not None or self._tokens_of(call) is not None
        worth = dividing.worth_asking(count, call.pictures, other_ways)
        crew = self._checked_crew(call) if worth else Crew()
        answer = None
        if not crew.leases:
            pipeline = None
        elif self._pipeline is not None:
            answer = self._pipeline.take_in(call.x)
        if pipeline is not None:
            pipeline.follow(call)
        step = self._step(call, on_course)
        if answer is not None:
            step.record.worker_seconds, step.record.waited_seconds = answer.seconds, answer.waited
        wait, self._wait_seconds = self._wait_seconds, 0.0
        by_tokens, workers = self._tokens_of(call) is not None, crew.near
        most = dividing.of_use(count, call.pictures, pipeline is not None, by_tokens, workers)
        ready = crew.ready(most, wait)
        step.record.waiting = not ready and bool(crew.leases) and not crew.gone
        return step, Taking(ready, pipeline if ready else None, crew.apart(self.report))

    def _step(self, call: Call, on_course: bool) -> Step:
        if on_course:
            return self._course.begin(call.x, call.sigma, call.prompts, call.cfg)
        return Step.aside() if call.aside else self._course.passed(call.sigma)

    def _hired(self) -> Crew:
        if not self._rented:
            self._rented = True
            try:
                self._crew = Crew(self._rent())
            except NotPartitionable as error:
                self._stay_local(str(error))
        return self._crew

    def _checked_crew(self, call: Call) -> Crew:
        """Without anybody where this evaluation must be the framework's own."""
        crew = self._hired()
        try:
            if crew.leases:
                check_torch(call.x)
                call.check()
        except NotYet:
            return Crew()
        except NotPartitionable as error:
            self._stay_local(str(error))
            return Crew()
        return crew

    def _divide(self, call: Call, step: Step, taking: Taking) -> tuple[Step, Plan]:
        pipeline = taking.pipeline
        if isinstance(step, PipelinedStep):
            plan, first = None, next(iter(taking.leases.items()), None)
            if pipeline is not None and first is not None:
                device, lease = first
                if lease.likeness.seen(call.x.shape):
                    plan = pipeline.plan(call, step, device)
            if plan is not None:
                return step, plan
            step = step.in_full()
        keep = None if pipeline is None else pipeline.keeps(step)
        tokens = self._tokens_of(call)
        return step, dividing.in_full(call, taking, self._crew, self.report, keep, tokens)

    def _learn(
        self, call: Call, step: Step, taking: Taking, out: Outputs, kept: Boundaries | None
    ) -> None:
        """Give the step what came out; it may change that."""
        if isinstance(step, PipelinedStep):
            (result,) = out.values()
            seen = call.denoised(result)
            given(call, out, *step.both(seen), (seen, result))
            return
        boundaries = None
        if taking.pipeline is not None:
            lease = next(iter(taking.leases.values()), None)
            boundaries = taking.pipeline.saw(lease, kept)
        denoised = [call.denoised(out[place]) for place in call.branches]
        shift = step.finish(denoised[0], denoised[1] if len(denoised) > 1 else None, boundaries)
        if shift is not None:
            pair = [one + shift for one in denoised]
            given(call, out, pair[0], pair[1] if len(pair) > 1 else None)

    def finish(self, status: str) -> None:
        """After the run, however it ended: done, interrupted or failed."""
        report, pipeline = self.report, self._pipeline
        report.status = status
        self._course.close()
        obstacle = self._course.obstacle
        if pipeline is not None:
            pipeline.finish()
            report.cut = pipeline.cut_name
            obstacle = obstacle or pipeline.obstacle
        if obstacle and not report.pipelined and not report.forecast:
            report.unshortened = obstacle
        self._watcher.ended(report)
        if report.reasons:
            self._say(report.line())

    def _stay_local(self, reason: str) -> None:
        self.report.note(reason)
        how = "on one device" if self._course.shortens else "runs as KSampler, on one device"
        self._say(f"{how}: {reason}")

    def _say(self, text: str) -> None:
        if not self._announced:
            self._announced = True
            self._announce(text)

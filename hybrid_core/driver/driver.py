"""The loop of a run, for every framework: decide, divide, ask, evaluate, collect, learn."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from hybrid_core.course.course import Course
from hybrid_core.course.steps import ForecastStep, PipelinedStep, Step
from hybrid_core.driver import division
from hybrid_core.driver.call import Call
from hybrid_core.driver.division import HERE, Plan, Share
from hybrid_core.driver.pipeline import MORE_BRANCHES, Early, Pipeline
from hybrid_core.errors import HybridError, NotPartitionable, ProtocolError
from hybrid_core.machine.settled import settled
from hybrid_core.stages.staging import Boundaries, Each
from hybrid_core.telling.report import Report, StepRecord, Watcher
from hybrid_core.workers.contract import Part, Pictures
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
    out: dict[int, list[torch.Tensor]] = {}
    for _, outputs in sorted(pieces, key=lambda piece: first_picture(piece[0])):
        for branch, output in outputs.items():
            out.setdefault(branch, []).append(output)
    return {branch: torch.cat(some) if some[1:] else some[0] for branch, some in out.items()}


def first_picture(part: Part) -> int:
    return 0 if part.pictures is None else part.pictures.first


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

    def prepare(self, batch: int, obstacle: str | None = None) -> None:
        """Start what takes time: the worker and its replica.

        batch: how many pictures are sampled. obstacle: why no worker can take part.
        """
        self._watcher.began(self.report)
        if obstacle is not None:
            self._rented = True
            self._stay_local(obstacle)
        elif self._worth_asking(1 if self._one_branch else 2, batch, self._pipeline):
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
        if isinstance(step, ForecastStep):
            out = self._given(call, {}, *step.both())
        else:
            step, out = self._made(call, step, taking)
        step.record.seconds = time.monotonic() - began
        self.report.steps.append(step.record)
        self._watcher.stepped(self.report)
        return out

    def guided(self, denoised: Tensor) -> None:
        """What the framework made of the latest evaluation, with guidance functions and all."""
        self._course.guided(denoised)

    def _made(self, call: Call, step: Step, taking: Taking) -> tuple[Step, Outputs]:
        """The step as it was evaluated, and what came out."""
        step, plan = self._divide(call, step, taking)
        try:
            out, kept = self._carried_out(call, step, plan, taking)
        except Inseparable as error:
            self._keep_together(call, str(error))
            out, kept = self._carried_out(call, step, division.alone(call.branches), taking)
        self._learn(call, step, taking, out, kept)
        return step, out

    def _carried_out(
        self, call: Call, step: Step, plan: Plan, taking: Taking
    ) -> tuple[Outputs, Boundaries | None]:
        try:
            asked = self._ask(call, step, plan, taking)
            own = self._evaluate_own(call, step, plan[0].part, taking)
            return self._collect(call, step.record, plan, asked, taking, own)
        except BaseException:
            if taking.lease is not None:
                taking.lease.cancel()  # of a step only: a replica that loads serves the next run
            raise

    def _evaluated(self, call: Call, part: Part, each: Each | None = None) -> Outputs:
        """Here. Raises FrameworksOwn where nothing of this pack takes part, and Inseparable."""
        try:
            return call.evaluate(part.branches, each, part.pictures)
        except self._cancelled:
            raise
        except Exception as error:
            if part.pictures is not None:
                raise Inseparable(f"{type(error).__name__}: {error}") from error
            if each is not None:
                raise
            raise FrameworksOwn(error) from error

    def _keep_together(self, call: Call, seen: str) -> None:
        log.debug("a batch is not divided: %s", seen)
        if self._lease is not None:
            self._lease.keep_together(call.x.shape)
        self.report.note(INSEPARABLE)

    @staticmethod
    def _worth_asking(branches: int, batch: int, pipeline: Pipeline | None) -> bool:
        """Whether a worker has something to do in such an evaluation."""
        return branches > 1 or pipeline is not None or division.pictures_pay(branches, batch)

    def _decide(self, call: Call) -> tuple[Step, Taking]:
        """What this evaluation is to be, and who takes part."""
        count, pipeline = len(call.branches), self._pipeline
        on_course = count == (1 if self._one_branch else 2)
        if count > 2 and pipeline is not None:
            pipeline.obstacle = pipeline.obstacle or MORE_BRANCHES
        if not on_course or (pipeline is not None and pipeline.obstacle is not None):
            pipeline = None
        worth = self._worth_asking(count, call.pictures, pipeline)
        lease = self._checked_lease(call) if worth else None
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
        if self._by_picture(call, taking):
            seen = self._lease is not None and self._lease.compared(call.x.shape, by_picture=True)
            divided = division.by_picture if seen else division.to_compare_pictures
            return step, divided(call.branches, device, call.pictures)
        if len(call.branches) == 1 and pipeline is None:
            return step, division.alone(call.branches)
        turned = pipeline is not None and pipeline.turned(call)
        if lease is not None and not sure:
            return step, division.to_compare(call.branches, device, turned)
        keep = None if pipeline is None else pipeline.keeps(step)
        return step, division.by_branch(call.branches, device, turned, keep)

    def _by_picture(self, call: Call, taking: Taking) -> bool:
        """Whether the batch is divided: not before it was seen that this gives the same."""
        lease, shape = self._lease, call.x.shape
        pays = division.pictures_pay(len(call.branches), call.pictures)
        if lease is None or taking.pipeline is not None or not pays:
            return False
        if not lease.separable(shape):
            self.report.note(INSEPARABLE)
            return False
        return taking.lease is not None or lease.compared(shape, by_picture=True)

    def _ask(self, call: Call, step: Step, plan: Plan, taking: Taking) -> Asked:
        """Post every share that is another device's: their requests, None where it stays here.

        When nothing can be sent before anything was shared, the plan becomes the framework's own.
        """
        asked: Asked = {}
        for share in plan[1:]:
            number, ahead = None, step.ahead if share.early else None
            if taking.lease is not None and share.device == WORKER:
                branches, pictures = share.part.branches, share.part.pictures
                if ahead is None:
                    inputs = call.inputs(branches, pictures)
                else:
                    inputs = call.inputs_at(ahead.x, ahead.sigma)
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

    def _evaluate_own(self, call: Call, step: Step, part: Part, taking: Taking) -> Outputs:
        together = 1 < len(part.branches) == len(call.branches) and part.pictures is None
        each = None
        if taking.pipeline is not None and not together:
            each = taking.pipeline.each(step)
        since = time.monotonic()
        out = self._evaluated(call, part, each)
        seconds = settled(call.x.device) - since
        if not together:
            step.record.own_seconds = seconds
        return out

    def _collect(
        self,
        call: Call,
        record: StepRecord,
        plan: Plan,
        asked: Asked,
        taking: Taking,
        own: Outputs,
    ) -> tuple[Outputs, Boundaries | None]:
        """All shares' outputs, made here where a device failed; features that were kept."""
        kept, own_seconds, shown = None, record.own_seconds or 0.0, next(iter(own.values()))
        whole = shown[:1].expand(len(call.x), *shown.shape[1:])
        pieces, helped, theirs = [(plan[0].part, own)], False, None
        for share, number in asked.items():
            part, answer = share.part, None
            if taking.lease is not None and number is not None:
                answer = taking.lease.collect(number, part, whole, own_seconds)
            if answer is not None:
                record.worker_seconds, record.waited_seconds = answer.seconds, answer.waited
            if share.compared:
                theirs = None if answer is None else answer.outputs[0]
            elif answer is None:
                pieces.append((part, self._evaluated(call, part)))
            else:
                helped, kept = True, answer.boundaries
                pieces.append((part, dict(zip(part.branches, answer.outputs, strict=True))))
                if taking.pipeline is not None:
                    taking.pipeline.worker_speed = own_seconds / max(answer.seconds, 1e-6)
        out, pictures = joined(pieces), plan[0].part.pictures
        if theirs is not None and taking.lease is not None:
            helped = record.compared = self._compare(call, taking.lease, out, theirs, pictures)
        if helped and pictures is not None:
            record.kind, record.share = "shared", pictures.count / pictures.batch
        elif len(call.branches) == 1:
            record.kind = "single"
        else:
            record.kind = "exact" if helped else "local"
        return out, kept

    def _compare(
        self,
        call: Call,
        lease: Lease,
        out: Outputs,
        theirs: torch.Tensor,
        pictures: Pictures | None,
    ) -> bool:
        """Whether the first branch of `out` is `theirs`, the worker's of the whole batch.

        pictures: of this process's part, where the batch was divided. When that is what makes the
        difference, `out` becomes the framework's own.
        """
        first = next(iter(out))
        if pictures is None:
            return lease.compare(out[first], theirs, call.x.shape)
        if lease.compare_pictures(out[first], theirs):
            return True
        out |= self._evaluated(call, Part(tuple(call.branches)))
        if lease.compare(out[first], theirs, call.x.shape):
            self._keep_together(call, "the parts of a batch give another prediction than the whole")
        return False

    def _learn(
        self, call: Call, step: Step, taking: Taking, out: Outputs, kept: Boundaries | None
    ) -> None:
        """Give the step what came out; it may change that."""
        if isinstance(step, PipelinedStep):
            (result,) = out.values()
            seen = call.denoised(result)
            self._given(call, out, *step.both(seen), (seen, result))
            return
        boundaries = None
        if taking.pipeline is not None:
            boundaries = taking.pipeline.saw(self._lease, kept)
        denoised = [call.denoised(out[place]) for place in call.branches]
        shift = step.finish(denoised[0], denoised[1] if len(denoised) > 1 else None, boundaries)
        if shift is not None:
            pair = [one + shift for one in denoised]
            self._given(call, out, pair[0], pair[1] if len(pair) > 1 else None)

    @staticmethod
    def _given(
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

    def finish(self, status: str) -> None:
        """After the run, however it ended: done, interrupted or failed."""
        report, pipeline = self.report, self._pipeline
        report.status = status
        self._course.close()
        obstacle = self._course.obstacle
        if pipeline is not None:
            pipeline.finish(self._lease)
            report.cut = pipeline.cut_name
            obstacle = obstacle or pipeline.obstacle
        if obstacle and not report.pipelined and not report.forecast:
            report.note(f"both branches in full at every step: {obstacle}")
        self._watcher.ended(report)
        if report.reasons:
            self._say(report.line())

    def _stay_local(self, reason: str) -> None:
        self._local = True
        self.report.note(reason)
        how = "on one device" if self._course.shortens else "runs as KSampler, on one device"
        self._say(f"{how}: {reason}")

    def _say(self, text: str) -> None:
        if not self._announced:
            self._announced = True
            self._announce(text)

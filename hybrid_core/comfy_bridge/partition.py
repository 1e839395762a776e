"""One run in ComfyUI: what is evaluated here, what in the worker."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher

from hybrid_core.comfy_bridge import conds as conds_data
from hybrid_core.comfy_bridge import support
from hybrid_core.comfy_bridge.evaluation import Conds, Evaluation, Options
from hybrid_core.comfy_bridge.parallelism import IN_FULL, Parallelism
from hybrid_core.comfy_bridge.replica import ReplicaSource
from hybrid_core.comfy_bridge.session import Session
from hybrid_core.config import Tuning
from hybrid_core.course.stepper import Stepper
from hybrid_core.errors import NotPartitionable
from hybrid_core.machine.settled import settled
from hybrid_core.telling.report import Report, StepRecord, Watcher
from hybrid_core.workers.lease import Run

Announce = Callable[[str], None]


class Partition:
    """Shares the evaluations of one sampling call, or says once why it does not."""

    def __init__(
        self,
        patcher: ModelPatcher,
        session: Session,
        announce: Announce,
        watcher: Watcher,
        report: Report,
        tuning: Tuning,
        stepper: Stepper,
        parallelism: Parallelism | None,
        one_branch: bool,
        shape: tuple[int, ...],
    ):
        """parallelism: of a mode that has such a stage; one_branch: the guider has cfg 1.

        shape: of the latents.
        """
        self.report = report
        self._patcher, self._session = patcher, session
        self._announce, self._watcher = announce, watcher
        self._tuning, self._one_branch, self._shape = tuning, one_branch, shape
        self._stepper, self._parallelism = stepper, parallelism
        self._run: Run | None = None
        self._local = False
        self._announced = False
        session.active_runs += 1

    def begin(self, model_options: dict[str, Any]) -> None:
        """Start what takes time: the worker's process and its replica."""
        self._watcher.began(self.report)
        if support.replaces_evaluation(model_options):
            self._stay_local("another node evaluates the branches itself")
        elif not self._one_branch or self._parallelism is not None:
            run = self._ensure_run()
            if run is not None:
                run.prepare()

    def evaluate(self, call: Evaluation) -> list[torch.Tensor]:
        """What ComfyUI's calc_cond_batch returns: denoised latents, one of x's shape a branch."""
        began, count = time.monotonic(), len(call.branches)
        if self._run is not None:
            self._run.times = None
        is_step = count == (1 if self._one_branch else 2)
        staged = self._staged(count) if is_step or count > 2 else None
        shares = count > 1 or staged is not None
        if shares and self._parallelism is not None:
            self._parallelism.take_in(self._run, call.x)
        if staged is not None:
            decision = staged.begin(call)
        else:
            decision = self._stepper.begin(call.x, call.sigma) if is_step else IN_FULL
        record = self._stepper.record if is_step else StepRecord()
        self.report.steps.append(record)
        run = self._ready_run(call) if shares else None
        if self._local:
            staged = None
        out = None
        if staged is not None and decision.branch is not None and run is not None:
            out = staged.evaluate(run, call, decision.branch)
        if out is None:
            capture = decision.capture and staged is not None
            out, theirs = self._in_full(run, call, staged, capture, record)
            if is_step:
                self._saw_exact(call, staged, out, theirs)
        if self._run is not None and self._run.times is not None:
            record.worker_seconds, record.waited_seconds = self._run.times
        record.seconds = time.monotonic() - began
        self._watcher.stepped(self.report)
        return out

    def _in_full(
        self,
        run: Run | None,
        call: Evaluation,
        staged: Parallelism | None,
        capture: bool,
        record: StepRecord,
    ) -> tuple[list[torch.Tensor], Any]:
        """Every branch in full; the worker's boundaries where the Parallelism stage wants them."""
        mine = call.options
        if staged is not None:
            mine = staged.watched(call.model, call.options, capture)
        if len(call.branches) > 1:
            last = staged.asks_boundary(capture) if staged is not None else None
            divided = call.divided() if staged is None else staged.divided(call)
            asks = {} if last is None else {"last": last}
            return self._exact(run, call, divided, mine, asks, record)
        since = time.monotonic()
        out = call.of(call.conds, mine)
        record.kind, record.own_seconds = "single", settled(call.x.device) - since
        self.report.single += 1
        self.report.single_seconds += record.own_seconds
        return out, None

    def _exact(
        self,
        run: Run | None,
        call: Evaluation,
        divided: tuple[Conds, Conds],
        mine: Options,
        capture: dict[str, int],
        record: StepRecord,
    ) -> tuple[list[torch.Tensor], Any]:
        """As `_in_full`, of two branches and more: the parent's, with options `mine`, and the
        worker's."""
        parents, workers = divided
        began, number = time.monotonic(), None
        if run is not None:
            try:
                context = conds_data.context(workers, call.options)
                number = run.post("step", context, call.x, call.sigma, **capture)
            except NotPartitionable as error:
                self._stay_local(str(error))
        if number is None and (self._run is None or not self._run.apart):
            return self._alone(call, record), None
        results = boundary = None
        theirs = [index for index, cond in enumerate(workers) if cond is not None]
        try:
            since = time.monotonic()
            out = call.of(parents, mine)
            record.own_seconds = settled(call.x.device) - since
            if number is not None and run is not None:
                taken = run.collect(number, call.x, len(theirs), began, record.own_seconds)
                results, boundary = taken if taken is not None else (None, None)
        except BaseException:
            if number is not None and run is not None:
                run.cancel()  # of a step only: a replica being loaded is wanted by the next run
            raise
        if results is None:
            others = call.of(workers)
            results = [others[index] for index in theirs]
            self._count_local(record, settled(call.x.device) - since)
        for index, result in zip(theirs, results, strict=True):
            out[index] = result
        return out, boundary

    def _alone(self, call: Evaluation, record: StepRecord) -> list[torch.Tensor]:
        since = time.monotonic()
        out = call.of(call.conds)
        self._count_local(record, settled(call.x.device) - since)
        return out

    def _count_local(self, record: StepRecord, seconds: float) -> None:
        record.kind = "local"
        self.report.local += 1
        self.report.local_seconds += seconds

    def _saw_exact(
        self,
        call: Evaluation,
        staged: Parallelism | None,
        out: list[torch.Tensor],
        theirs: Any,
    ) -> None:
        """Learn from a step in full; may change `out` by what it makes good."""
        cond, uncond = out[call.branches[0]], None
        if len(call.branches) > 1:
            uncond = out[call.branches[1]]
        if staged is not None and self._run is not None:
            shift = staged.saw_exact(self._run, cond, uncond, theirs)
        else:
            shift = self._stepper.saw_exact(cond, uncond)
        if shift is not None:
            for index in call.branches:
                out[index] = out[index] + shift

    def _staged(self, count: int) -> Parallelism | None:
        """The Parallelism stage, while this run has one."""
        staged = self._parallelism
        if staged is None or staged.obstacle is not None or self._local:
            return None
        if count > 2:
            staged.obstacle = "this guider evaluates more than two branches"
        return staged if staged.obstacle is None else None

    def _ready_run(self, call: Evaluation) -> Run | None:
        """The run, when the worker can take part in this evaluation."""
        run = self._ensure_run()
        if run is None:
            return None
        try:
            support.check_conds(call.conds)
            support.check_options(call.options)
        except NotPartitionable as error:
            self._stay_local(str(error))
            return None
        return run if run.ready() else None

    def finish(self, status: str) -> None:
        """After the run, however it ended: done, interrupted or failed."""
        self._session.active_runs -= 1
        self.report.status = status
        self._stepper.close()
        staged = self._parallelism
        if staged is not None:
            staged.finish(self._run)
            self.report.cut = staged.cut_name
            obstacle = staged.obstacle or staged.stepper.obstacle
            if obstacle and not self.report.pipelined and not self._local:
                self.report.reasons.append(f"both branches in full at every step: {obstacle}")
        self._watcher.ended(self.report)
        if self.report.reasons:
            self._say(self.report.line())

    def _ensure_run(self) -> Run | None:
        if self._local:
            return None
        if self._run is None:
            try:
                partner = self._session.partner()
                support.check_place(self._patcher, partner.host.device)
                source = ReplicaSource(self._patcher, self._session.model_gone, self._shape)
            except NotPartitionable as error:
                self._stay_local(str(error))
                return None
            tick = comfy.model_management.throw_exception_if_processing_interrupted
            self._run = Run(partner, source, tick, self.report, self._tuning)
        return self._run

    def _stay_local(self, reason: str) -> None:
        self._local, self._run = True, None
        self.report.reasons.append(reason)
        self._say(f"runs as KSampler, on one device: {reason}")

    def _say(self, text: str) -> None:
        if not self._announced:
            self._announced = True
            self._announce(text)

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
from hybrid_core.comfy_bridge.parallelism import IN_FULL, Conds, Parallelism
from hybrid_core.comfy_bridge.replica import ReplicaSource
from hybrid_core.comfy_bridge.session import Session
from hybrid_core.config import Tuning
from hybrid_core.errors import NotPartitionable
from hybrid_core.report import Report
from hybrid_core.run import Run

Announce = Callable[[str], None]


class Partition:
    """Shares the evaluations of one sampling call, or says once why it does not."""

    def __init__(
        self,
        patcher: ModelPatcher,
        session: Session,
        announce: Announce,
        mode: str,
        tuning: Tuning,
        parallelism: Parallelism | None,
        one_branch: bool,
    ):
        """parallelism: of a mode that has such a stage; one_branch: the guider has cfg 1."""
        self._patcher, self._session, self._announce = patcher, session, announce
        self.report = Report(mode)
        self._tuning, self._parallelism, self._one_branch = tuning, parallelism, one_branch
        self._run: Run | None = None
        self._local = False
        self._announced = False
        session.active_runs += 1

    def begin(self, model_options: dict[str, Any]) -> None:
        """Start what takes time: the worker's process and its replica."""
        if support.replaces_evaluation(model_options):
            self._stay_local("another node evaluates the branches itself")
        elif not self._one_branch or self._parallelism is not None:
            run = self._ensure_run()
            if run is not None:
                run.prepare()

    def evaluate(
        self,
        executor: Any,
        model: Any,
        conds: Conds,
        x: torch.Tensor,
        sigma: torch.Tensor,
        options: dict[str, Any],
    ) -> list[torch.Tensor]:
        """What ComfyUI's calc_cond_batch returns: denoised latents, one of x's shape a branch."""
        count = sum(cond is not None for cond in conds)
        staged = self._staged(count)
        if count < 2 and staged is None:
            self.report.single += 1
            return executor(model, conds, x, sigma, options)  # type: ignore[no-any-return]
        decision = staged.begin(self._run, x, sigma) if staged else IN_FULL
        run, began = self._ready_run(conds, options), time.monotonic()
        parents, workers = divided(conds)
        if staged is not None and decision.pipelined and run is not None:
            out = staged.evaluate(run, executor, model, (parents, workers), x, sigma, options)
            if out is not None:
                return out
        mine = options
        if staged is not None:
            mine = staged.watched(model, options, decision.capture)  # type: ignore[assignment]
        if count < 2:
            out = executor(model, conds, x, sigma, mine)
            theirs = None
            self.report.single += 1
            self.report.single_seconds += time.monotonic() - began
        else:
            last = staged.asks_boundary(decision.capture) if staged else None
            capture = {} if last is None else {"last": last}
            out, theirs = self._exact(
                run, executor, model, (conds, parents, workers), x, sigma, options, mine, capture
            )
        if staged is not None:
            present = [index for index, cond in enumerate(conds) if cond is not None]
            results = [out[index] for index in present]
            shift = staged.saw_exact(run, results[0], results[1] if count > 1 else None, theirs)
            if shift is not None:
                for index in present:
                    out[index] = out[index] + shift
        return out

    def _exact(
        self,
        run: Run | None,
        executor: Any,
        model: Any,
        branches: tuple[Conds, Conds, Conds],
        x: torch.Tensor,
        sigma: torch.Tensor,
        options: Any,
        mine: Any,
        capture: dict[str, int],
    ) -> tuple[list[torch.Tensor], Any]:
        """Every branch in full; the worker's boundaries where `capture` asks for them.

        branches: all, the parent's, the worker's; mine: options of the parent's own evaluation.
        """
        conds, parents, workers = branches
        began, number = time.monotonic(), None
        if run is not None:
            try:
                number = run.post("step", conds_data.context(workers, options), x, sigma, **capture)
            except NotPartitionable as error:
                self._stay_local(str(error))
        if number is None and (self._run is None or not self._run.apart):
            return self._alone(executor, model, conds, x, sigma, options), None
        results = boundary = None
        theirs = [index for index, cond in enumerate(workers) if cond is not None]
        try:
            since = time.monotonic()
            out: list[torch.Tensor] = executor(model, parents, x, sigma, mine)
            if number is not None and run is not None:
                taken = run.collect(number, x, len(theirs), began, time.monotonic() - since)
                results, boundary = taken if taken is not None else (None, None)
        except BaseException:
            if number is not None and run is not None:
                run.cancel()  # of a step only: a replica being loaded is wanted by the next run
            raise
        if results is None:
            others = executor(model, workers, x, sigma, options)
            results = [others[index] for index in theirs]
            self.report.local += 1
            self.report.local_seconds += time.monotonic() - since
        for index, result in zip(theirs, results, strict=True):
            out[index] = result
        return out, boundary

    def _alone(
        self, executor: Any, model: Any, conds: Conds, x: Any, sigma: Any, options: Any
    ) -> list[torch.Tensor]:
        since = time.monotonic()
        out: list[torch.Tensor] = executor(model, conds, x, sigma, options)
        self.report.local += 1
        self.report.local_seconds += time.monotonic() - since
        return out

    def _staged(self, count: int) -> Parallelism | None:
        """The Parallelism stage, if this evaluation is one of its run's steps."""
        staged = self._parallelism
        if staged is None or staged.obstacle is not None or self._local:
            return None
        if count > 2:
            staged.obstacle = "this guider evaluates more than two branches"
        expected = 1 if self._one_branch else 2
        return staged if staged.obstacle is None and count == expected else None

    def _ready_run(self, conds: Conds, options: dict[str, Any]) -> Run | None:
        """The run, when the worker can take part in this evaluation."""
        run = self._ensure_run()
        if run is None:
            return None
        try:
            support.check_conds(conds)
            support.check_options(options)
        except NotPartitionable as error:
            self._stay_local(str(error))
            return None
        return run if run.ready() else None

    def finish(self) -> None:
        """After the run, however it ended."""
        self._session.active_runs -= 1
        staged = self._parallelism
        if staged is not None:
            staged.finish(self._run)
            self.report.steps = staged.stepper.records
            self.report.cut = staged.cut_name
            obstacle = staged.obstacle or staged.stepper.obstacle
            if obstacle and not self.report.pipelined and not self._local:
                self.report.reasons.append(f"both branches in full at every step: {obstacle}")
        if self.report.reasons:
            self._say(self.report.line())

    def _ensure_run(self) -> Run | None:
        if self._local:
            return None
        if self._run is None:
            try:
                partner = self._session.partner()
                source = ReplicaSource(self._patcher, self._session.model_gone)
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


def divided(conds: Conds) -> tuple[Conds, Conds]:
    """The parent's branches and the worker's: every other one that is there."""
    theirs = [index for index, cond in enumerate(conds) if cond is not None][1::2]
    parents: Conds = [None if i in theirs else cond for i, cond in enumerate(conds)]
    workers: Conds = [cond if i in theirs else None for i, cond in enumerate(conds)]
    return parents, workers

"""One pipeline call: what is evaluated here, what in the worker."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from hybrid_core.course.stepper import Decision
from hybrid_core.diffusers_bridge.branches import Branch, Forward
from hybrid_core.diffusers_bridge.parallelism import Parallelism
from hybrid_core.errors import NotPartitionable
from hybrid_core.machine.settled import settled
from hybrid_core.telling.report import Report
from hybrid_core.workers.lease import Run

IN_FULL = Decision()
Whole = Callable[[], torch.Tensor]


class Partition:
    """Shares the evaluations of one pipeline call."""

    def __init__(
        self,
        forward: Forward,
        run: Run | None,
        parallelism: Parallelism | None,
        report: Report,
        wait_seconds: float,
    ):
        """forward: the network's own; run: None for a call that stays local.

        wait_seconds: how long the first evaluation may wait for the worker to come up.
        """
        self.report = report
        self._forward, self._run, self._parallelism = forward, run, parallelism
        self._wait_seconds = wait_seconds
        if parallelism is not None:
            report.steps = parallelism.stepper.records

    def evaluate(self, uncond: Branch, cond: Branch, whole: Whole) -> torch.Tensor:
        """The joint prediction [uncond; cond], (2B, ...); whole: evaluates both at once."""
        run, staged = self._run, self._parallelism
        if run is None:
            return self.alone(whole)
        if staged is not None and staged.obstacle is not None:
            staged = None
        decision = IN_FULL if staged is None else staged.begin(run, cond)
        ready = run.ready(self._wait_seconds)
        self._wait_seconds = 0.0
        if not run.apart:
            return self.alone(whole, staged)
        try:
            if ready and staged is not None and decision.branch is not None:
                out = staged.evaluate(run, uncond, cond, decision.branch, self._forward)
                if out is not None:
                    return torch.cat(out)
            return torch.cat(self._exact(run, staged, uncond, cond, ready, decision.capture))
        except BaseException:
            if ready:
                run.cancel()  # of a step only: a replica being loaded is wanted by the next call
            raise

    def _exact(
        self,
        run: Run,
        staged: Parallelism | None,
        uncond: Branch,
        cond: Branch,
        ready: bool,
        capture: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Both branches in full, uncond in the worker when it is ready."""
        began, number = time.monotonic(), None
        if ready:
            asks = {} if staged is None else staged.asks_boundary(capture)
            try:
                number = run.post("step", uncond.conditioning, uncond.x, uncond.timestep, **asks)
            except NotPartitionable as error:
                run.give_up(error)
        since, own_boundary = time.monotonic(), None
        if staged is None:
            mine = cond.evaluate(self._forward)
        else:
            mine, own_boundary = staged.in_full(cond, self._forward, capture)
        own_seconds = settled(mine.device) - since
        taken = None if number is None else run.collect(number, mine, 1, began, own_seconds)
        if taken is not None:
            (theirs,), boundary = taken
        else:
            theirs, boundary = uncond.evaluate(self._forward), None
            self._count_local(settled(theirs.device) - since, staged)
        if staged is not None:
            return staged.saw_exact(run, theirs, mine, own_boundary, boundary)
        return theirs, mine

    def alone(self, whole: Whole, staged: Parallelism | None = None) -> torch.Tensor:
        """Both branches at once, here. staged: that has begun this evaluation."""
        since = time.monotonic()
        out = whole()
        self._count_local(settled(out.device) - since, staged)
        return out

    def _count_local(self, seconds: float, staged: Parallelism | None) -> None:
        if staged is not None:
            staged.stepper.record.kind = "local"
        self.report.local += 1
        self.report.local_seconds += seconds

    def single(self, whole: Whole) -> torch.Tensor:
        """An evaluation without guidance, here."""
        since = time.monotonic()
        out = whole()
        self.report.single += 1
        self.report.single_seconds += settled(out.device) - since
        return out

    def note(self, reason: str) -> None:
        """Say once why an evaluation is not shared."""
        if reason not in self.report.reasons:
            self.report.reasons.append(reason)

    def finish(self) -> None:
        """After the call, however it ended."""
        staged = self._parallelism
        if staged is None:
            return
        if self._run is not None:
            staged.finish(self._run)
        self.report.cut = staged.staging.cut_name
        obstacle = staged.obstacle or staged.stepper.obstacle
        if obstacle and not self.report.pipelined:
            self.note(f"both branches in full at every step: {obstacle}")

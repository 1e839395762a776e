"""The Parallelism stage of one pipeline call: one branch in two stages, a device each."""

from __future__ import annotations

import time
from typing import Any

import torch

from hybrid_core.course.policy import COND, UNCOND, Branch
from hybrid_core.course.stepper import Decision, Stepper
from hybrid_core.diffusers_bridge import branches
from hybrid_core.diffusers_bridge.branches import Forward
from hybrid_core.diffusers_bridge.space import Schedule
from hybrid_core.diffusers_bridge.staging import Staging
from hybrid_core.errors import NotSplittable
from hybrid_core.machine.settled import settled
from hybrid_core.workers.lease import Run


class Parallelism:
    """Steps, boundaries and requests for stage A; `obstacle` says why there are none any more."""

    def __init__(self, stepper: Stepper, schedule: Schedule, staging: Staging):
        self.stepper, self.staging = stepper, staging
        self.obstacle: str | None = None
        self._schedule = schedule
        self._mixes = not stepper.policy.guided
        self._asked: tuple[int, int, Branch, float] | None = None  # request: of which step; seconds
        stepper.policy.alternates = stepper.policy.guided
        self._x: torch.Tensor | None = None
        self._sigma: torch.Tensor | None = None

    def begin(self, run: Run, cond: branches.Branch) -> Decision:
        """What the evaluation of `cond` is to be; takes in what the worker made meanwhile."""
        if self._asked is not None:
            number, step, branch, own_seconds = self._asked
            boundary = run.collect_stage(number, own_seconds, cond.x)
            self._asked = None
            if boundary is not None:
                self.stepper.keep_boundary(step, boundary, branch)
        self._sigma = self._schedule.sigma(cond.timestep, len(cond.x))
        self._x = self._schedule.latents(cond.x, self._sigma)
        return self.stepper.begin(self._x, self._sigma)

    def in_full(
        self, cond: branches.Branch, forward: Forward, capture: bool
    ) -> tuple[torch.Tensor, Any]:
        """The whole network on `cond`: its prediction, and its boundary where that is wanted."""
        try:
            if self.staging.recording:
                return self.staging.record(lambda: cond.evaluate(forward))
            if capture and not (self._mixes and self.staging.verified):
                return self.staging.capture(lambda: cond.evaluate(forward))
        except NotSplittable as error:
            self.obstacle = str(error)
        return cond.evaluate(forward), None

    def asks_boundary(self, capture: bool) -> dict[str, int]:
        """What makes the worker's exact step capture, as fields of the request."""
        cut = self.staging.cut
        return {"last": cut.last} if capture and self._mixes and cut is not None else {}

    def saw_exact(
        self, run: Run, uncond: torch.Tensor, cond: torch.Tensor, own: Any, theirs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """An exact evaluation is done: predictions, and the boundaries that were captured.

        Returns the predictions with what makes good for the pipelined steps before.
        """
        schedule, x, sigma = self._schedule, self._x, self._sigma
        assert x is not None and sigma is not None
        boundary = theirs if self._mixes else own
        if self.staging.settle(run.worker_speed):
            boundary = None
        self.obstacle = self.obstacle or run.obstacle_to(self.staging.boundary_bytes)
        other, denoised = (schedule.denoised(x, sigma, out) for out in (uncond, cond))
        shift = self.stepper.saw_exact(denoised, other, boundary)
        if shift is None:
            return uncond, cond
        return (
            schedule.prediction(x, sigma, other + shift, uncond.dtype),
            schedule.prediction(x, sigma, denoised + shift, cond.dtype),
        )

    def evaluate(
        self,
        run: Run,
        uncond: branches.Branch,
        cond: branches.Branch,
        branch: Branch,
        forward: Forward,
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """A pipelined evaluation by `branch`: predictions of uncond and cond.

        None: do it in full.
        """
        staging, stepper, schedule = self.staging, self.stepper, self._schedule
        x, sigma, boundary = self._x, self._sigma, stepper.forecast()
        assert x is not None and sigma is not None
        if staging.cut is None or not staging.fits(boundary):
            return None
        inputs = {COND: cond, UNCOND: uncond}
        ahead, number = stepper.ahead(), None
        if ahead is not None:
            number = run.post(
                "stage",
                inputs[UNCOND if self._mixes else ahead.branch].conditioning,
                schedule.network_input(ahead.x, ahead.sigma, cond.x.dtype),
                schedule.timestep(ahead.sigma, cond.timestep),
                last=staging.cut.last,
            )
        since = time.monotonic()
        out = staging.finish(lambda: inputs[branch].evaluate(forward), boundary)
        own_seconds = settled(x.device) - since
        if ahead is not None and number is not None:
            self._asked = number, ahead.step, ahead.branch, own_seconds
        run.report.pipelined += 1
        run.report.own_stage_seconds += own_seconds
        seen = schedule.denoised(x, sigma, out)
        predicted = [
            out if one is seen else schedule.prediction(x, sigma, one, out.dtype)
            for one in stepper.saw_pipelined(seen)
        ]
        return predicted[1], predicted[0]

    def finish(self, run: Run) -> None:
        """The call is over, however it ended: what is under way is not wanted."""
        self.stepper.close()
        if self._asked is not None:
            self._asked = None
            run.cancel()

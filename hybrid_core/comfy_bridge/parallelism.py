"""The Parallelism stage of one run in ComfyUI: one branch in two stages, a device each."""

from __future__ import annotations

import time
from typing import Any

import torch

from hybrid_core.comfy_bridge import conds as conds_data
from hybrid_core.comfy_bridge.evaluation import Conds, Evaluation, Options, Prompts
from hybrid_core.comfy_bridge.staging import Boundaries, Staging, with_each_forward
from hybrid_core.course.policy import COND, UNCOND, Branch
from hybrid_core.course.stepper import Decision, Stepper
from hybrid_core.errors import NotPartitionable, NotSplittable
from hybrid_core.machine.settled import settled
from hybrid_core.stages.plan import Cut
from hybrid_core.workers.lease import Run

IN_FULL = Decision()
ONE_EACH = "mode paper mixes one prompt with one negative prompt, here are more"


class Parallelism:
    """Steps, boundaries and requests for stage A; `obstacle` says why there are none any more."""

    def __init__(self, stepper: Stepper, cuts: dict[Any, Cut], cut_key: Any):
        """cuts: what earlier runs settled on, by `cut_key`."""
        self.stepper = stepper
        self.obstacle: str | None = None
        self._cuts, self._cut_key = cuts, cut_key
        self._staging: Staging | None = None
        self._prompts: Prompts = ()
        self._asked: tuple[int, int, Branch] | None = None  # request for stage A: of which step
        self._own_seconds = 0.0  # of the latest stage B
        self._mixes = not stepper.policy.guided

    @property
    def cut_name(self) -> str | None:
        staging = self._staging
        if staging is None or staging.cut is None:
            return None
        return staging.block(staging.cut.last)

    def begin(self, call: Evaluation) -> Decision:
        """What the evaluation is to be. Other prompts than before are another course."""
        prompts = call.prompts
        if prompts != self._prompts:
            self._prompts, self._staging = prompts, None
            self.stepper.forget()
        return self.stepper.begin(call.x, call.sigma)

    def take_in(self, run: Run | None, x: torch.Tensor) -> None:
        """What the worker made meanwhile. Before anything else is asked of it."""
        if self._asked is None:
            return
        number, step, branch = self._asked
        boundary = None if run is None else run.collect_stage(number, self._own_seconds, x)
        self._asked = None
        if boundary is not None:
            self.stepper.keep_boundary(step, self._named(boundary), branch)

    def _named(self, boundaries: Boundaries) -> Boundaries:
        """The worker's boundaries by the names of this side's forwards."""
        if not self._mixes:
            return boundaries
        keys = self._staging.keys if self._staging is not None else []
        if len(keys) == len(boundaries) == 1:
            return {keys[0]: next(iter(boundaries.values()))}
        self.obstacle = self.obstacle or ONE_EACH
        return {}

    def watched(self, model: Any, options: Options, capture: bool) -> Options:
        """Options for an exact evaluation that shows what the Parallelism stage needs."""
        try:
            if self._staging is None:
                known = self._cuts.get(self._cut_key)
                self._staging = Staging(model.diffusion_model, known)
        except NotSplittable as error:
            self.obstacle = str(error)
            return options
        staging = self._staging
        staging.begin()
        if staging.recording:
            return with_each_forward(options, self._guarded(staging.record))
        if capture and not (self._mixes and staging.verified):
            return with_each_forward(options, self._guarded(staging.capture))
        return options

    def _guarded(self, task: Any) -> Any:
        def each(key: str, _: torch.Tensor, forward: Any) -> Any:
            try:
                return task(key, forward)
            except NotSplittable as error:
                self.obstacle = str(error)
                return forward()

        return each

    def divided(self, call: Evaluation) -> tuple[Conds, Conds]:
        """What this process evaluates in full and what the worker does.

        They change places once, in the first evaluation: so the sizes of both branches' forwards
        are known here, and a pipelined step may evaluate either.
        """
        parents, workers = call.divided()
        if self._mixes or self._staging is None or not self._staging.at_first:
            return parents, workers
        return workers, parents

    def asks_boundary(self, capture: bool) -> int | None:
        """The unit after which the worker's exact step is to capture, None for no capture."""
        staging = self._staging
        if not (capture and self._mixes) or staging is None or staging.cut is None:
            return None
        return staging.cut.last

    def saw_exact(
        self, run: Run, cond: torch.Tensor, uncond: torch.Tensor | None, theirs: Any
    ) -> torch.Tensor | None:
        """An exact evaluation is done; theirs: the boundaries that the worker captured.

        Returns what is to be added to both results, or None.
        """
        staging, boundary = self._staging, None
        if staging is not None:
            if staging.recording:
                staging.recorded(run.worker_speed)
                self.obstacle = self.obstacle or run.obstacle_to(staging.boundary_bytes)
                if staging.cut is not None and not staging.recording:
                    self._cuts[self._cut_key] = staging.cut
                self.stepper.policy.alternates = uncond is not None
            boundary = self._named(theirs) if self._mixes and theirs else staging.taken
        if self.obstacle is not None:
            self._staging = boundary = None  # with what it holds
        return self.stepper.saw_exact(cond, uncond, boundary or None)

    def evaluate(self, run: Run, call: Evaluation, branch: Branch) -> list[torch.Tensor] | None:
        """A pipelined evaluation by `branch`, or by the only one. None: do it in full."""
        staging, stepper = self._staging, self.stepper
        boundary = stepper.forecast()
        if staging is None or staging.cut is None or boundary is None:
            return None
        conds = dict(zip((COND, UNCOND), call.divided(), strict=True))
        ahead = stepper.ahead()
        if ahead is not None:
            theirs = conds[UNCOND if self._mixes else ahead.branch]
            try:
                context = conds_data.context(theirs, call.options)
                number = run.post("stage", context, ahead.x, ahead.sigma, last=staging.cut.last)
            except NotPartitionable as error:
                self.obstacle = str(error)
                return None
            if number is not None:
                self._asked = number, ahead.step, ahead.branch
        since = time.monotonic()
        out = call.of(conds[branch], with_each_forward(call.options, staging.finishing(boundary)))
        self._own_seconds = stepper.record.own_seconds = settled(call.x.device) - since
        run.report.pipelined += 1
        run.report.own_stage_seconds += self._own_seconds
        places = call.branches
        both = stepper.saw_pipelined(out[places[0 if branch == COND else 1]])
        for index, value in zip(places, both, strict=False):
            out[index] = value
        return out

    def finish(self, run: Run | None) -> None:
        """The run is over, however it ended: what is under way is not wanted."""
        if self._asked is not None and run is not None:
            self._asked = None
            run.cancel()

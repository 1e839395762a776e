"""The Parallelism stage of one run: one branch in two stages, a device each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from hybrid_core.course.course import Course
from hybrid_core.course.steps import Ahead, PipelinedStep, Step
from hybrid_core.driver import division
from hybrid_core.driver.call import Call
from hybrid_core.driver.division import Plan
from hybrid_core.errors import NotSplittable
from hybrid_core.stages.plan import Cut
from hybrid_core.stages.staging import Boundaries, Each, Forward, Staging
from hybrid_core.telling.report import StepRecord
from hybrid_core.workers.contract import Answer, Part
from hybrid_core.workers.lease import Lease

ONE_EACH = "mode paper mixes one prompt with one negative prompt, here are more"
MORE_BRANCHES = "this guider evaluates more than two branches"
Tensor = torch.Tensor


@dataclass(frozen=True)
class Early:
    """A request for stage A of a step that is still to come."""

    number: int
    part: Part
    ahead: Ahead
    beside: StepRecord  # of the step whose stage B runs meanwhile
    lease: Lease


class Pipeline:
    """Where the network is cut, features, requests ahead; `obstacle`: why there are none any more.

    In mode paper stage A is of the other branch than stage B: its features are the worker's.
    """

    def __init__(self, course: Course, cuts: dict[Any, Cut], cut_key: Any):
        """cuts: what earlier runs settled on, by `cut_key`."""
        self.obstacle: str | None = None
        self.worker_speed = 1.0  # of this process's, by the latest step that both did in full
        self._course, self._cuts, self._cut_key = course, cuts, cut_key
        self._mixes = not course.policy.guided
        self._staging: Staging | None = None
        self._prompts: Any = ()
        self._early: Early | None = None

    @property
    def cut_name(self) -> str | None:
        """The last block of stage A."""
        return None if self._staging is None else self._staging.cut_name

    def follow(self, call: Call) -> None:
        """Before an evaluation. Other prompts than before run through other forward passes."""
        if call.prompts != self._prompts:
            self._prompts, self._staging = call.prompts, None
        if self._staging is None:
            try:
                self._staging = Staging(call.network, self._cuts, self._cut_key)
            except NotSplittable as error:
                self.obstacle = str(error)

    def take_in(self, like: Tensor) -> Answer | None:
        """Features that the worker made meanwhile, before anything else is asked of it."""
        early, self._early = self._early, None
        if early is None or early.lease.gone:
            return None
        own_seconds = early.beside.own_seconds or 0.0
        answer = early.lease.collect(early.number, early.part, like, own_seconds)
        if answer is None:
            return None
        boundaries = self._named(answer.boundaries or {})
        self._course.keep_boundary(early.ahead.call, boundaries)
        return answer

    def _named(self, boundaries: Boundaries) -> Boundaries:
        """The worker's boundaries by the names of this side's forwards."""
        if not self._mixes:
            return boundaries
        keys = self._staging.keys if self._staging is not None else []
        if len(keys) == len(boundaries) == 1:
            return {keys[0]: next(iter(boundaries.values()))}
        self.obstacle = self.obstacle or ONE_EACH
        return {}

    def plan(self, call: Call, step: PipelinedStep, device: int) -> Plan | None:
        """Who does which stage; None where the network's forward passes are not known yet."""
        if self._staging is None or self._staging.cut is None:
            return None
        own, ahead = call.branches[0], None
        if step.ahead is not None:
            ahead = call.branches[1 if self._mixes else 0]
        return division.in_stages(own, ahead, device, self._staging.cut.last)

    def asked(self, early: Early) -> None:
        """Stage A is under way; the next evaluation takes it in."""
        self._early = early

    def each(self, step: Step) -> Each | None:
        """What runs each forward pass of this process's share; None where nothing is to be seen."""
        staging = self._staging
        if staging is None:
            return None
        if isinstance(step, PipelinedStep):
            return staging.finishing(step.boundary)
        staging.clear()
        if staging.recording:
            return self._guarded(staging.record)
        if step.capture and not (self._mixes and staging.verified):
            return self._guarded(staging.capture)
        return None

    def _guarded(self, task: Each) -> Each:
        def each(key: str, x: Any, forward: Forward) -> Any:
            try:
                return task(key, x, forward)
            except NotSplittable as error:
                self.obstacle = str(error)
                return forward()

        return each

    def turned(self, call: Call) -> bool:
        """Whether this process and the worker change branches in this evaluation.

        Once, in the first one: so the sizes of both branches' forwards are known here, and a
        pipelined step may evaluate either.
        """
        at_first = self._staging is not None and self._staging.at_first
        return at_first and not self._mixes and not call.alike

    def keeps(self, step: Step) -> int | None:
        """The unit whose output the worker's exact part is to give."""
        staging = self._staging
        if not (step.capture and self._mixes) or staging is None or staging.cut is None:
            return None
        return staging.cut.last

    def saw(self, lease: Lease | None, theirs: Boundaries | None) -> Boundaries | None:
        """After an exact evaluation: the features that the step learns from.

        theirs: what the worker's part kept.
        """
        staging, boundaries = self._staging, None
        if staging is not None:
            if staging.recording and staging.seen and lease is not None:
                staging.recorded(self.worker_speed)
                self.obstacle = self.obstacle or lease.obstacle_to(staging.boundary_bytes)
            boundaries = staging.taken
            if self._mixes:
                boundaries = self._named(theirs) if theirs else {}
        if self.obstacle is not None:
            self._staging = boundaries = None  # with what it holds
        return boundaries or None

    def finish(self) -> None:
        """The run is over, however it ended: what is under way is not wanted."""
        early, self._early = self._early, None
        if early is not None:
            early.lease.cancel()

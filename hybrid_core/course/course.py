"""The course of one run: what each evaluation is to be, and what it has shown by then.

A driver asks `begin` at each evaluation of the network, evaluates what the step says, and gives the
results to the step. Tensors stay on their device; the few numbers that the policy needs are read
once an evaluation, at the moment when the latent itself leaves the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from hybrid_core.config import Tuning
from hybrid_core.course import discrepancy
from hybrid_core.course.adaptive import Adaptive
from hybrid_core.course.discrepancy import Tensor
from hybrid_core.course.matrix import Matrix
from hybrid_core.course.measures import Measures
from hybrid_core.course.memory import Memory
from hybrid_core.course.paper import Paper
from hybrid_core.course.policy import FORECAST, PIPELINED, Exact, Policy
from hybrid_core.course.steps import ExactStep, ForecastStep, MeasuredStep, PipelinedStep, Step
from hybrid_core.course.trajectory import MEASURES, Trajectory
from hybrid_core.errors import NotLinear
from hybrid_core.telling.report import StepRecord

SAME_SIGMA = 1e-4  # relative
SAME_CFG = 0.02  # relative, and of 1 at least
SEVERAL_CALLS = "this sampler does not evaluate the model once a step"
NOISY = "this sampler adds noise, so that its latents cannot be foreseen"
LOST = "the model is not evaluated where this sampler asked for it when it was tried"
MOVED = "something else moves the latents between the sampler's steps"


class Course:
    """Decides and remembers. One object a run."""

    def __init__(
        self,
        policy: Policy,
        schedule: Sequence[float],
        matrix: Matrix | None = None,
        mask: Tensor | None = None,
        look_ahead: bool = True,
        cfg: float = 1.0,
        joined: bool = True,
        obstacle: str | None = None,
        rounding: float = 0.0,
        weigh: Callable[[float], None] | None = None,
    ):
        """schedule: the sampler's noise levels with the final one; mask: what is denoised, or None.

        matrix: the sampler's, None where every evaluation is to be in full; obstacle: why, where
        the mode could do otherwise. cfg: the guidance scale, 1 for a run of one branch; joined:
        whether the branches are joined by it alone. rounding: relative, of the latents as the
        framework keeps them. weigh: tells the policy another guidance scale, None where it does not
        go by that.
        """
        self.policy, self._rounding = policy, rounding
        self._obstacle = obstacle
        self._schedule, self._mask = list(schedule), mask
        self._measures = Measures(policy)
        self._memory = None
        if matrix is not None:
            self._memory = Memory(policy, self._measures, matrix, mask, look_ahead, cfg, joined)
        self._call = -1
        self._step: int | None = None
        self._unforeseen = 0  # calls
        self._prompts: Any = ()
        self._cfg = self._told_cfg = cfg
        self._weigh = weigh
        self._asked = False  # the sampler waits for what the latest evaluation gives
        self._level = math.nan  # noise level of that

    @classmethod
    def of(
        cls,
        mode: str,
        tuning: Tuning,
        schedule: Sequence[float],
        flow: bool,
        traced: Callable[[], Matrix],
        mask: Tensor | None = None,
        cfg: float = 1.0,
        joined: bool = True,
        rounding: float = 0.0,
    ) -> Course:
        """For a run in `mode`. flow: the model's noise levels are a flow's, 0..1.

        traced: gives the sampler's matrix or raises NotLinear.
        """
        steps = len(schedule) - 1
        if mode == "exact" or steps < 1:
            return cls(Exact(), schedule, mask=mask)
        try:
            matrix = traced()
            if matrix.noisy:
                raise NotLinear(NOISY)
            if mode == "paper" and matrix.calls != steps:
                raise NotLinear(SEVERAL_CALLS)
        except NotLinear as error:
            return cls(Exact(), schedule, mask=mask, obstacle=str(error))
        policy: Policy
        weigh: Callable[[float], None] | None = None
        if mode == "paper":
            policy = Paper.tuned(tuning, steps, flow)
        else:
            reach = partial(matrix.reach, schedule, flow)
            policy = adaptive = Adaptive(
                tuning.tolerance, reach(cfg), tuning.largest_gap, tuning.kinds
            )

            def weigh(cfg: float) -> None:
                adaptive.weigh(reach(cfg))

        look_ahead = tuning.look_ahead and policy.guided
        return cls(
            policy, schedule, matrix, mask, look_ahead, cfg, joined, rounding=rounding, weigh=weigh
        )

    @property
    def obstacle(self) -> str | None:
        """Why the run's calls were exact, whatever the policy."""
        if self._obstacle is not None or self._memory is None:
            return self._obstacle
        return MOVED if 2 * self._unforeseen > self._call + 1 else None

    @property
    def shortens(self) -> bool:
        """Whether some of its calls may be evaluated less than in full by this process alone."""
        return self._memory is not None and self.policy.forecasts

    def begin(self, x: Tensor, sigma: Tensor, prompts: Any = (), cfg: float | None = None) -> Step:
        """The evaluation at latent `x` (B, ...) and noise level `sigma` (B,).

        prompts: equal while the same prompts hold; others are another course. cfg: the guidance
        scale that is said to be this evaluation's, None where nobody says; so is another one.
        """
        part = self._mask is not None and not discrepancy.fits(self._mask, x)  # a context window
        self._call += 1
        surprise = x.new_zeros(MEASURES, dtype=torch.float32)
        shown = x.new_full((1,), math.nan, dtype=torch.float32)
        if self._memory is not None and not part:
            surprise = self._memory.trajectory.surprise(self._call, x)
            if self._memory.shown_cfg is not None:
                shown, self._memory.shown_cfg = self._memory.shown_cfg, None
        unread = self._measures.unread(x.device)
        numbers = torch.cat([sigma[:1].float(), shown, surprise, unread]).tolist()
        self._measures.read(numbers[2 + MEASURES :])
        self._level = numbers[0]
        self._step = self._step_at(self._level)
        record = StepRecord(self._step, self._level)
        if self._memory is not None and (part or not self._follow(self._memory, numbers[0], x)):
            self.stop(LOST)
        if part:
            return Step(record)
        memory = self._memory
        if memory is None:
            return MeasuredStep(record, self._measures, self._mask, self._call, x, sigma)
        if prompts != self._prompts:
            self._prompts = prompts
            memory.forget()
        self._combined(memory, cfg, numbers[1])
        foreseen = Trajectory.foreseen(numbers[2 : 2 + MEASURES], self._rounding)
        self._unforeseen += not foreseen
        memory.trajectory.arrive(self._call, x)
        self._asked = True
        return self._chosen(memory, record, x, sigma, foreseen)

    def stop(self, reason: str) -> None:
        """Every call from here on is exact."""
        if self._memory is not None:
            self._memory, self._obstacle = None, reason

    def is_at(self, sigma: Tensor) -> bool:
        """Whether the latest call was at this noise level, (B,)."""
        return math.isclose(float(sigma[0]), self._level, rel_tol=SAME_SIGMA)

    def passed(self, sigma: Tensor) -> Step:
        """An evaluation at `sigma` (B,) of other branches than the run's: not learned from."""
        level = float(sigma[0])
        self._step = self._step_at(level)
        return Step(StepRecord(self._step, level))

    def _combined(self, memory: Memory, told: float | None, shown: float) -> None:
        """Another guidance scale is another course, on which errors count otherwise.

        A guider that says another one than before means it; else the scale is the one that the
        call before has `shown`, not a number where it has not.
        """
        if self._weigh is None:
            return
        if told is not None and told != self._told_cfg:
            self._told_cfg = shown = told
        if abs(shown - self._cfg) > SAME_CFG * max(1.0, abs(self._cfg)):
            self._cfg = memory.cfg = shown
            self._weigh(shown)
            memory.forget()

    def _chosen(
        self, memory: Memory, record: StepRecord, x: Tensor, sigma: Tensor, foreseen: bool
    ) -> Step:
        call = self._call
        kind, record.drift = self.policy.choose(call, memory.features.reach(call))
        if foreseen and kind == FORECAST:
            return ForecastStep(record, memory, call, x, sigma)
        if foreseen and kind == PIPELINED:
            boundary = memory.features.forecast(call)
            return PipelinedStep(record, memory, call, x, sigma, boundary)
        return ExactStep(record, memory, call, x, sigma, self.policy.captures(call))

    def _follow(self, memory: Memory, sigma: float, x: Tensor) -> bool:
        """Find the call on the sampler's, as it was when it was tried; False where there is none.

        Calls that were left out are another course: somebody else evaluated them.
        """
        calls = enumerate(memory.matrix.sigmas[self._call :], self._call)
        same = (c for c, s in calls if math.isclose(s, sigma, rel_tol=SAME_SIGMA, abs_tol=1e-9))
        found = next(same, None)
        if found is None or not memory.trajectory.fits(x):
            return False
        if found > self._call:
            self._call = found
            memory.forget()
        return True

    def _step_at(self, sigma: float) -> int | None:
        """The schedule's step that `sigma` is in: the one after the last one, if it can be."""

        def begins(step: int) -> bool:
            levels = self._schedule
            return step < len(levels) - 1 and math.isclose(levels[step], sigma, rel_tol=SAME_SIGMA)

        following = 0 if self._step is None else self._step + 1
        if begins(following):
            return following
        return next((step for step in range(len(self._schedule) - 1) if begins(step)), None)

    def guided(self, denoised: Tensor) -> None:
        """What the sampler gets for the latest evaluation, where that is not the plain guidance."""
        if self._memory is not None and self._asked:
            self._memory.guided(denoised)
        self._asked = False

    def keep_boundary(self, call: int, boundary: Any) -> None:
        """Features at `call`, true or looked ahead."""
        if self._memory is not None:
            self._memory.features.keep(call, boundary)

    def close(self) -> None:
        """The run is over: the last call's measures go to its record."""
        self._measures.read(self._measures.unread(torch.device("cpu")).tolist())

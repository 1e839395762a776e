"""The course of one run: what each evaluation is to be, and what it has shown by then.

A driver asks `begin` at each evaluation of the network, evaluates what the step says, and gives the
results to the step. Tensors stay on their device; the few numbers that the policy needs are read
once an evaluation, at the moment when the latent itself leaves the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from hybrid_core.course import discrepancy
from hybrid_core.course.discrepancy import UNSEEN, Tensor
from hybrid_core.course.policy import COND, FIRST_EXACT, Branch, Known, Policy, Seen
from hybrid_core.course.steps import ExactStep, Memory, PipelinedStep, Step
from hybrid_core.course.trajectory import MEASURES
from hybrid_core.telling.report import StepRecord

SAME_SIGMA = 1e-4  # relative
MULTISTEP = 1.5  # of a prediction counts in dpmpp_2m's step at equal spacing, -0.5 in the next
SEVERAL_CALLS = "this sampler does not evaluate the model once a step"
UNFORESEEN = (
    "the latents of this sampler cannot be foreseen from step to step "
    "(it adds noise, or its steps are too long)"
)


class Course:
    """Decides and remembers. One object a run."""

    def __init__(
        self,
        policy: Policy,
        sigmas: Sequence[float],
        mask: Tensor | None = None,
        look_ahead: bool = True,
        cfg: float | None = None,
    ):
        """sigmas: the sampler's schedule with its end; mask: what is denoised, or None for all.

        cfg: the guidance scale, None where the branches are not joined by it alone.
        """
        self.policy = policy
        self._sigmas, self._mask = list(sigmas), mask
        self._memory = Memory(policy, self._sigmas, mask, look_ahead, cfg)
        self._step: int | None = None
        self._evaluations = self._off_schedule = 0
        self._in_a_row = 0  # evaluations on consecutive steps of the schedule
        self._prompts: Any = ()

    @property
    def obstacle(self) -> str | None:
        """Why most of the run could not be pipelined, whatever the policy."""
        if self._off_schedule > self._evaluations / 4:
            return SEVERAL_CALLS
        return UNFORESEEN if self._memory.trajectory.mostly_unforeseen else None

    def begin(self, x: Tensor, sigma: Tensor, prompts: Any = ()) -> Step:
        """The evaluation at latent `x` (B, ...) and noise level `sigma` (B,).

        prompts: equal while the same prompts hold; others are another course.
        """
        if prompts != self._prompts:
            self._prompts = prompts
            self._forget()
        memory, trajectory = self._memory, self._memory.trajectory
        part = self._mask is not None and not discrepancy.fits(self._mask, x)  # a context window
        surprise = x.new_zeros(MEASURES, dtype=torch.float32) if part else trajectory.surprise(x)
        pending = memory.pending[1] if memory.pending else x.new_zeros(0, dtype=torch.float32)
        numbers = torch.cat([sigma[:1].float(), surprise, pending.to(x.device)]).tolist()
        self._show(numbers[1 + MEASURES :])
        foreseen = trajectory.arrived(numbers[1 : 1 + MEASURES])
        if trajectory.higher_order:
            memory.weigh(MULTISTEP)
        if not self.policy.guided:  # a pipelined step leaves the course by itself
            foreseen = not trajectory.mostly_unforeseen
        followed = self._follow(numbers[0]) and trajectory.follows(x)
        self._evaluations += 1
        if part:
            self._step = None
        record = StepRecord(self._step, numbers[0])
        if self._step is None:
            return Step(record)
        if not followed:
            self._forget()
            self._in_a_row = 1
            trajectory.restart()
        trajectory.keep(x)
        if self._in_a_row >= FIRST_EXACT:
            trajectory.foresee(self._step)
        known = memory.known
        branch = None if known is None else self._chosen(self._step, known, record)
        if known is None or branch is None or not foreseen:
            capture = self.policy.captures(self._step)
            return ExactStep(record, memory, self._step, x, sigma, capture)
        boundary = memory.features.forecast(self._step)
        return PipelinedStep(record, memory, self._step, x, sigma, known, branch, boundary)

    def _forget(self) -> None:
        """Nothing that was seen of the branches holds from here on."""
        self._memory.forget()
        self._in_a_row = 0

    def _chosen(self, step: int, known: Known, record: StepRecord) -> Branch | None:
        """The branch that `step` evaluates in two stages, if there are features for it."""
        branch = self._memory.features.reach(step)
        record.drift = self.policy.drift(step, known, branch or COND)
        if branch is None or self._in_a_row <= FIRST_EXACT:
            return None
        return self.policy.choose(step, known, branch)

    def _follow(self, sigma: float) -> bool:
        """Find the evaluation's step on the schedule. Whether it is the one after the last."""

        def at(step: int) -> bool:
            return (
                step < len(self._sigmas) - 1
                and abs(self._sigmas[step] - sigma) <= SAME_SIGMA * self._sigmas[step]
            )

        if self._step is not None and at(self._step + 1):
            self._step += 1
            self._in_a_row += 1
            return True
        self._off_schedule += self._evaluations > 0
        self._step = next((step for step in range(len(self._sigmas) - 1) if at(step)), None)
        self._in_a_row = 0 if self._step is None else 1
        return False

    def _show(self, numbers: list[float]) -> None:
        """Give the policy what the step before showed."""
        if self._memory.pending is None:
            return
        record, self._memory.pending = self._memory.pending[0], None
        seen = Seen(*(None if number == UNSEEN else number for number in numbers))
        record.discrepancy = seen.discrepancy
        record.guidance_drift, record.feature_drift = seen.guidance_drift, seen.feature_drift
        if record.kind == "pipelined":
            self.policy.saw_pipelined(seen)
        elif record.step is not None:
            self.policy.saw_exact(record.step, seen)

    def keep_boundary(self, step: int, boundary: Any, branch: Branch = COND) -> None:
        """Features at `step` for `branch`, true or looked ahead."""
        self._memory.features.keep(step, boundary, branch)

    def close(self) -> None:
        """The run is over: the last step's measures go to its record."""
        if self._memory.pending is not None:
            self._show(self._memory.pending[1].tolist())

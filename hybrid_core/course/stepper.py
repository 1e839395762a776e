"""The course of one run: what each evaluation is to be, and what the pipelined ones stand in for.

A bridge asks `begin` at each evaluation of the network, evaluates what it is told, and reports with
`saw_exact` or `saw_pipelined`. Tensors stay on their device; the few numbers that the policy needs
are read once an evaluation, at the moment when the latent itself leaves the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from hybrid_core.course import discrepancy
from hybrid_core.course.discrepancy import UNSEEN, Tensor
from hybrid_core.course.features import Features
from hybrid_core.course.guidance import Guidance, unseen
from hybrid_core.course.policy import COND, FIRST_EXACT, UNCOND, Branch, Known, Policy, Seen
from hybrid_core.course.trajectory import MEASURES, Trajectory
from hybrid_core.telling.report import StepRecord

SAME_SIGMA = 1e-4  # relative
MULTISTEP = 1.5  # of a prediction counts in dpmpp_2m's step at equal spacing, -0.5 in the next
SEVERAL_CALLS = "this sampler does not evaluate the model once a step"
UNFORESEEN = (
    "the latents of this sampler cannot be foreseen from step to step "
    "(it adds noise, or its steps are too long)"
)


@dataclass(frozen=True)
class Decision:
    """What one evaluation is to be."""

    branch: Branch | None = None  # to be evaluated in two stages; None for both in full
    capture: bool = False  # an exact step whose boundary may be wanted by the next one


class Ahead(NamedTuple):
    """A branch's stage A at a step that is still to come."""

    branch: Branch
    step: int
    x: Tensor
    sigma: Tensor


class Stepper:
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
        self.records: list[StepRecord] = []
        self._sigmas, self._mask, self._look_ahead = list(sigmas), mask, look_ahead
        self._step: int | None = None
        self._off_schedule = 0  # evaluations
        self._in_a_row = 0  # evaluations on consecutive steps of the schedule
        self._known: Known | None = None
        self._guidance = Guidance(mask)
        self._features = Features(self._sigmas, mask, look_ahead)
        self._trajectory = Trajectory(self._sigmas, mask, cfg)
        self._pending: tuple[StepRecord, Tensor] | None = None
        self._x: Tensor | None = None
        self._sigma: Tensor | None = None

    @property
    def obstacle(self) -> str | None:
        """Why most of the run could not be pipelined, whatever the policy."""
        if self._off_schedule > len(self.records) / 4:
            return SEVERAL_CALLS
        return UNFORESEEN if self._trajectory.mostly_unforeseen else None

    @property
    def record(self) -> StepRecord:
        """Of the evaluation under way."""
        return self.records[-1]

    def begin(self, x: Tensor, sigma: Tensor) -> Decision:
        """Decide the evaluation at latent `x` (B, ...) and noise level `sigma` (B,)."""
        trajectory = self._trajectory
        part = self._mask is not None and not discrepancy.fits(self._mask, x)  # a context window
        surprise = x.new_zeros(MEASURES, dtype=torch.float32) if part else trajectory.surprise(x)
        pending = self._pending[1] if self._pending else x.new_zeros(0, dtype=torch.float32)
        numbers = torch.cat([sigma[:1].float(), surprise, pending.to(x.device)]).tolist()
        self._show(numbers[1 + MEASURES :])
        foreseen = trajectory.arrived(numbers[1 : 1 + MEASURES])
        if trajectory.higher_order:
            self.policy.emphasis = MULTISTEP
        if not self.policy.guided:  # a pipelined step leaves the course by itself
            foreseen = not trajectory.mostly_unforeseen
        self._x, self._sigma = x, sigma
        followed = self._follow(numbers[0]) and trajectory.follows(x)
        if part:
            self._step = None
        self.records.append(StepRecord(self._step, numbers[0]))
        if self._step is None:
            return Decision()
        if not followed:
            self.forget()
            self._in_a_row = 1
            trajectory.restart()
        trajectory.keep(x)
        if self._in_a_row >= FIRST_EXACT:
            trajectory.foresee(self._step)
        branch = self._chosen(self._step)
        if branch is None or not foreseen:
            return Decision(capture=self.policy.captures(self._step))
        self.record.branch = branch
        return Decision(branch)

    def forget(self) -> None:
        """The prompts are others from here on: nothing that was seen of the branches holds."""
        self._guidance, self._known = Guidance(self._mask), None
        self._features = Features(self._sigmas, self._mask, self._look_ahead)
        self._in_a_row = 0

    def _chosen(self, step: int) -> Branch | None:
        """The branch that `step` evaluates in two stages, if there are features for it."""
        if self._known is None:
            return None
        branch = self._features.reach(step)
        self.record.drift = self.policy.drift(step, self._known, branch or COND)
        if branch is None or self._in_a_row <= FIRST_EXACT:
            return None
        return self.policy.choose(step, self._known, branch)

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
        self._off_schedule += bool(self.records)
        self._step = next((step for step in range(len(self._sigmas) - 1) if at(step)), None)
        self._in_a_row = 0 if self._step is None else 1
        return False

    def _show(self, numbers: list[float]) -> None:
        """Give the policy what the step before showed."""
        if self._pending is None:
            return
        record, self._pending = self._pending[0], None
        seen = Seen(*(None if number == UNSEEN else number for number in numbers))
        record.discrepancy = seen.discrepancy
        record.guidance_drift, record.feature_drift = seen.guidance_drift, seen.feature_drift
        if record.kind == "pipelined":
            self.policy.saw_pipelined(seen)
        elif record.step is not None:
            self.policy.saw_exact(record.step, seen)

    def close(self) -> None:
        """The run is over: the last step's measures go to its record."""
        if self._pending is not None:
            self._show(self._pending[1].tolist())

    def saw_exact(self, cond: Tensor, uncond: Tensor | None, boundary: Any = None) -> Tensor | None:
        """An evaluation in full: denoised latents, and the boundary when it was captured.

        Returns what is to be added to both denoised latents, so that this step makes good what
        the pipelined ones before it are now known to have missed. None for nothing.
        """
        assert self._x is not None and self._sigma is not None
        self.record.branch = None
        if self._step is None:
            return None
        self._known = Known.by_exact(self._step)
        shift: Tensor | None = None
        own = discrepancy.prediction(self._x, cond, self._sigma)
        scale = self._scale(cond)
        seen = [unseen(own), unseen(own), self._features.drift(self._step, own, boundary, scale)]
        if uncond is not None:
            other = discrepancy.prediction(self._x, uncond, self._sigma)
            seen[0] = discrepancy.rel_mae(own, other, self._mask)
            shown = self._guidance.saw_both(self._step, own, other, scale)
            shift = self._made_good(shown.missed)
            self._trajectory.guided(self._step, self._x, *shifted(shift, cond, uncond))
            seen = [seen[0], shown.drift, seen[2], shown.bend]
        self._features.predicted(self._step, own)
        if boundary is not None:
            self._features.keep(self._step, boundary)
        self._pending = (self.record, torch.stack(seen))
        return shift

    def _scale(self, denoised: Tensor) -> Tensor:
        return discrepancy.mean(denoised.abs(), self._mask).clamp_min(1e-12)

    def _made_good(self, missed: Tensor | None) -> Tensor | None:
        assert self._step is not None and self._sigma is not None
        return self._trajectory.made_good(self._step, self._sigma, missed)

    def keep_boundary(self, step: int, boundary: Any, branch: Branch = COND) -> None:
        """A boundary at `step` for `branch`, true or looked ahead."""
        self._features.keep(step, boundary, branch)

    def forecast(self) -> Any | None:
        """The boundary for this step, None when there is none."""
        return None if self._step is None else self._features.forecast(self._step)

    def ahead(self) -> Ahead | None:
        """What stage A of the next step is to be evaluated at.

        None when the next step is not going to be pipelined. Without look-ahead it is this step's
        own latent, as the paper has it.
        """
        assert self._step is not None and self._x is not None and self._sigma is not None
        step, now = self._step + 1, self.record.branch
        if step >= len(self._sigmas) - 1 or self._known is None or now is None:
            return None
        branch = self.policy.choose(step, self._known.by(now, self._step))
        if branch is None:
            return None
        expected = self._trajectory.expected
        if not self._look_ahead or expected is None:
            return Ahead(branch, step, self._x, self._sigma)
        return Ahead(branch, step, expected, torch.full_like(self._sigma, self._sigmas[step]))

    def saw_pipelined(self, result: Tensor) -> tuple[Tensor, Tensor]:
        """The cond and uncond denoised latents; this step evaluated one, `result`, in two stages.

        `result` itself is among them unless something is made good.
        """
        assert self._x is not None and self._sigma is not None and self._step is not None
        step, branch, known = self._step, self.record.branch, self._known
        assert branch is not None and known is not None
        self._known = known.by(branch, step)
        self.record.kind = "pipelined"
        own = discrepancy.prediction(self._x, result, self._sigma)
        if branch == COND:
            self._features.predicted(step, own)
        if not self.policy.guided or not self._guidance.known:
            return result, result
        joins = known.joins(branch, step)
        shown = self._guidance.saw_one(step, branch, own, self._scale(result), joins)
        shift = self._made_good(shown.missed)
        self._pending = (
            self.record,
            torch.stack([unseen(own), shown.drift, unseen(own), shown.bend]),
        )
        length = self._sigmas[step + 1] - self._sigmas[step]
        self._guidance.used(step, length * self._trajectory.weight(branch == UNCOND))
        other = self._guidance.other(step, branch, own)
        rebuilt = result + (own - other) * discrepancy.spread(self._sigma, result)
        pair = (result, rebuilt) if branch == COND else (rebuilt, result)
        cond, uncond = shifted(shift, *pair)
        self._trajectory.guided(step, self._x, cond, uncond)
        return cond, uncond


def shifted(shift: Tensor | None, cond: Tensor, uncond: Tensor) -> tuple[Tensor, Tensor]:
    return (cond, uncond) if shift is None else (cond + shift, uncond + shift)

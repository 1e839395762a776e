"""The course of one run: what each evaluation is to be, and what the pipelined ones stand in for.

A bridge asks `begin` at each evaluation of the network, evaluates what it is told, and reports with
`saw_exact` or `saw_pipelined`. Tensors stay on their device; the few numbers that the policy needs
are read once an evaluation, at the moment when the latent itself leaves the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from hybrid_core import discrepancy
from hybrid_core.discrepancy import Tensor
from hybrid_core.policy import FIRST_EXACT, Policy, Seen
from hybrid_core.stages.swap import mapped, tensors

SAME_SIGMA = 1e-4  # relative
UNEXPECTED_STEP = 0.5  # of a step's length; noise gives 1 and more, deterministic steps 0.02-0.4
MADE_GOOD_BEFORE = 4  # entries of the schedule's end: not in the last two steps
FIRST_ORDER = 0.02  # of a step's length: how far from Euler's step a first-order sampler's may be
UNSEEN = -1.0  # in place of a measure that an exact step did not give
SEVERAL_CALLS = "this sampler does not evaluate the model once a step"
UNFORESEEN = (
    "the latents of this sampler cannot be foreseen from step to step "
    "(it adds noise, or its steps are too long)"
)


@dataclass
class StepRecord:
    """One evaluation, for the report; None where nothing was measured."""

    step: int | None
    sigma: float
    kind: str = "exact"
    discrepancy: float | None = None
    guidance_drift: float | None = None
    feature_drift: float | None = None


@dataclass(frozen=True)
class Decision:
    """What one evaluation is to be."""

    pipelined: bool
    capture: bool = False  # an exact step whose boundary may be wanted by the next one


@dataclass
class _Past:
    """The latest evaluations on the schedule, newest last."""

    x: list[Tensor] = field(default_factory=list)
    boundaries: list[tuple[int, Any]] = field(default_factory=list)
    differences: list[tuple[int, Tensor]] = field(default_factory=list)  # cond - uncond
    prediction: tuple[int, Tensor] | None = None


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
        self._off_schedule = self._unforeseen = 0  # evaluations
        self._in_a_row = 0  # evaluations on consecutive steps of the schedule
        self._gap = 0  # pipelined steps since the last exact one
        self._past = _Past()
        self._expected_x: Tensor | None = None
        self._share: Tensor | None = None  # of the difference's slope that goes on
        self._feature_share: Tensor | None = None  # of the boundary's
        self._cfg = cfg
        self._debt = 0.0  # sum over a gap's steps of length * (steps since the exact one)**2
        self._euler_x: Tensor | None = None  # where Euler's step would lead
        self._first_order = False  # whether the sampler's latest step was Euler's
        self._pending: tuple[StepRecord, Tensor] | None = None
        self._x: Tensor | None = None
        self._sigma: Tensor | None = None

    @property
    def obstacle(self) -> str | None:
        """Why most of the run could not be pipelined, whatever the policy."""
        most = len(self.records) / 2
        if self._off_schedule > most / 2:
            return SEVERAL_CALLS
        return UNFORESEEN if self._unforeseen > most else None

    @property
    def record(self) -> StepRecord:
        """Of the evaluation under way."""
        return self.records[-1]

    def begin(self, x: Tensor, sigma: Tensor) -> Decision:
        """Decide the evaluation at latent `x` (B, ...) and noise level `sigma` (B,)."""
        surprise = self._surprise(x)
        pending = self._pending[1] if self._pending else x.new_zeros(0, dtype=torch.float32)
        numbers = torch.cat([sigma[:1].float(), surprise, pending.to(x.device)]).tolist()
        self._show(numbers[4:])
        euler = self._euler_x is not None and numbers[3] <= FIRST_ORDER * numbers[2]
        self._first_order = euler
        self._x, self._sigma = x, sigma
        followed = self._follow(numbers[0])
        self.records.append(StepRecord(self._step, numbers[0]))
        noisy = not numbers[1] <= UNEXPECTED_STEP * numbers[2]
        self._unforeseen += noisy
        if not self.policy.guided:  # a pipelined step leaves the course by itself
            noisy = self._unforeseen > len(self.records) / 2
        self._expected_x = self._euler_x = None
        if self._step is None:
            return Decision(False)
        if not followed:
            self._past = _Past()
        self._past.x = [*self._past.x[-1:], x]
        if self._in_a_row >= FIRST_EXACT:
            self._expected_x = self._next_x()
        can = self._in_a_row > FIRST_EXACT and not noisy and self._has_boundary()
        if can and self.policy.pipelined(self._step, self._gap):
            return Decision(True)
        return Decision(False, capture=self.policy.captures(self._step))

    def _surprise(self, x: Tensor) -> Tensor:
        """mean|x - .| of the expected x, the x before, and Euler's; zeros where there is none."""
        before, measures = self._past.x[-1] if self._past.x else None, []
        for other in (self._expected_x, before, self._euler_x):
            if other is None or other.shape != x.shape:
                measures.append(x.new_zeros((), dtype=torch.float32))
            else:
                measures.append(discrepancy.mean((x - other).abs(), self._mask))
        return torch.stack(measures)

    def _expect_euler(self, cond: Tensor, uncond: Tensor) -> None:
        """Remember where Euler's step leads with these denoised latents."""
        assert self._x is not None and self._step is not None
        if self._cfg is not None:
            guided = uncond + (cond - uncond) * self._cfg
            ratio = self._sigmas[self._step + 1] / self._sigmas[self._step]
            self._euler_x = guided + (self._x - guided) * ratio

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
        """Give the policy what the exact step before showed."""
        if self._pending is None:
            return
        record, self._pending = self._pending[0], None
        seen = Seen(*(None if number == UNSEEN else number for number in numbers))
        record.discrepancy = seen.discrepancy
        record.guidance_drift, record.feature_drift = seen.guidance_drift, seen.feature_drift
        if record.step is not None:
            self.policy.saw_exact(record.step, seen)

    def close(self) -> None:
        """The run is over: the last exact step's measures go to its record."""
        if self._pending is not None:
            self._show(self._pending[1].tolist())

    def _has_boundary(self) -> bool:
        assert self._step is not None
        return bool(self._past.boundaries) and self._past.boundaries[-1][0] >= self._step - 1

    def saw_exact(self, cond: Tensor, uncond: Tensor | None, boundary: Any = None) -> Tensor | None:
        """An evaluation in full: denoised latents, and the boundary when it was captured.

        Returns what is to be added to both denoised latents, so that this step makes good what
        the pipelined ones before it are now known to have missed. None for nothing.
        """
        assert self._x is not None and self._sigma is not None
        self._gap = 0
        debt, self._debt = self._debt, 0.0
        if self._step is None:
            return None
        shift: Tensor | None = None
        own = discrepancy.prediction(self._x, cond, self._sigma)
        scale = discrepancy.mean(cond.abs(), self._mask).clamp_min(1e-12)
        unseen = own.new_full((), UNSEEN, dtype=torch.float32)
        seen = [unseen, unseen, self._feature_drift(own, boundary, scale)]
        if uncond is not None:
            other = discrepancy.prediction(self._x, uncond, self._sigma)
            seen[0] = discrepancy.rel_mae(own, other, self._mask)
            shift = self._repayment(debt, own - other)
            paid = 0.0 if shift is None else shift
            self._expect_euler(cond + paid, uncond + paid)
            seen[1] = self._learn_difference(own - other, scale)
        self._keep_prediction(own)
        if boundary is not None:
            self.keep_boundary(self._step, boundary)
        self._pending = (self.record, torch.stack(seen))
        return shift

    def _repayment(self, debt: float, new: Tensor) -> Tensor | None:
        """What to add to the denoised latents, now that the difference is known to be `new`.

        The difference is taken to have left its expected course like the square of the steps since
        the last exact one. Euler's step of length h adds h * (prediction) to the latent; what the
        gap's steps should have added and did not is divided by this step's h. Not with samplers of
        higher order, which would take it for a change of course, and not at the run's end, where
        the difference rises steeply within a step.
        """
        assert self._step is not None and self._sigma is not None
        if not self._first_order or debt == 0 or self._step + MADE_GOOD_BEFORE >= len(self._sigmas):
            return None
        assert self._cfg is not None
        gap = self._step - self._past.differences[-1][0]
        missed = (new - self._difference(self._step)) * (debt / gap**2 * (self._cfg - 1.0))
        self._past.x[-1] = self._past.x[-1] + missed  # the course that later steps go on from
        if self._expected_x is not None:
            self._expected_x = self._expected_x + missed
        length = self._sigmas[self._step + 1] - self._sigmas[self._step]
        return missed * (-self._sigma / length).reshape(-1, *[1] * (missed.ndim - 1)).to(missed)

    def _learn_difference(self, new: Tensor, scale: Tensor) -> Tensor:
        """Drift a step from what was expected, by `scale`; now `new` is what is expected."""
        known, step = self._past.differences, self._step
        assert step is not None
        drift = new.new_full((), UNSEEN, dtype=torch.float32)
        if known:
            gap = step - known[-1][0]
            missed = discrepancy.mean((new - self._difference(step)).abs(), self._mask)
            drift = missed / (gap * scale)
            if len(known) > 1:
                slope = self._slope() * gap
                self._share = discrepancy.projection([new - known[-1][1]], [slope])
        self._past.differences = [*known[-1:], (step, new)]
        return drift

    def _slope(self) -> Tensor:
        (a, first), (b, second) = self._past.differences
        return (second - first) / (b - a)

    def _difference(self, step: int) -> Tensor:
        """cond - uncond as expected at `step`: held, or continued as far as that was right."""
        at, known = self._past.differences[-1]
        if len(self._past.differences) < 2 or self._share is None:
            return known
        return known + self._slope() * (self._share.to(known) * (step - at))

    def _feature_drift(self, own: Tensor, boundary: Any, scale: Tensor) -> Tensor:
        """What the error of a boundary from before changes in the prediction, by `scale`.

        The prediction's change over the last step, times the share of the boundary's change that
        its forecast misses.
        """
        unseen = own.new_full((), UNSEEN, dtype=torch.float32)
        forecast = self.forecast()
        if boundary is None or forecast is None or self._past.prediction is None:
            return unseen
        (before, old), (at, known) = self._past.prediction, self._past.boundaries[-1]
        if not before == at == (self._step or 0) - 1 or structure(known) != structure(boundary):
            return unseen
        missed = discrepancy.difference(tensors(boundary), tensors(forecast))
        slopes = self._feature_slopes()
        if slopes is not None:
            changes = [a - b for a, b in zip(tensors(boundary), tensors(known), strict=True)]
            self._feature_share = discrepancy.projection(changes, slopes)
        moved = discrepancy.difference(tensors(boundary), tensors(known))
        change = discrepancy.mean((own - old).abs(), self._mask) / scale
        return torch.where(moved > 0, change * missed / moved.clamp_min(1e-30), moved)

    def _keep_prediction(self, own: Tensor) -> None:
        assert self._step is not None
        self._past.prediction = (self._step, own)

    def keep_boundary(self, step: int, boundary: Any) -> None:
        """A boundary at `step`, true or looked ahead."""
        self._past.boundaries = [*self._past.boundaries[-1:], (step, boundary)]

    def forecast(self) -> Any | None:
        """The boundary for this step: received for it, or the last one, continued where that helps.

        None when there is none of this step or the one before.
        """
        known, step = self._past.boundaries, self._step
        if not known or step is None or known[-1][0] < step - 1:
            return None
        at, last = known[-1]
        slopes = None if at == step or not self._look_ahead else self._feature_slopes()
        if slopes is None or self._feature_share is None:
            return last
        share, left = self._feature_share, iter(slopes)
        return mapped(last, lambda tensor: tensor + next(left) * share.to(tensor))

    def _feature_slopes(self) -> list[Tensor] | None:
        """What the boundary's latest change makes of this step's, tensor by tensor."""
        if len(self._past.boundaries) < 2:
            return None
        (before, first), (at, last) = self._past.boundaries
        if before != at - 1 or self._step != at + 1 or structure(first) != structure(last):
            return None
        sigma = self._sigmas
        factor = (sigma[at + 1] - sigma[at]) / (sigma[at] - sigma[before])
        return [(b - a) * factor for a, b in zip(tensors(first), tensors(last), strict=True)]

    def ahead(self) -> tuple[Tensor, Tensor, int] | None:
        """Where the next step's stage A is to be evaluated: latent, sigma, its step.

        None when the next step is not going to be pipelined. Without look-ahead it is this step's
        own latent, as the paper has it.
        """
        assert self._step is not None and self._x is not None and self._sigma is not None
        step = self._step + 1
        if step >= len(self._sigmas) - 1 or not self.policy.pipelined(step, self._gap + 1):
            return None
        if not self._look_ahead or self._expected_x is None:
            return self._x, self._sigma, step
        return self._expected_x, torch.full_like(self._sigma, self._sigmas[step]), step

    def _next_x(self) -> Tensor | None:
        """The next step's latent if the sampler goes on as it did: a first-order step."""
        assert self._step is not None
        sigma, step = self._sigmas, self._step
        if len(self._past.x) < 2 or step + 1 >= len(sigma):
            return None
        before, now = self._past.x
        if before.shape != now.shape or sigma[step] == sigma[step - 1]:
            return None
        share = (sigma[step + 1] - sigma[step]) / (sigma[step] - sigma[step - 1])
        return now + (now - before) * share

    def saw_pipelined(self, cond: Tensor) -> Tensor:
        """The uncond branch's denoised latent that goes with a pipelined `cond`."""
        assert self._x is not None and self._sigma is not None and self._step is not None
        self._gap += 1
        self.record.kind = "pipelined"
        self._keep_prediction(discrepancy.prediction(self._x, cond, self._sigma))
        if not self.policy.guided or not self._past.differences:
            return cond
        difference = self._difference(self._step)
        length = self._sigmas[self._step + 1] - self._sigmas[self._step]
        self._debt += length * (self._step - self._past.differences[-1][0]) ** 2
        uncond = cond + difference * self._sigma.reshape(-1, *[1] * (cond.ndim - 1)).to(cond)
        self._expect_euler(cond, uncond)
        return uncond


def structure(boundary: Any) -> list[tuple[Any, ...]]:
    return [(tensor.shape, tensor.dtype) for tensor in tensors(boundary)]

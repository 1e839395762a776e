"""The course of one run: what each evaluation is to be, and what the pipelined ones stand in for.

A bridge asks `begin` at each evaluation of the network, evaluates what it is told, and reports with
`saw_exact` or `saw_pipelined`. Tensors stay on their device; the few numbers that the policy needs
are read once an evaluation, at the moment when the latent itself leaves the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hybrid_core import discrepancy
from hybrid_core.discrepancy import UNSEEN, Tensor
from hybrid_core.features import Features
from hybrid_core.guidance import Difference
from hybrid_core.policy import FIRST_EXACT, Policy, Seen
from hybrid_core.report import StepRecord

SAME_SIGMA = 1e-4  # relative
UNEXPECTED_STEP = 0.5  # of a step's length; noise gives 1 and more, deterministic steps 0.02-0.4
MADE_GOOD_BEFORE = 4  # entries of the schedule's end: not in the last two steps
FIRST_ORDER = 0.02  # of a step's length: how far from Euler's step a first-order sampler's may be
SEVERAL_CALLS = "this sampler does not evaluate the model once a step"
UNFORESEEN = (
    "the latents of this sampler cannot be foreseen from step to step "
    "(it adds noise, or its steps are too long)"
)


@dataclass(frozen=True)
class Decision:
    """What one evaluation is to be."""

    pipelined: bool
    capture: bool = False  # an exact step whose boundary may be wanted by the next one


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
        self._off_schedule = self._expected = self._unforeseen = 0  # evaluations
        self._in_a_row = 0  # evaluations on consecutive steps of the schedule
        self._gap = 0  # pipelined steps since the last exact one
        self._difference = Difference(mask)
        self._features = Features(self._sigmas, mask, look_ahead)
        self._latents: list[Tensor] = []  # of the two latest steps
        self._expected_x: Tensor | None = None
        self._cfg = cfg
        self._euler_x: Tensor | None = None  # where Euler's step would lead
        self._first_order = False  # whether the sampler's latest step was Euler's
        self._pending: tuple[StepRecord, Tensor] | None = None
        self._x: Tensor | None = None
        self._sigma: Tensor | None = None

    @property
    def obstacle(self) -> str | None:
        """Why most of the run could not be pipelined, whatever the policy."""
        if self._off_schedule > len(self.records) / 4:
            return SEVERAL_CALLS
        return UNFORESEEN if self._mostly_unforeseen else None

    @property
    def _mostly_unforeseen(self) -> bool:
        return self._unforeseen > self._expected / 2

    @property
    def record(self) -> StepRecord:
        """Of the evaluation under way."""
        return self.records[-1]

    def begin(self, x: Tensor, sigma: Tensor) -> Decision:
        """Decide the evaluation at latent `x` (B, ...) and noise level `sigma` (B,)."""
        part = self._mask is not None and not discrepancy.fits(self._mask, x)  # a context window
        surprise = x.new_zeros(3, dtype=torch.float32) if part else self._surprise(x)
        pending = self._pending[1] if self._pending else x.new_zeros(0, dtype=torch.float32)
        numbers = torch.cat([sigma[:1].float(), surprise, pending.to(x.device)]).tolist()
        self._show(numbers[4:])
        euler = self._euler_x is not None and numbers[3] <= FIRST_ORDER * numbers[2]
        self._first_order = euler
        self._x, self._sigma = x, sigma
        followed = self._follow(numbers[0])
        if self._latents and self._latents[-1].shape != x.shape:
            followed = False
        if part:
            self._step = None
        self.records.append(StepRecord(self._step, numbers[0]))
        noisy = not numbers[1] <= UNEXPECTED_STEP * numbers[2]
        self._expected += self._expected_x is not None
        self._unforeseen += noisy
        if not self.policy.guided:  # a pipelined step leaves the course by itself
            noisy = self._mostly_unforeseen
        self._expected_x = self._euler_x = None
        if self._step is None:
            return Decision(False)
        if not followed:
            self._difference, self._latents = Difference(self._mask), []
            self._features = Features(self._sigmas, self._mask, self._look_ahead)
        self._latents = [*self._latents[-1:], x]
        if self._in_a_row >= FIRST_EXACT:
            self._expected_x = self._next_x()
        self.record.drift = self.policy.drift(self._step, self._gap)
        can = self._in_a_row > FIRST_EXACT and not noisy and self._features.reach(self._step)
        if can and self.policy.pipelined(self._step, self._gap):
            return Decision(True)
        return Decision(False, capture=self.policy.captures(self._step))

    def _surprise(self, x: Tensor) -> Tensor:
        """mean|x - .| of the expected x, the x before, and Euler's; zeros where there is none."""
        before, measures = self._latents[-1] if self._latents else None, []
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

    def saw_exact(self, cond: Tensor, uncond: Tensor | None, boundary: Any = None) -> Tensor | None:
        """An evaluation in full: denoised latents, and the boundary when it was captured.

        Returns what is to be added to both denoised latents, so that this step makes good what
        the pipelined ones before it are now known to have missed. None for nothing.
        """
        assert self._x is not None and self._sigma is not None
        self._gap = 0
        if self._step is None:
            return None
        shift: Tensor | None = None
        own = discrepancy.prediction(self._x, cond, self._sigma)
        scale = discrepancy.mean(cond.abs(), self._mask).clamp_min(1e-12)
        unseen = own.new_full((), UNSEEN, dtype=torch.float32)
        seen = [unseen, unseen, self._features.drift(self._step, own, boundary, scale)]
        if uncond is not None:
            other = discrepancy.prediction(self._x, uncond, self._sigma)
            seen[0] = discrepancy.rel_mae(own, other, self._mask)
            missed = self._difference.missed(self._step, own - other)
            shift = None if missed is None else self._made_good(missed)
            paid = 0.0 if shift is None else shift
            self._expect_euler(cond + paid, uncond + paid)
            seen[1] = self._difference.learn(self._step, own - other, scale)
        self._features.predicted(self._step, own)
        if boundary is not None:
            self._features.keep(self._step, boundary)
        self._pending = (self.record, torch.stack(seen))
        return shift

    def _made_good(self, missed: Tensor) -> Tensor | None:
        """What to add to the denoised latents for what a gap has missed.

        Euler's step of length h adds h * (prediction) to the latent, so what should have been added
        is divided by this step's h. Not with samplers of higher order, which would take it for a
        change of course, and not at the run's end, where the difference rises within a step.
        """
        assert self._step is not None and self._sigma is not None
        if not self._first_order or self._step + MADE_GOOD_BEFORE >= len(self._sigmas):
            return None
        assert self._cfg is not None
        missed = missed * (self._cfg - 1.0)
        self._latents[-1] = self._latents[-1] + missed  # the course that later steps go on from
        if self._expected_x is not None:
            self._expected_x = self._expected_x + missed
        factor = (-self._sigma / self._length()).reshape(-1, *[1] * (missed.ndim - 1))
        return missed * factor.to(missed)

    def _length(self) -> float:
        assert self._step is not None
        return self._sigmas[self._step + 1] - self._sigmas[self._step]

    def keep_boundary(self, step: int, boundary: Any) -> None:
        """A boundary at `step`, true or looked ahead."""
        self._features.keep(step, boundary)

    def forecast(self) -> Any | None:
        """The boundary for this step, None when there is none."""
        return None if self._step is None else self._features.forecast(self._step)

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
        if len(self._latents) < 2 or step + 1 >= len(sigma):
            return None
        before, now = self._latents
        if before.shape != now.shape or sigma[step] == sigma[step - 1]:
            return None
        share = (sigma[step + 1] - sigma[step]) / (sigma[step] - sigma[step - 1])
        return now + (now - before) * share

    def saw_pipelined(self, cond: Tensor) -> Tensor:
        """The uncond branch's denoised latent that goes with a pipelined `cond`."""
        assert self._x is not None and self._sigma is not None and self._step is not None
        self._gap += 1
        self.record.kind = "pipelined"
        own = discrepancy.prediction(self._x, cond, self._sigma)
        self._features.predicted(self._step, own)
        if not self.policy.guided or not self._difference.known:
            return cond
        self._difference.used(self._step, self._length())
        difference = self._difference.expected(self._step)
        uncond = cond + difference * self._sigma.reshape(-1, *[1] * (cond.ndim - 1)).to(cond)
        self._expect_euler(cond, uncond)
        return uncond

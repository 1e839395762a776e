"""What one evaluation is to be, and what its result teaches. A step lives for that evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import torch

from hybrid_core.course import discrepancy
from hybrid_core.course.discrepancy import Tensor
from hybrid_core.course.features import Features
from hybrid_core.course.guidance import Guidance, unseen
from hybrid_core.course.policy import COND, UNCOND, Branch, Known, Policy
from hybrid_core.course.trajectory import Trajectory
from hybrid_core.telling.report import StepRecord


class Ahead(NamedTuple):
    """A branch's stage A at a step that is still to come."""

    branch: Branch
    step: int
    x: Tensor
    sigma: Tensor


class Memory:
    """What a run's steps have shown until now."""

    def __init__(
        self,
        policy: Policy,
        sigmas: Sequence[float],
        mask: Tensor | None,
        look_ahead: bool,
        cfg: float | None,
    ):
        self.policy, self.sigmas, self.mask, self.look_ahead = policy, sigmas, mask, look_ahead
        self.trajectory = Trajectory(sigmas, mask, cfg)
        self.pending: tuple[StepRecord, Tensor] | None = None  # measures that are not read yet
        self.emphasis = 1.0  # how often the sampler's step counts one prediction; Euler's: once
        self.forget()

    def forget(self) -> None:
        """The prompts, or the course, are others from here on."""
        self.guidance = Guidance(self.mask)
        self.features = Features(self.sigmas, self.mask, self.look_ahead)
        self.known: Known | None = None

    def weigh(self, emphasis: float) -> None:
        self.emphasis = emphasis
        if self.known is not None:
            self.known = replace(self.known, emphasis=emphasis)


class Step:
    """An evaluation in full that is not on the schedule: nothing is learned from it."""

    capture = False  # whether the features at the cut are of use
    ahead: Ahead | None = None  # what is to be made ahead beside it

    def __init__(self, record: StepRecord):
        self.record = record

    @classmethod
    def aside(cls) -> Step:
        """Of branches that are not the run's own, as PAG and its kin ask for."""
        return cls(StepRecord())

    def in_full(self) -> Step:
        """The same evaluation with every branch in full."""
        return self

    def finish(self, cond: Tensor, uncond: Tensor | None, boundary: Any = None) -> Tensor | None:
        """Denoised latents, and the features at the cut where they were captured.

        Returns what is to be added to both, None for nothing.
        """
        return None


class OnSchedule(Step):
    """What the steps of a schedule have in common."""

    def __init__(self, record: StepRecord, memory: Memory, step: int, x: Tensor, sigma: Tensor):
        super().__init__(record)
        self._memory, self._step, self._x, self._sigma = memory, step, x, sigma

    def _prediction(self, denoised: Tensor) -> Tensor:
        return discrepancy.prediction(self._x, denoised, self._sigma)

    def _scale(self, denoised: Tensor) -> Tensor:
        return discrepancy.mean(denoised.abs(), self._memory.mask).clamp_min(1e-12)

    def _made_good(self, missed: Tensor | None) -> Tensor | None:
        return self._memory.trajectory.made_good(self._step, self._sigma, missed)

    def _arrives(self, cond: Tensor, uncond: Tensor) -> None:
        """Remember where this step leads."""
        self._memory.trajectory.guided(self._step, self._x, cond, uncond)


class ExactStep(OnSchedule):
    """Every branch in full."""

    def __init__(
        self,
        record: StepRecord,
        memory: Memory,
        step: int,
        x: Tensor,
        sigma: Tensor,
        capture: bool,
    ):
        super().__init__(record, memory, step, x, sigma)
        self.capture = capture

    def finish(self, cond: Tensor, uncond: Tensor | None, boundary: Any = None) -> Tensor | None:
        """As Step's; what is to be added makes good what the steps before are known to miss."""
        memory, step = self._memory, self._step
        memory.known = Known.by_exact(step, memory.emphasis, either=uncond is not None)
        shift: Tensor | None = None
        own, scale = self._prediction(cond), self._scale(cond)
        seen = [unseen(own), unseen(own), memory.features.drift(step, own, boundary, scale)]
        if uncond is not None:
            other = self._prediction(uncond)
            seen[0] = discrepancy.rel_mae(own, other, memory.mask)
            shown = memory.guidance.saw_both(step, own, other, scale)
            shift = self._made_good(shown.missed)
            self._arrives(*shifted(shift, cond, uncond))
            seen = [seen[0], shown.drift, seen[2], shown.bend]
        memory.features.predicted(step, own)
        if boundary is not None:
            memory.features.keep(step, boundary)
        memory.pending = (self.record, torch.stack(seen))
        return shift


class PipelinedStep(OnSchedule):
    """One branch in two stages, the second one on features made ahead; the other one rebuilt."""

    def __init__(
        self,
        record: StepRecord,
        memory: Memory,
        step: int,
        x: Tensor,
        sigma: Tensor,
        known: Known,
        branch: Branch,
        boundary: Any,
    ):
        """boundary: the features that stage B goes on from."""
        super().__init__(record, memory, step, x, sigma)
        self.branch, self.boundary, self._known = branch, boundary, known
        record.branch = branch

    def in_full(self) -> Step:
        self.record.branch = None
        return ExactStep(self.record, self._memory, self._step, self._x, self._sigma, capture=False)

    @cached_property
    def ahead(self) -> Ahead | None:  # type: ignore[override]
        """What stage A of the next step is to be evaluated at.

        None when the next step is not going to be pipelined. Without look-ahead it is this step's
        own latent, as the paper has it.
        """
        memory, step = self._memory, self._step + 1
        if step >= len(memory.sigmas) - 1:
            return None
        branch = memory.policy.choose(step, self._known.by(self.branch, self._step))
        if branch is None:
            return None
        expected = memory.trajectory.expected
        if not memory.look_ahead or expected is None:
            return Ahead(branch, step, self._x, self._sigma)
        return Ahead(branch, step, expected, torch.full_like(self._sigma, memory.sigmas[step]))

    def both(self, result: Tensor) -> tuple[Tensor, Tensor]:
        """The cond and uncond denoised latents, from the one that was evaluated.

        `result` itself is among them unless something is made good.
        """
        memory, step, branch = self._memory, self._step, self.branch
        memory.known = self._known.by(branch, step)
        self.record.kind = "pipelined"
        own = self._prediction(result)
        if branch == COND:
            memory.features.predicted(step, own)
        if not memory.policy.guided or not memory.guidance.known:
            return result, result
        joins = self._known.joins(branch, step)
        shown = memory.guidance.saw_one(step, branch, own, self._scale(result), joins)
        shift = self._made_good(shown.missed)
        seen = [unseen(own), shown.drift, unseen(own), shown.bend]
        memory.pending = (self.record, torch.stack(seen))
        length = memory.sigmas[step + 1] - memory.sigmas[step]
        memory.guidance.used(step, length * memory.trajectory.weight(branch == UNCOND))
        other = memory.guidance.other(step, branch, own)
        rebuilt = result + (own - other) * discrepancy.spread(self._sigma, result)
        pair = (result, rebuilt) if branch == COND else (rebuilt, result)
        cond, uncond = shifted(shift, *pair)
        self._arrives(cond, uncond)
        return cond, uncond


def shifted(shift: Tensor | None, cond: Tensor, uncond: Tensor) -> tuple[Tensor, Tensor]:
    return (cond, uncond) if shift is None else (cond + shift, uncond + shift)

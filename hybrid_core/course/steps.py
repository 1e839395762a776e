"""What one evaluation is to be, and what its result teaches. A step lives for that evaluation."""

from __future__ import annotations

import copy
from functools import cached_property
from typing import Any, NamedTuple

import torch

from hybrid_core.course import discrepancy
from hybrid_core.course.discrepancy import Tensor
from hybrid_core.course.measures import Measures
from hybrid_core.course.memory import Memory, shifted
from hybrid_core.course.policy import EXACT, FORECAST, PIPELINED
from hybrid_core.telling.report import StepRecord

MOST_AHEAD = 3  # calls


class Ahead(NamedTuple):
    """Stage A at a call that is still to come."""

    call: int
    x: Tensor
    sigma: Tensor


class Step:
    """An evaluation in full that is not on the course: nothing is learned from it."""

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


class MeasuredStep(Step):
    """Every branch in full, of a run that is exact: the discrepancy is measured, for the plot."""

    def __init__(
        self,
        record: StepRecord,
        measures: Measures,
        mask: Tensor | None,
        call: int,
        x: Tensor,
        sigma: Tensor,
    ):
        super().__init__(record)
        self._measures, self._mask, self._call = measures, mask, call
        self._x, self._sigma = x, sigma

    def finish(self, cond: Tensor, uncond: Tensor | None, boundary: Any = None) -> Tensor | None:
        if uncond is not None:
            own, other = (
                discrepancy.prediction(self._x, one, self._sigma) for one in (cond, uncond)
            )
            apart = discrepancy.rel_mae(own, other, self._mask)
            self._measures.keep(self.record, self._call, discrepancy=apart)
        return None


class OnCourse(Step):
    """What the calls of a run have in common."""

    def __init__(self, record: StepRecord, memory: Memory, call: int, x: Tensor, sigma: Tensor):
        super().__init__(record)
        self._memory, self._call, self._x, self._sigma = memory, call, x, sigma

    def _prediction(self, denoised: Tensor) -> Tensor:
        return discrepancy.prediction(self._x, denoised, self._sigma)

    def _denoised(self, prediction: Tensor) -> Tensor:
        return self._x - prediction * discrepancy.spread(self._sigma, self._x)

    def _other(self, own: Tensor) -> Tensor | None:
        """The uncond denoised latent to go with the cond prediction `own`."""
        memory = self._memory
        if memory.difference.at is None:
            return None
        return self._denoised(own - memory.expected_difference(self._call))

    def _given(self, cond: Tensor, uncond: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return shifted(self._memory.given(self._call, cond, uncond), cond, uncond)


class ExactStep(OnCourse):
    """Every branch in full."""

    def __init__(
        self,
        record: StepRecord,
        memory: Memory,
        call: int,
        x: Tensor,
        sigma: Tensor,
        capture: bool,
    ):
        super().__init__(record, memory, call, x, sigma)
        self.capture = capture

    def finish(self, cond: Tensor, uncond: Tensor | None, boundary: Any = None) -> Tensor | None:
        """As Step's; what is to be added makes good what the calls before are known to miss."""
        memory, call = self._memory, self._call
        memory.policy.did(call, EXACT, None)
        own, scale = self._prediction(cond), memory.scale(cond)
        features = memory.features.drift(call, own, boundary, scale)
        memory.features.predicted(call, own)
        if boundary is not None:
            memory.features.keep(call, boundary)
        seen = {"own_drift": memory.saw_cond(call, own, scale), "feature_drift": features}
        if uncond is not None:
            other = self._prediction(uncond)
            seen["discrepancy"] = discrepancy.rel_mae(own, other, memory.mask)
            seen["guidance_drift"] = memory.saw_difference(call, own - other, scale)
        memory.measures.keep(self.record, call, **seen)
        return memory.given(call, cond, uncond)


class PipelinedStep(OnCourse):
    """The cond branch in two stages, the second on features made ahead; the other one rebuilt."""

    def __init__(
        self,
        record: StepRecord,
        memory: Memory,
        call: int,
        x: Tensor,
        sigma: Tensor,
        boundary: Any,
    ):
        """boundary: the features that stage B goes on from."""
        super().__init__(record, memory, call, x, sigma)
        self.boundary = boundary

    def in_full(self) -> Step:
        return ExactStep(self.record, self._memory, self._call, self._x, self._sigma, capture=False)

    @cached_property
    def ahead(self) -> Ahead | None:  # type: ignore[override]
        """What stage A of the next pipelined call is to be evaluated at.

        None when the next call that evaluates anything is going to be exact. Without look-ahead it
        is this call's own latent, as the paper has it.
        """
        memory = self._memory
        policy = copy.copy(memory.policy)
        policy.did(self._call, PIPELINED, self.record.drift)
        for call in range(self._call + 1, min(self._call + 1 + MOST_AHEAD, memory.matrix.calls)):
            kind, drift = policy.choose(call, features=True)
            if kind == PIPELINED:
                return self._at(call)
            if kind == EXACT:
                return None
            policy.did(call, kind, drift)
        return None

    def _at(self, call: int) -> Ahead:
        memory = self._memory
        x = memory.latent_ahead(call) if memory.look_ahead else None
        if x is None:
            return Ahead(call, self._x, self._sigma)
        return Ahead(call, x, torch.full_like(self._sigma, memory.matrix.sigmas[call]))

    def both(self, result: Tensor) -> tuple[Tensor, Tensor | None]:
        """The cond and uncond denoised latents, from cond's; None for a branch that is not there.

        `result` itself is among them unless something is made good.
        """
        memory, call = self._memory, self._call
        self.record.kind, self.record.branch = PIPELINED, "cond"
        memory.policy.did(call, PIPELINED, self.record.drift)
        if not memory.policy.guided:
            return result, result
        own = self._prediction(result)
        memory.features.predicted(call, own)
        drift = memory.saw_cond(call, own, memory.scale(result))
        memory.measures.keep(self.record, call, own_drift=drift)
        return self._given(result, self._other(own))


class ForecastStep(OnCourse):
    """Nothing is evaluated: each prediction is what it was expected to be."""

    def both(self) -> tuple[Tensor, Tensor | None]:
        """The cond and uncond denoised latents, None for a branch that the run has not."""
        memory, call = self._memory, self._call
        self.record.kind = FORECAST
        memory.policy.did(call, FORECAST, self.record.drift)
        own = memory.expected_cond(call)
        return self._given(self._denoised(own), self._other(own))

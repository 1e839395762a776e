"""What a run's calls have shown until now, and what is expected of those to come."""

from __future__ import annotations

import torch

from hybrid_core.course import discrepancy
from hybrid_core.course.continued import Continued
from hybrid_core.course.discrepancy import UNSEEN, Tensor
from hybrid_core.course.features import Features
from hybrid_core.course.made_good import NOT_IN_THE_LAST, MadeGood
from hybrid_core.course.matrix import Matrix
from hybrid_core.course.measures import Measures
from hybrid_core.course.policy import Policy
from hybrid_core.course.trajectory import Given, Trajectory


class Memory:
    """Of one run, by the calls of its sampler."""

    def __init__(
        self,
        policy: Policy,
        measures: Measures,
        matrix: Matrix,
        mask: Tensor | None,
        look_ahead: bool,
        cfg: float,
        joined: bool,
    ):
        """cfg: the guidance scale, 1 for a run of one branch; joined: by it alone.

        The scale may change, and then all is forgotten.
        """
        self.policy, self.measures, self.matrix = policy, measures, matrix
        self.mask, self.look_ahead = mask, look_ahead
        self.cfg, self._joined = cfg, joined
        self._pair: tuple[Tensor, Tensor] | None = None  # denoised, of the latest call
        self.shown_cfg: Tensor | None = None  # (1,), by which that call's were joined
        self.trajectory = Trajectory(matrix, mask)
        self.forget()

    def forget(self) -> None:
        """The prompts, or the course, are others from here on."""
        self.cond, self.difference = Continued(self.mask), Continued(self.mask)
        self.features = Features(self.matrix.sigmas, self.mask, self.look_ahead)
        self._owed = MadeGood(self.matrix)
        self._cond_gap: list[int] = []  # calls since cond was evaluated
        self._difference_gap: list[int] = []  # and both branches were
        self.policy.restart()

    def scale(self, denoised: Tensor) -> Tensor:
        return discrepancy.mean(denoised.abs(), self.mask).clamp_min(1e-12)

    def expected_cond(self, call: int) -> Tensor:
        """The prediction that stands in at `call`."""
        self._cond_gap.append(call)
        return self.cond.expected(call)

    def expected_difference(self, call: int) -> Tensor:
        """The difference of the branches' predictions that stands in at `call`."""
        self._difference_gap.append(call)
        return self.difference.expected(call)

    def saw_cond(self, call: int, own: Tensor, scale: Tensor) -> Tensor:
        """Its drift a call from what was expected, by `scale`."""
        gap, self._cond_gap = self._cond_gap, []
        return self._learn(self.cond, call, own, scale, gap, 1.0, 1.0)

    def saw_difference(self, call: int, new: Tensor, scale: Tensor) -> Tensor:
        gap, self._difference_gap = self._difference_gap, []
        return self._learn(self.difference, call, new, scale, gap, self.cfg - 1.0, -1.0)

    def _learn(
        self,
        quantity: Continued,
        call: int,
        new: Tensor,
        scale: Tensor,
        gap: list[int],
        guided: float,
        uncond: float,
    ) -> Tensor:
        """guided, uncond: how often the quantity counts in the predictions of these names."""
        start, missed = quantity.at, quantity.learn(call, new)
        if missed is None or start is None:
            return new.new_full((), UNSEEN, dtype=torch.float32)
        if gap and call + NOT_IN_THE_LAST < self.matrix.calls:
            shares = {at: (at - start) / (call - start) for at in gap}
            self._owed.owe(missed, shares, guided, uncond)
        return discrepancy.mean(missed.abs(), self.mask) / (scale * (call - start))

    def given(self, call: int, cond: Tensor, uncond: Tensor | None) -> Tensor | None:
        """What is to be added to both branches of `call`, for what is owed; None for nothing."""
        shift = self._owed.shift(call)
        cond, uncond = shifted(shift, cond, uncond)
        self.trajectory.give(self._guided(cond, uncond) if self._joined else None, uncond)
        self._pair = None if uncond is None else (cond, uncond)
        return shift

    def guided(self, denoised: Tensor) -> None:
        """What the sampler gets for the latest call."""
        self.trajectory.guided(denoised)
        if self._pair is not None:
            self.shown_cfg = discrepancy.guidance_scale(denoised, *self._pair)

    def _guided(self, cond: Tensor, uncond: Tensor | None) -> Tensor:
        return cond if uncond is None else uncond + (cond - uncond) * self.cfg

    def latent_ahead(self, call: int) -> Tensor | None:
        """The latent of a `call` to come, with the expected predictions until then."""

        def guess(at: int, x: Tensor) -> Given:
            sigma = self.matrix.sigmas[at]
            cond = x - self.cond.expected(at) * sigma
            if self.difference.at is None:
                return cond, None
            uncond = cond + self.difference.expected(at) * sigma
            return self._guided(cond, uncond), uncond

        return self.trajectory.ahead(call, guess)


def shifted(
    shift: Tensor | None, cond: Tensor, uncond: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    if shift is None:
        return cond, uncond
    return cond + shift, None if uncond is None else uncond + shift

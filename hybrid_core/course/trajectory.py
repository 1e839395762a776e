"""The sampler's latents over a run: where the next one will be, and how the sampler gets there."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hybrid_core.course import discrepancy
from hybrid_core.course.discrepancy import Tensor

UNEXPECTED_STEP = 0.5  # of a step's length; noise gives 1 and more, deterministic steps 0.02-0.4
FIRST_ORDER = 0.02  # of a step's length: how far from Euler's step a first-order sampler's may be
MADE_GOOD_BEFORE = 4  # entries of the schedule's end: not in the last two steps
MEASURES = 3


class Trajectory:
    """Latents (B, ...) on a schedule of noise levels."""

    def __init__(self, sigmas: Sequence[float], mask: Tensor | None, cfg: float | None):
        """cfg: the guidance scale, None where the branches are not joined by it alone."""
        self._sigmas, self._mask, self._cfg = sigmas, mask, cfg
        self._latents: list[Tensor] = []  # of the two latest steps
        self._euler: Tensor | None = None  # where Euler's step would lead
        self._foreseen = self._unforeseen = 0  # evaluations
        self.expected: Tensor | None = None  # at the next step
        self.first_order = False  # whether the sampler's latest step was Euler's
        self.higher_order = False  # whether one was not

    @property
    def mostly_unforeseen(self) -> bool:
        return self._unforeseen > self._foreseen / 2

    def surprise(self, x: Tensor) -> Tensor:
        """mean|x - .| of the expected x, the x before, and Euler's; zeros where there is none."""
        before, measures = self._latents[-1] if self._latents else None, []
        for other in (self.expected, before, self._euler):
            if other is None or other.shape != x.shape:
                measures.append(x.new_zeros((), dtype=torch.float32))
            else:
                measures.append(discrepancy.mean((x - other).abs(), self._mask))
        return torch.stack(measures)

    def arrived(self, surprise: Sequence[float]) -> bool:
        """Whether x is where it was expected, by the numbers of `surprise`."""
        missed, length, off_euler = surprise
        known = self._euler is not None
        self.first_order = known and off_euler <= FIRST_ORDER * length
        self.higher_order |= known and not self.first_order
        foreseen = missed <= UNEXPECTED_STEP * length
        self._foreseen += self.expected is not None
        self._unforeseen += not foreseen
        self.expected = self._euler = None
        return foreseen

    def follows(self, x: Tensor) -> bool:
        """Whether `x` is of the size of those before."""
        return not self._latents or self._latents[-1].shape == x.shape

    def restart(self) -> None:
        self._latents = []

    def keep(self, x: Tensor) -> None:
        self._latents = [*self._latents[-1:], x]

    def foresee(self, step: int) -> None:
        """The latent after `step` if the sampler goes on as it did: a first-order step."""
        sigma = self._sigmas
        if len(self._latents) < 2 or step + 1 >= len(sigma):
            return
        before, now = self._latents
        if sigma[step] == sigma[step - 1]:
            return
        share = (sigma[step + 1] - sigma[step]) / (sigma[step] - sigma[step - 1])
        self.expected = now + (now - before) * share

    def guided(self, step: int, x: Tensor, cond: Tensor, uncond: Tensor) -> None:
        """Remember where Euler's step leads from `x` with these denoised latents."""
        if self._cfg is not None and self._sigmas[step] > 0:
            guided = uncond + (cond - uncond) * self._cfg
            ratio = self._sigmas[step + 1] / self._sigmas[step]
            self._euler = guided + (x - guided) * ratio

    def weight(self, uncond: bool) -> float:
        """Of the branches' difference in a step that evaluates one of them, by that of cond's."""
        if self._cfg is None or not uncond:
            return 1.0
        return self._cfg / (self._cfg - 1.0)

    def made_good(self, step: int, sigma: Tensor, missed: Tensor | None) -> Tensor | None:
        """What to add to the denoised latents of `step` for what a gap has missed.

        missed: for each unit of guidance. Euler's step of length h adds h * (prediction) to the
        latent, so what should have been added is divided by this step's h. Not with samplers of
        higher order, which would take it for a change of course, and not at the run's end, where
        the difference rises within a step.
        """
        late = step + MADE_GOOD_BEFORE >= len(self._sigmas)
        if missed is None or late or not self.first_order or self._cfg is None:
            return None
        length = self._sigmas[step + 1] - self._sigmas[step]
        if length == 0:
            return None
        missed = missed * (self._cfg - 1.0)
        self._latents[-1] = self._latents[-1] + missed  # the course that later steps go on from
        if self.expected is not None:
            self.expected = self.expected + missed
        return missed * discrepancy.spread(-sigma / length, missed)

"""The sampler's latents over a run: whether one is where it had to be, where the next will be."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from hybrid_core.course import discrepancy
from hybrid_core.course.discrepancy import Tensor
from hybrid_core.course.matrix import Matrix

MEASURES = 3
OFF_A_STEP = 0.02  # of the latest change of the latent
OFF_ROUNDING = 1e-4  # of the latent

# denoised latents: as guided, and the uncond branch's; None where that is not known
Given = tuple[Tensor | None, Tensor | None]


class Trajectory:
    """Latents (B, ...) as the sums that the sampler's matrix says."""

    def __init__(self, matrix: Matrix, mask: Tensor | None):
        """mask: what is denoised; the rest is not the sampler's."""
        self._matrix = matrix
        self._mask = None if mask is None else (mask >= 1).to(mask)
        self._at, self._x = -1, torch.zeros(())
        self._given: dict[int, Given] = {}

    def surprise(self, call: int, x: Tensor) -> Tensor:
        """mean|x - .| of the foreseen latent and the one before, and mean|x|, (3,).

        Zeros where nothing is foreseen.
        """
        foreseen = self.latent(call, self._given)
        if foreseen is None or not self.fits(x):
            return x.new_zeros(MEASURES, dtype=torch.float32)
        others = (foreseen, self._x, torch.zeros_like(x))
        return torch.stack([discrepancy.mean((x - other).abs(), self._mask) for other in others])

    @staticmethod
    def foreseen(surprise: Sequence[float], rounding: float = 0.0) -> bool:
        """Whether the latent is where it was foreseen, by the numbers of `surprise`.

        rounding: relative, of the latents' dtype.
        """
        missed, step, size = surprise
        return missed <= OFF_A_STEP * step + max(OFF_ROUNDING, rounding) * size

    def fits(self, x: Tensor) -> bool:
        """Whether `x` is of the size of the one before."""
        return self._at < 0 or self._x.shape == x.shape

    def arrive(self, call: int, x: Tensor) -> None:
        """The sampler asks for `call` at `x`."""
        self._at, self._x = call, x

    def give(self, denoised: Tensor | None, uncond: Tensor | None) -> None:
        """What it gets there."""
        self._given[self._at] = denoised, uncond
        needed = self._matrix.remembered(self._at)
        self._given = {call: given for call, given in self._given.items() if call in needed}

    def guided(self, denoised: Tensor) -> None:
        """It gets this as the guided one."""
        if self._at in self._given:
            self._given[self._at] = denoised, self._given[self._at][1]

    def ahead(self, call: int, guess: Callable[[int, Tensor], Given]) -> Tensor | None:
        """The latent of a `call` to come; `guess`: what a call before it gets at its latent."""
        given, x = dict(self._given), self._x
        for at in range(self._at, call):
            if at > self._at:
                found = self.latent(at, given)
                if found is None:
                    return None
                x = found
            given[at] = guess(at, x)
        return self.latent(call, given)

    def latent(self, call: int, given: dict[int, Given]) -> Tensor | None:
        """Of `call`, with what the calls before it get; None where that is not known."""
        if not 0 <= self._at < call <= self._matrix.calls:
            return None
        terms = self._matrix.between(self._at, call)
        if terms.noises or not terms.denoised.keys() | terms.uncond.keys() <= given.keys():
            return None
        total = self._x * terms.latent
        for place, weights in enumerate((terms.denoised, terms.uncond)):
            for at, weight in weights.items():
                value = given[at][place]
                if value is None:
                    return None
                total = total + value * weight
        return total

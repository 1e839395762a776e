"""A sampler as a matrix: its latents are sums of the first latent, the predictions and the noises.

A sampler asks for denoised latents at noise levels chosen beforehand and adds them up with weights
chosen beforehand. Run once on unit vectors in place of latents it shows the weights; run once on
random numbers it shows whether that is all that it does.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from hybrid_core.course.discrepancy import Tensor
from hybrid_core.course.policy import Reach
from hybrid_core.errors import NotLinear

SAME = 1e-4  # of the largest value: how far the sums may be from what the sampler did
NOTHING = 1e-6  # of the largest weight in a row: rounding
TRIED = 0.5
ELEMENTS = 64  # of the latent of random numbers
MOST_SECONDS = 1.0

Predict = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Noise = Callable[[Tensor, Tensor], Tensor]
Run = Callable[[Predict, Tensor, Noise], Tensor]
Value = Callable[[str, int], Tensor]


@dataclass(frozen=True)
class Terms:
    """A latent as a sum: weights by call; what has no weight is left out."""

    latent: float  # of the latent that it starts from
    denoised: dict[int, float]
    uncond: dict[int, float]  # the uncond branch's by itself, as CFG++ samplers take it
    noises: dict[int, float]


@dataclass(frozen=True)
class Matrix:
    """The weights of one sampler on one schedule.

    rows: (calls + 1, 1 + 2 * calls + noises) in fp64, a row for each call's latent and the last for
    the final one; columns are the first latent, each call's denoised latent as guided, each call's
    of the uncond branch, each noise. sigmas: of each call. drawn: the call before which each noise
    is drawn.
    """

    rows: Tensor
    sigmas: tuple[float, ...]
    drawn: tuple[int, ...]

    @property
    def calls(self) -> int:
        return len(self.sigmas)

    @cached_property
    def _weights(self) -> list[list[float]]:
        return self.rows.tolist()

    def weight(self, row: int, call: int) -> float:
        """Of the guided denoised latent of `call` in latent `row`."""
        return self._weights[row][1 + call]

    def uncond_weight(self, row: int, call: int) -> float:
        """Of the uncond branch's denoised latent of `call` in latent `row`."""
        return self._weights[row][1 + self.calls + call]

    @cached_property
    def takes_uncond(self) -> bool:
        """Whether the sampler uses the uncond branch by itself."""
        return bool(self.rows[:, 1 + self.calls : 1 + 2 * self.calls].any())

    @cached_property
    def noisy(self) -> bool:
        """Whether noise enters the latents."""
        return bool(self.rows[:, 1 + 2 * self.calls :].any())

    def reach(self, schedule: Sequence[float], flow: bool, cfg: float) -> Reach:
        """Of the branches' predictions on `schedule`, at guidance scale `cfg`."""
        apart = [0.0] * self.calls
        if cfg != 1.0:
            apart = self.reaches(schedule, flow, cfg - 1.0, -1.0)
        return Reach(self.reaches(schedule, flow, 1.0, 1.0), apart)

    def reaches(
        self, schedule: Sequence[float], flow: bool, guided: float, uncond: float
    ) -> list[float]:
        """The most that a unit of error in each call's prediction moves any latent after it.

        With every other prediction (epsilon, or velocity) as it is, relative to the signal in that
        latent: 1, or 1 - sigma in flow models. With several calls a step the next latent counts
        half: the sampler only tries it. The error enters the guided prediction `guided` times and
        the uncond branch's `uncond` times. schedule: its noise levels, one more than steps.
        """
        n = self.calls
        taken, alone = self.rows[:, 1 : 1 + n], self.rows[:, 1 + n : 1 + 2 * n]
        # X = c x0 + P D + Q U with D = X - sigma g and U = X - sigma u: solved for X by g and u.
        square = torch.eye(n + 1, dtype=torch.float64)
        square[:, :n] -= taken + alone
        sigmas = torch.tensor(self.sigmas, dtype=torch.float64)
        moved = torch.linalg.solve(square, (guided * taken + uncond * alone) * sigmas)
        if self.calls >= len(schedule):
            moved.diagonal(-1).mul_(TRIED)
        levels = torch.tensor([*self.sigmas, schedule[-1]], dtype=torch.float64)
        signal = (1.0 - levels).clamp_min(1e-3) if flow else torch.ones_like(levels)
        return (moved.abs() / signal[:, None]).amax(dim=0).tolist()

    def between(self, start: int, end: int) -> Terms:
        """Latent `end` as a sum of latent `start` and what came since.

        Of samplers that remember, terms of calls before `start` are in it too.
        """
        known = self._between.get((start, end))
        if known is not None:
            return known
        first, last = self.rows[start], self.rows[end]
        share = float(last[0] / first[0]) if first[0] else 0.0
        rest = last - share * first
        rest[rest.abs() <= NOTHING * float(last.abs().max())] = 0.0
        ends = [1, 1 + self.calls, 1 + 2 * self.calls, len(rest)]
        found = [
            {int(i): float(rest[a + i]) for i in rest[a:b].nonzero()}
            for a, b in itertools.pairwise(ends)
        ]
        self._between[start, end] = terms = Terms(share, *found)
        return terms

    @cached_property
    def _between(self) -> dict[tuple[int, int], Terms]:
        return {}

    def remembered(self, call: int) -> frozenset[int]:
        """The calls up to `call` whose predictions a latent after the next one still needs."""
        return self._remembered[call]

    @cached_property
    def _remembered(self) -> list[frozenset[int]]:
        known: frozenset[int] = frozenset()
        found = []
        for call in reversed(range(self.calls)):
            terms = self.between(call, call + 1)
            known |= terms.denoised.keys() | terms.uncond.keys()
            found.append(frozenset(j for j in known if j <= call))
        return found[::-1]


@dataclass
class Traced:
    """What one run of a sampler did."""

    latents: list[Tensor]  # (1, 1, 1, N) of each call and the final one
    sigmas: list[float]
    drawn: list[int]


def trace(run: Run, sigma: float, most_calls: int) -> Matrix:
    """The matrix of the sampler that `run` runs, from a latent at noise level `sigma`.

    run: given a model, a latent and a source of noise, it returns the final latent. The model
    takes x and sigma and returns the denoised latent as guided and the uncond branch's. Raises
    NotLinear, with the reason in words, for a sampler that is no matrix.
    """
    drawn_values = _random(sigma)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        seen = _traced(run, drawn_values, most_calls)
        calls, noises = len(seen.sigmas), len(seen.drawn)
        units = _traced(run, _units(calls, noises), most_calls)
    if (units.sigmas, units.drawn) != (seen.sigmas, seen.drawn):
        raise NotLinear("what it evaluates depends on what it is given")
    rows = torch.cat([latent.reshape(1, -1) for latent in units.latents])
    columns = [("first", 0)] + [
        (kind, i)
        for kind, count in (("denoised", calls), ("uncond", calls), ("noise", noises))
        for i in range(count)
    ]
    sums = rows @ torch.cat([drawn_values(*column).reshape(1, -1) for column in columns])
    truth = torch.cat([latent.reshape(1, -1) for latent in seen.latents])
    off = (sums - truth).abs().amax(dim=1) / truth.abs().amax(dim=1).clamp_min(1e-12)
    if not float(off.max()) <= SAME:
        raise NotLinear("its latents are no sums of its predictions")
    return Matrix(rows, tuple(units.sigmas), tuple(units.drawn))


def _random(sigma: float) -> Value:
    """Normal numbers, the same for the same question."""
    generator = torch.Generator().manual_seed(0)
    known: dict[tuple[str, int], Tensor] = {}

    def value(kind: str, index: int) -> Tensor:
        if (kind, index) not in known:
            drawn = torch.randn(1, 1, 1, ELEMENTS, generator=generator, dtype=torch.float64)
            known[kind, index] = drawn * max(sigma, 1.0) if kind == "first" else drawn
        return known[kind, index]

    return value


def _units(calls: int, noises: int) -> Value:
    """Unit vectors, one for each column of the matrix."""
    start = {"first": 0, "denoised": 1, "uncond": 1 + calls, "noise": 1 + 2 * calls}
    size = {"first": 1, "denoised": calls, "uncond": calls, "noise": noises}

    def value(kind: str, index: int) -> Tensor:
        vector = torch.zeros(1, 1, 1, 1 + 2 * calls + noises, dtype=torch.float64)
        if index < size[kind]:
            vector[..., start[kind] + index] = 1.0
        return vector

    return value


def _traced(run: Run, value: Value, most_calls: int) -> Traced:
    """One run with `value`s in place of latents."""
    done, until = Traced([], [], []), time.monotonic() + MOST_SECONDS
    first = value("first", 0)

    def predict(x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        call = len(done.sigmas)
        if call >= most_calls or time.monotonic() > until:
            raise NotLinear(f"it evaluates the model more than {call} times")
        if x.shape != first.shape:
            raise NotLinear(f"it asks for latents of {tuple(x.shape)}, given {tuple(first.shape)}")
        done.latents.append(x.detach().double().cpu().clone())
        done.sigmas.append(float(sigma.flatten()[0]))
        return value("denoised", call).to(x), value("uncond", call).to(x)

    def noise(sigma: Tensor, after: Tensor) -> Tensor:
        done.drawn.append(len(done.sigmas))
        return value("noise", len(done.drawn) - 1).float()

    done.latents.append(run(predict, first.float(), noise).detach().double().cpu())
    return done

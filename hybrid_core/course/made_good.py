"""What the forecast calls of a gap have missed, handed in at the calls after it.

The exact call m shows how far a prediction (epsilon, or velocity) has left its expected course
since the call before the gap; a call j between them is taken to have missed its share of that, in
a line, and its denoised latent sigma[j] times as much, d[j]. The sampler is a matrix, so there is
one shift s of the denoised latents of call m after which latent m + 1 is where it would have been:

    s[m] = (sum_j C[m+1, j] d[j] - sum_{k<m} C[m+1, k] s[k]) / C[m+1, m]

A sampler that remembers predictions needs a shift at each call that still remembers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hybrid_core.course.discrepancy import Tensor
from hybrid_core.course.matrix import Matrix

NOT_IN_THE_LAST = 3  # calls: there the predictions turn within a call
NOTHING = 1e-6  # a weight of rounding
SETTLED = 1e-3  # of the first shift
UNSTABLE = 2.0  # times the first shift: this sampler does not forget


@dataclass(eq=False)
class _Debt:
    """`value` times weights: by call, what its denoised latents should have had besides."""

    value: Tensor
    lacked: Mapping[int, float]
    guided: float  # times, in what the sampler was given
    uncond: float  # times, in what a CFG++ sampler takes besides
    shifts: dict[int, float] = field(default_factory=dict)


class MadeGood:
    """Over one run."""

    def __init__(self, matrix: Matrix):
        self._matrix = matrix
        self._debts: list[_Debt] = []

    def owe(self, value: Tensor, missed: Mapping[int, float], guided: float, uncond: float) -> None:
        """The predictions of earlier calls lacked shares of `value`.

        missed: the shares, by call. guided, uncond: how often it counts in the guided prediction
        and in the uncond branch's.
        """
        lacked = {call: -self._matrix.sigmas[call] * share for call, share in missed.items()}
        self._debts.append(_Debt(value, lacked, guided, uncond))

    def shift(self, call: int) -> Tensor | None:
        """What is to be added to both branches' denoised latents of `call`; None for nothing."""
        total: Tensor | None = None
        if call + NOT_IN_THE_LAST >= self._matrix.calls:
            self._debts = []
        if abs(self._both(call + 1, call)) < NOTHING:  # equal neighbours: the next call can
            return None
        for debt in list(self._debts):
            share = self._share(debt, call)
            if share is None:
                self._debts.remove(debt)
                continue
            debt.shifts[call] = share
            part = debt.value * share
            total = part if total is None else total + part
        return total

    def _share(self, debt: _Debt, call: int) -> float | None:
        """Of the debt's value; None when it is settled, or cannot be."""
        row, matrix = call + 1, self._matrix
        need = sum(
            lacked
            * (debt.guided * matrix.weight(row, j) + debt.uncond * matrix.uncond_weight(row, j))
            for j, lacked in debt.lacked.items()
        )
        need -= sum(share * self._both(row, k) for k, share in debt.shifts.items())
        share = need / self._both(row, call)
        if debt.shifts:
            first = abs(next(iter(debt.shifts.values())))
            if not SETTLED * first < abs(share) < UNSTABLE * first:
                return None
        return share

    def _both(self, row: int, call: int) -> float:
        return self._matrix.weight(row, call) + self._matrix.uncond_weight(row, call)

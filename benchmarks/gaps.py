"""What gaps between exact calls would miss in recorded runs, and the plans that miss least."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from hybrid_core.course.adaptive import LAST_EXACT
from hybrid_core.course.made_good import NOT_IN_THE_LAST
from hybrid_core.course.policy import FIRST_EXACT, Reach

Tensor = torch.Tensor
Error = Callable[[int, int, int], float]
Plan = tuple[int, ...]  # the exact calls


class Gaps:
    """Of some pictures' exact runs, whose predictions' products are all that is needed."""

    def __init__(self, products: Tensor, reach: Reach):
        """products: (pictures, 2 * calls, 2 * calls) of cond's predictions, then of the branches'
        differences, relative to the denoised latents: the means of their elements' products.
        """
        self._products, self.calls = products, len(reach.own)
        self._weights = (reach.own, reach.difference)
        self._missed: dict[tuple[int, int, int], float] = {}

    def missed(self, before: int, start: int, end: int) -> float:
        """Mean square of what the calls between the exact ones `start` and `end` would miss.

        Relative to the latent. before: the exact call before `start`.
        """
        gap = before, start, end
        if gap not in self._missed:
            self._missed[gap] = self._measured(*gap) if end > start + 1 else 0.0
        return self._missed[gap]

    def _measured(self, before: int, start: int, end: int) -> float:
        n = self.calls
        lacks = self._products.new_zeros(len(self._products), 2 * n)
        for place, weights in enumerate(self._weights):
            at = place * n
            share = self._share(at + before, at + start, start - before, before)
            for call in range(start + 1, end):
                ahead, weight = call - start, weights[call]
                lacks[:, at + call] += weight
                if end + NOT_IN_THE_LAST >= n:  # as continued
                    slope = share * ahead / (start - before)
                    lacks[:, at + start] -= weight * (1 + slope)
                    lacks[:, at + before] += weight * slope
                else:  # made good: on a line between the exact calls
                    passed = ahead / (end - start)
                    lacks[:, at + start] -= weight * (1 - passed)
                    lacks[:, at + end] -= weight * passed
        return float(torch.einsum("pi,pij,pj->p", lacks, self._products, lacks).mean())

    def _share(self, before: int, start: int, gap: int, room: int) -> Tensor:
        """Of the slope that goes on, by picture, were the call before as far away."""
        first = before - min(gap, room)
        if first == before:
            return self._products.new_zeros(len(self._products))

        def product(a: int, b: int, c: int, d: int) -> Tensor:
            """(v[a] - v[b]) (v[c] - v[d])."""
            p = self._products
            return p[:, a, c] - p[:, a, d] - p[:, b, c] + p[:, b, d]

        stretch = gap / (before - first)
        common = product(start, before, before, first) * stretch
        length = product(before, first, before, first) * stretch**2
        return (common / length.clamp_min(1e-30)).clamp(0, 1)


def plans(missed: Error, calls: int, largest_gap: int) -> dict[int, Plan]:
    """By number of exact calls, those whose gaps miss least together."""
    last = calls - LAST_EXACT
    found: dict[int, Plan] = {}
    layer: dict[tuple[int, int], tuple[float, Plan]] = {
        (FIRST_EXACT - 2, FIRST_EXACT - 1): (0.0, tuple(range(FIRST_EXACT)))
    }
    while layer:
        following: dict[tuple[int, int], tuple[float, Plan]] = {}
        for (before, start), (until, path) in layer.items():
            for end in range(start + 1, min(start + 1 + largest_gap, last) + 1):
                total = until + missed(before, start, end)
                if total < following.get((start, end), (math.inf,))[0]:
                    following[start, end] = total, (*path, end)
        done = [one for (_, end), one in following.items() if end == last]
        if done:
            plan = (*min(done)[1], *range(last + 1, calls))
            found[len(plan)] = plan
        layer = {state: one for state, one in following.items() if state[1] < last}
    return found

"""The difference of the two branches over a run: learned at exact steps, continued in between."""

from __future__ import annotations

import torch

from hybrid_core import discrepancy
from hybrid_core.discrepancy import UNSEEN, Tensor


class Difference:
    """cond - uncond prediction, (B, ...), in epsilon or velocity."""

    def __init__(self, mask: Tensor | None):
        self._mask = mask
        self._known: list[tuple[int, Tensor]] = []  # of the two latest exact steps
        self._share: Tensor | None = None  # of its slope that goes on
        self._debt = 0.0  # sum over a gap's steps of length * (steps since the exact one)**2

    @property
    def known(self) -> bool:
        return bool(self._known)

    def expected(self, step: int) -> Tensor:
        """At `step`: held, or continued as far as that was right."""
        at, latest = self._known[-1]
        if len(self._known) < 2 or self._share is None:
            return latest
        return latest + self._slope() * (self._share.to(latest) * (step - at))

    def _slope(self) -> Tensor:
        (a, first), (b, second) = self._known
        return (second - first) / (b - a)

    def used(self, step: int, length: float) -> None:
        """The expected difference stands in for the true one in a step of `length` in sigma."""
        self._debt += length * (step - self._known[-1][0]) ** 2

    def missed(self, step: int, new: Tensor) -> Tensor | None:
        """What the steps since the last exact one should have added, for each unit of guidance.

        The difference is taken to have left its expected course like the square of the steps.
        None when there were none. Ask before `learn`.
        """
        debt, self._debt = self._debt, 0.0
        if debt == 0 or not self._known:
            return None
        return (new - self.expected(step)) * (debt / (step - self._known[-1][0]) ** 2)

    def learn(self, step: int, new: Tensor, scale: Tensor) -> Tensor:
        """Drift a step from what was expected, by `scale`; now `new` is what is expected."""
        drift = new.new_full((), UNSEEN, dtype=torch.float32)
        if self._known:
            gap = step - self._known[-1][0]
            missed = discrepancy.mean((new - self.expected(step)).abs(), self._mask)
            drift = missed / (gap * scale)
            if len(self._known) > 1:
                change = new - self._known[-1][1]
                self._share = discrepancy.projection([change], [self._slope() * gap])
        self._known = [*self._known[-1:], (step, new)]
        return drift

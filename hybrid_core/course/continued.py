"""A prediction over a run's calls, continued where it is not evaluated."""

from __future__ import annotations

from hybrid_core.course import discrepancy
from hybrid_core.course.discrepancy import Tensor


class Continued:
    """One quantity (B, ...) that is known at some calls and changes slowly between them."""

    def __init__(self, mask: Tensor | None):
        self._mask = mask
        self._known: list[tuple[int, Tensor]] = []  # of the two latest calls that showed it
        self._share: Tensor | None = None  # of its slope that goes on

    @property
    def at(self) -> int | None:
        """The latest call that showed it."""
        return self._known[-1][0] if self._known else None

    def expected(self, call: int) -> Tensor:
        """At `call`: the latest one, continued by the share of its slope that was right."""
        at, latest = self._known[-1]
        if len(self._known) < 2 or self._share is None:
            return latest
        return latest + self._slope() * (self._share.to(latest) * (call - at))

    def _slope(self) -> Tensor:
        (a, first), (b, second) = self._known
        return (second - first) / (b - a)

    def learn(self, call: int, new: Tensor) -> Tensor | None:
        """How far `new` is from what was expected, (B, ...); now `new` is what goes on.

        None where nothing was expected.
        """
        missed = None
        if self._known:
            at, latest = self._known[-1]
            missed = new - self.expected(call)
            if len(self._known) > 1:
                slope = self._slope() * (call - at)
                self._share = discrepancy.projection([new - latest], [slope])
        self._known = [*self._known[-1:], (call, new)]
        return missed

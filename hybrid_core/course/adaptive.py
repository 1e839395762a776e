"""Mode adaptive: one tolerance for what the calls between two exact ones may change together."""

from __future__ import annotations

import math
from collections.abc import Collection

from hybrid_core.course.policy import (
    EXACT,
    FIRST_EXACT,
    FORECAST,
    PIPELINED,
    Kind,
    Reach,
    Seen,
)
from hybrid_core.errors import ConfigError

LAST_EXACT = 3  # where the predictions turn within a call, which no drift foretells
DRIFTS = ("own_drift", "guidance_drift", "feature_drift")


class Adaptive:
    """A call is forecast while the expected errors of its gap sum up to the tolerance at most.

    Else it is pipelined if that holds for a pipelined one, else exact. A gap is what lies between
    two exact calls. It may be twice as long as the longest before it, so that drifts are measured
    often where they are not known yet. In a run of one branch a pipelined call renews all that is
    known, as an exact one does: it ends a gap, and its features are better the longer a row of
    such calls is.
    """

    guided = True

    def __init__(
        self,
        tolerance: float,
        reach: Reach,
        largest_gap: int = 12,
        kinds: Collection[str] = (PIPELINED, FORECAST),
    ):
        """kinds: that are allowed beside exact ones."""
        if not tolerance >= 0 or largest_gap < 0:
            raise ConfigError(
                f"tolerance is {tolerance}, largest gap {largest_gap}: expected 0 or more"
            )
        self._tolerance, self._largest_gap = tolerance, largest_gap
        self._kinds = frozenset(kinds) if tolerance > 0 else frozenset[str]()
        self.forecasts = FORECAST in self._kinds
        self.weigh(reach)
        self._drifts: dict[str, float] = {}
        self._gap_now = 1
        self.restart()

    def weigh(self, reach: Reach) -> None:
        """Errors count so from here on."""
        self._reach, self._one_branch = reach, not any(reach.difference)

    def restart(self) -> None:
        self._exact = 0  # calls
        self._own = self._both = -1  # the latest calls that evaluated cond, and both branches
        self._spent = 0.0

    def choose(self, call: int, features: bool) -> tuple[Kind, float | None]:
        if self._exact < FIRST_EXACT or call + LAST_EXACT >= len(self._reach.own):
            return EXACT, None
        drift: float | None = None
        for kind in (FORECAST, PIPELINED):
            drift = self._drift(call, kind)
            usable = kind in self._kinds and self._room(call, kind)
            if kind == PIPELINED:  # features are continued well from the second exact call on
                usable &= features and self._exact > FIRST_EXACT
            if usable and drift is not None and drift <= self._tolerance:
                return kind, drift
        return EXACT, self._drift(call, FORECAST)

    def _room(self, call: int, kind: Kind) -> bool:
        renews = self._one_branch and kind == PIPELINED
        return renews or call - self._known <= min(self._gap_now, self._largest_gap)

    @property
    def _known(self) -> int:
        """The call before the gap."""
        return self._own if self._one_branch else self._both

    def _drift(self, call: int, kind: Kind) -> float | None:
        """The gap's expected errors with one of `kind` at `call`; None while that is not known."""
        own, apart, features = (self._drifts.get(name) for name in DRIFTS)
        rate = features if kind == PIPELINED else own
        if rate is None or (apart is None and not self._one_branch):
            return None
        calls = 1 if kind == PIPELINED else call - self._own
        error = rate * calls * self._reach.own[call]
        error += (apart or 0.0) * (call - self._both) * self._reach.difference[call]
        return error if self._one_branch and kind == PIPELINED else self._spent + error

    def did(self, call: int, kind: Kind, drift: float | None = None) -> None:
        if kind == EXACT or (kind == PIPELINED and self._one_branch):
            if self._known >= 0 and call > self._known + 1:
                self._gap_now = min(2 * self._gap_now, max(self._largest_gap, 1))
            self._exact += kind == EXACT
            self._own = self._both = call
            self._spent = 0.0
            return
        self._spent = drift or 0.0
        if kind == PIPELINED:
            self._own = call

    def saw(self, call: int, seen: Seen) -> None:
        """Drifts go up at once and down by half of the way; not a number counts as boundless."""
        for name in DRIFTS:
            new, old = getattr(seen, name), self._drifts.get(name)
            if new is not None:
                new = new if math.isfinite(new) else math.inf
                self._drifts[name] = new if old is None or new > old else (old + new) / 2

    def captures(self, call: int) -> bool:
        return PIPELINED in self._kinds

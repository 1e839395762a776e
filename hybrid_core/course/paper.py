"""Mode paper: Hybridiff's published rule."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from hybrid_core.config import Tuning
from hybrid_core.course.policy import EXACT, FIRST_EXACT, PIPELINED, Kind, Seen
from hybrid_core.errors import ConfigError

PUBLISHED_STEPS = 50


@dataclass(frozen=True)
class PaperParameters:
    """L, g, k and tau_cap of Hybridiff, as published for 50 steps."""

    window: int  # L
    slope: float  # g
    length: int  # k
    cap: int  # tau_cap

    def __post_init__(self) -> None:
        if self.window < 1 or self.length < 0 or self.cap < 1 or not self.slope > 0:
            raise ConfigError(
                f"L={self.window}, g={self.slope}, k={self.length}, tau_cap={self.cap}: expected "
                "L and tau_cap of 1 or more, g above 0 and k of 0 or more"
            )

    def scaled(self, steps: int) -> PaperParameters:
        """The same shares of a run of `steps` steps. The discrepancy's slope is one a step."""
        share = steps / PUBLISHED_STEPS
        return replace(
            self,
            window=max(1, round(self.window * share)),
            slope=self.slope / share,
            length=round(self.length * share),
            cap=max(1, round(self.cap * share)),
        )


EPSILON_PARAMETERS = PaperParameters(window=12, slope=0.4e-3, length=5, cap=15)  # SDXL's
FLOW_PARAMETERS = PaperParameters(
    window=15, slope=0.5e-3, length=5, cap=40
)  # SD3's, as in the code


class Paper:
    """Parallelism begins where the discrepancy is flat, and lasts k steps."""

    guided, forecasts = False, False

    def __init__(self, parameters: PaperParameters, steps: int):
        """parameters: scaled to `steps` already."""
        self._parameters, self._steps = parameters, steps
        self._curve: list[float] = []
        self._in_a_row = 0
        self.tau1: int | None = None

    @classmethod
    def tuned(cls, tuning: Tuning, steps: int, flow: bool) -> Paper:
        """As published, but for what is set."""
        published = FLOW_PARAMETERS if flow else EPSILON_PARAMETERS
        parameters = PaperParameters(
            window=tuning.window or published.window,
            slope=tuning.slope or published.slope,
            length=published.length if tuning.length is None else tuning.length,
            cap=tuning.cap or published.cap,
        )
        return cls(parameters.scaled(steps), steps)

    @property
    def tau2(self) -> int | None:
        """First step of Fully-Connecting; the run's end where k would go beyond it."""
        if self.tau1 is None:
            return None
        return min(self.tau1 + self._parameters.length, self._steps)

    def choose(self, call: int, features: bool) -> tuple[Kind, float | None]:
        free = features and self._in_a_row >= FIRST_EXACT
        return PIPELINED if free and self._in_window(call) else EXACT, None

    def _in_window(self, step: int) -> bool:
        return self.tau1 is not None and self.tau1 <= step < (self.tau2 or 0)

    def did(self, call: int, kind: Kind, drift: float | None = None) -> None:
        self._in_a_row += 1

    def restart(self) -> None:
        self._in_a_row = 0

    def captures(self, call: int) -> bool:
        if self.tau1 is not None:
            return self._in_window(call + 1)
        return len(self._curve) >= self._parameters.window or call + 1 >= self._parameters.cap - 1

    def saw(self, call: int, seen: Seen) -> None:
        """As the public code does it: the step after the one that ends the window is tau1 + 1."""
        if self.tau1 is not None:
            return
        self._curve.append(math.inf if seen.discrepancy is None else seen.discrepancy)
        window = self._parameters.window
        if len(self._curve) > window:
            slope = (self._curve[-window] - self._curve[-1]) / window
            if 0 <= slope < self._parameters.slope:
                self.tau1 = len(self._curve) - 1
        if self.tau1 is None and call >= self._parameters.cap - 1:
            self.tau1 = self._parameters.cap

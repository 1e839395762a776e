"""What each call of the sampler is to be. Numbers in, a decision out.

Calls are counted as the sampler makes them. An exact call evaluates every branch in full; a
pipelined one evaluates the cond branch in two stages, a device each; a forecast one evaluates
nothing. What is not evaluated is continued from what was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Kind = Literal["exact", "pipelined", "forecast"]
EXACT: Kind = "exact"
PIPELINED: Kind = "pipelined"
FORECAST: Kind = "forecast"
FIRST_EXACT = 3


@dataclass(frozen=True)
class Reach:
    """By call, how far one unit of error moves the latent, relative to the signal in it."""

    own: Sequence[float]  # in the cond prediction, with the branches' difference as it is
    difference: Sequence[float]  # in that difference; zeros in a run of one branch


@dataclass(frozen=True)
class Seen:
    """What a call showed; None for what it did not show."""

    discrepancy: float | None = None  # rel-MAE of the branches
    # errors a call, relative to mean|denoised latent|, per unit of sigma:
    own_drift: float | None = None  # of the cond prediction from the expected one
    guidance_drift: float | None = None  # of the branches' difference from the expected one
    feature_drift: float | None = None  # of a prediction made with foreseen features


class Policy(Protocol):
    """Decides each call. Calls come in order, each is chosen, done and shown once."""

    guided: bool  # whether the branch that a pipelined call does not evaluate is rebuilt
    forecasts: bool  # whether a call may be forecast

    def choose(self, call: int, features: bool) -> tuple[Kind, float | None]:
        """What `call` is to be, and the drift that was weighed, None while nothing is known.

        features: whether there are features for a pipelined one.
        """
        ...

    def did(self, call: int, kind: Kind, drift: float | None = None) -> None:
        """`call` is one of `kind`; drift: as chosen."""
        ...

    def saw(self, call: int, seen: Seen) -> None: ...

    def captures(self, call: int) -> bool:
        """Whether the features of exact `call` are of use: the next one may be pipelined."""
        ...

    def restart(self) -> None:
        """Nothing that was known of the branches holds any more."""
        ...


class Exact:
    """Every call in full."""

    guided, forecasts = True, False

    def choose(self, call: int, features: bool) -> tuple[Kind, float | None]:
        return EXACT, None

    def did(self, call: int, kind: Kind, drift: float | None = None) -> None:
        pass

    def saw(self, call: int, seen: Seen) -> None:
        pass

    def captures(self, call: int) -> bool:
        return False

    def restart(self) -> None:
        pass

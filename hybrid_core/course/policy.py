"""When to evaluate both branches and when to pipeline one of them. Numbers in, a decision out.

Steps are counted on the sampler's schedule. An exact step evaluates both branches in full and shows
the discrepancy; a pipelined step evaluates one branch in two stages and reconstructs the other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from hybrid_core.config import Tuning
from hybrid_core.errors import ConfigError

Branch = Literal["cond", "uncond"]
COND: Branch = "cond"
UNCOND: Branch = "uncond"
PUBLISHED_STEPS = 50
FIRST_EXACT = 3
LAST_EXACT = 2  # before sigma 0, where the branches part again faster than any drift foretells
HORIZON = 4  # pipelined steps that are weighed together
DOUBT = 1.5  # times the measured error of a branch halfway between two steps: its features err too


@dataclass(frozen=True)
class Known:
    """What the steps before one have shown, by the latest step that showed it."""

    exact: int  # both branches
    cond: int
    uncond: int
    difference: int  # of the branches
    between: bool = False  # whether that one is of a branch halfway between two steps
    emphasis: float = 1.0  # how often the sampler's step counts one prediction; Euler's: once
    either: bool = False  # whether both branches were seen, so that a step may evaluate either

    @classmethod
    def by_exact(cls, step: int, emphasis: float = 1.0, either: bool = False) -> Known:
        """After exact `step`."""
        return cls(step, step, step, step, emphasis=emphasis, either=either)

    def by(self, branch: Branch, step: int) -> Known:
        """After pipelined `step` of `branch`."""
        known = replace(self, cond=step) if branch == COND else replace(self, uncond=step)
        return (
            replace(known, difference=step - 1, between=True) if self.joins(branch, step) else known
        )

    def joins(self, branch: Branch, step: int) -> bool:
        """Whether `branch` at `step` tells what it was a step ago, when only the other was seen."""
        own, other = (self.cond, self.uncond) if branch == COND else (self.uncond, self.cond)
        return own == step - 2 and other == step - 1


@dataclass(frozen=True)
class Seen:
    """What a step showed; None for what it did not show."""

    discrepancy: float | None = None  # rel-MAE of the branches
    # relative to mean|denoised latent|, per unit of sigma:
    guidance_drift: float | None = None  # of the branches' difference from the expected one, a step
    feature_drift: float | None = None  # of a prediction made with foreseen features
    bend: float | None = None  # of a branch's prediction from halfway between its neighbours


class Policy(Protocol):
    """Decides each step. Steps come in order, each is shown once."""

    guided: bool  # whether the branch that a pipelined step does not evaluate is reconstructed

    def choose(self, step: int, known: Known, branch: Branch | None = None) -> Branch | None:
        """The branch that `step` is to evaluate in two stages, None for an exact step.

        branch: the only one that it can, None where it can be any.
        """
        ...

    def drift(self, step: int, known: Known, branch: Branch = COND) -> float | None:
        """What it would weigh against its tolerance for that, None while nothing is known."""
        ...

    def captures(self, step: int) -> bool:
        """Whether the features of exact step `step` are of use: the next one may be pipelined."""
        ...

    def saw_exact(self, step: int, seen: Seen) -> None: ...

    def saw_pipelined(self, seen: Seen) -> None: ...


class Exact:
    """Every step in full."""

    guided = True

    def choose(self, step: int, known: Known, branch: Branch | None = None) -> Branch | None:
        return None

    def drift(self, step: int, known: Known, branch: Branch = COND) -> float | None:
        return None

    def captures(self, step: int) -> bool:
        return False

    def saw_exact(self, step: int, seen: Seen) -> None:
        pass

    def saw_pipelined(self, seen: Seen) -> None:
        pass


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
    """The published rule: Parallelism begins where the discrepancy is flat, and lasts k steps."""

    guided = False

    def __init__(self, parameters: PaperParameters, steps: int):
        """parameters: scaled to `steps` already."""
        self._parameters, self._steps = parameters, steps
        self._curve: list[float] = []
        self.tau1: int | None = None

    @property
    def tau2(self) -> int | None:
        """First step of Fully-Connecting; the run's end where k would go beyond it."""
        if self.tau1 is None:
            return None
        return min(self.tau1 + self._parameters.length, self._steps)

    def choose(self, step: int, known: Known, branch: Branch | None = None) -> Branch | None:
        return COND if self._in_window(step) else None

    def _in_window(self, step: int) -> bool:
        return self.tau1 is not None and self.tau1 <= step < (self.tau2 or 0)

    def drift(self, step: int, known: Known, branch: Branch = COND) -> float | None:
        return None

    def captures(self, step: int) -> bool:
        if self.tau1 is not None:
            return self._in_window(step + 1)
        return len(self._curve) >= self._parameters.window or step + 1 >= self._parameters.cap - 1

    def saw_exact(self, step: int, seen: Seen) -> None:
        """As the public code does it: the step after the one that ends the window is tau1 + 1."""
        if self.tau1 is not None:
            return
        self._curve.append(math.inf if seen.discrepancy is None else seen.discrepancy)
        window = self._parameters.window
        if len(self._curve) > window:
            slope = (self._curve[-window] - self._curve[-1]) / window
            if 0 <= slope < self._parameters.slope:
                self.tau1 = len(self._curve) - 1
        if self.tau1 is None and step >= self._parameters.cap - 1:
            self.tau1 = self._parameters.cap

    def saw_pipelined(self, seen: Seen) -> None:
        pass


def step_lengths(sigmas: Sequence[float], flow: bool) -> list[float]:
    """What each sampler step adds to the latent for one unit of error in the prediction.

    In noise-to-signal space, k = sigma (epsilon models) or sigma / (1 - sigma) (flow models), where
    an error made early weighs as much as one made late: measured on the demo models, see
    docs/decisions.md. sigmas: the sampler's schedule, one more than there are steps.
    """
    return [
        abs(after - before) / (max(1.0 - after, 1e-3) if flow else 1.0)
        for before, after in zip(sigmas, sigmas[1:], strict=False)
    ]


class Adaptive:
    """One tolerance: how much a pipelined step may be expected to change the latent, relatively.

    Expected are the guidance's drift since the branches' difference was last known, as the guider
    weighs it, and the features' drift over one step. Of the ways to go on, that one is taken whose
    expected changes over the next steps sum up to least: a step that evaluates the uncond branch
    errs more by itself and renews the difference. The gap between exact steps may double from one
    to the next, so that the drift is measured often where it is not known yet.
    """

    guided = True

    def __init__(
        self, tolerance: float, lengths: Sequence[float], cfg: float, largest_gap: int = 12
    ):
        """lengths: from `step_lengths`, as far as steps may be pipelined.

        cfg: the guidance scale, 1 for a run without guidance.
        """
        if not tolerance >= 0 or largest_gap < 0:
            raise ConfigError(
                f"tolerance is {tolerance}, largest gap {largest_gap}: expected 0 or more"
            )
        self._tolerance, self._lengths = tolerance, lengths
        self._weights = {COND: abs(cfg - 1.0), UNCOND: abs(cfg)}  # of the difference, in the guider
        self._largest_gap, self._gap_now = largest_gap, 1
        self._guidance: float | None = None
        self._features: float | None = None
        self._bend = 0.0
        self._exact_steps: list[int] = []

    def drift(self, step: int, known: Known, branch: Branch = COND) -> float | None:
        """Expected relative change of the latent by `step`."""
        weight = self._weights[branch]
        if self._features is None or (self._guidance is None and weight > 0):
            return None
        if step >= len(self._lengths):
            return None
        missed = (self._guidance or 0.0) * (step - known.difference)
        if known.between:
            missed += DOUBT * self._bend
        return (weight * missed + self._features) * self._lengths[step] * known.emphasis

    def choose(self, step: int, known: Known, branch: Branch | None = None) -> Branch | None:
        if len(self._exact_steps) < FIRST_EXACT or step >= len(self._lengths):
            return None
        if step - 1 - known.exact >= min(self._gap_now, self._largest_gap):
            return None
        best: tuple[float, Branch] | None = None
        for course in self._courses(step, known):
            if branch not in (None, course[0]):
                continue
            drifts = list(self._drifts(step, known, course))
            if drifts[0] <= self._tolerance and (best is None or sum(drifts) < best[0]):
                best = sum(drifts), course[0]
        return None if best is None else best[1]

    def _courses(self, step: int, known: Known) -> Iterator[tuple[Branch, ...]]:
        """The branches that the next pipelined steps may evaluate."""
        either = known.either and self._weights[COND] > 0
        any_of: tuple[Branch, ...] = (COND, UNCOND) if either else (COND,)
        return itertools.product(any_of, repeat=min(HORIZON, len(self._lengths) - step))

    def _drifts(self, step: int, known: Known, course: Sequence[Branch]) -> Iterator[float]:
        for at, branch in enumerate(course, step):
            drift = self.drift(at, known, branch)
            yield math.inf if drift is None else drift
            known = known.by(branch, at)

    def captures(self, step: int) -> bool:
        return True

    def saw_exact(self, step: int, seen: Seen) -> None:
        if self._exact_steps and step > self._exact_steps[-1] + 1:
            self._gap_now = min(2 * self._gap_now, max(self._largest_gap, 1))
        self._exact_steps.append(step)
        self._features = _followed(self._features, seen.feature_drift)
        self._saw_guidance(seen)

    def saw_pipelined(self, seen: Seen) -> None:
        self._saw_guidance(seen)

    def _saw_guidance(self, seen: Seen) -> None:
        self._guidance = _followed(self._guidance, seen.guidance_drift)
        self._bend = _followed(self._bend or None, seen.bend) or 0.0


def _followed(old: float | None, new: float | None) -> float | None:
    """Up at once, down by half of the way. What is not a number counts as boundless."""
    if new is None:
        return old
    if not math.isfinite(new):
        return math.inf
    return new if old is None or new > old else (old + new) / 2


def policy_for(
    mode: str, tuning: Tuning, sigmas: Sequence[float], flow: bool, cfg: float
) -> Policy:
    """The policy of a mode for one run. sigmas: the schedule; cfg: 1 for a run of one branch."""
    if len(sigmas) < 2:  # nothing to sample: part of a schedule may be asked for
        return Exact()
    if mode == "paper":
        published = FLOW_PARAMETERS if flow else EPSILON_PARAMETERS
        parameters = PaperParameters(
            window=tuning.window or published.window,
            slope=tuning.slope or published.slope,
            length=published.length if tuning.length is None else tuning.length,
            cap=tuning.cap or published.cap,
        )
        return Paper(parameters.scaled(len(sigmas) - 1), len(sigmas) - 1)
    if mode == "adaptive":
        lengths = step_lengths(sigmas, flow)
        if cfg != 1.0 and sigmas[-1] == 0:
            lengths = lengths[:-LAST_EXACT]
        return Adaptive(tuning.tolerance, lengths, cfg, tuning.largest_gap)
    return Exact()

"""Policies: numbers in, decisions out."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid_core.config import Tuning
from hybrid_core.course.policy import (
    COND,
    EPSILON_PARAMETERS,
    FIRST_EXACT,
    FLOW_PARAMETERS,
    UNCOND,
    Adaptive,
    Exact,
    Known,
    Paper,
    PaperParameters,
    Seen,
    policy_for,
    step_lengths,
)
from hybrid_core.errors import ConfigError


def published_rule(curve, parameters, steps):
    """tau1 and tau2 as paper.md states them, from a curve that is known as a whole."""
    window, tau1 = parameters.window, None
    for step in range(steps):
        if tau1 is None:
            seen = curve[: step + 1]
            if len(seen) > window and 0 <= (seen[-window] - seen[-1]) / window < parameters.slope:
                tau1 = len(seen) - 1
            elif step >= parameters.cap - 1:
                tau1 = parameters.cap
    return (tau1, min(tau1 + parameters.length, steps)) if tau1 is not None else None


def replay(policy, steps, seen, bend=None, either=False):
    """Decisions over a run, one letter a step: E exact, p of the cond branch, u of the uncond."""
    kinds, known = "", None
    for step in range(steps):
        only = COND if kinds.endswith("E") else None
        branch = policy.choose(step, known, only) if known else None
        if branch is None:
            policy.saw_exact(step, replace(seen(step), bend=bend))
            known = Known.by_exact(step, either=either)
        else:
            joins, known = known.joins(branch, step), known.by(branch, step)
            policy.saw_pipelined(Seen(None, seen(step).guidance_drift if joins else None))
        kinds += {None: "E", COND: "p", UNCOND: "u"}[branch]
    return kinds


def u_curve(steps, floor=0.05, start=0.6, rise=0.15):
    """The shape that the discrepancy has over a run."""
    return [
        floor + start * math.exp(-8 * i / steps) + rise * max(0.0, i / steps - 0.85)
        for i in range(steps)
    ]


@pytest.mark.parametrize("parameters", [EPSILON_PARAMETERS, FLOW_PARAMETERS])
@pytest.mark.parametrize("steps", [20, 30, 50, 100])
def test_paper_finds_the_published_window(parameters, steps):
    curve, scaled = u_curve(steps), parameters.scaled(steps)
    policy = Paper(scaled, steps)
    kinds = replay(policy, steps, lambda step: Seen(curve[step]))
    assert (policy.tau1, policy.tau2) == published_rule(curve, scaled, steps)
    # the step that settles tau1 by the slope is tau1 itself and was evaluated in full
    first = kinds.find("p")
    assert first in (policy.tau1, policy.tau1 + 1)
    assert kinds[first : policy.tau2] == "p" * (policy.tau2 - first)
    assert "p" not in kinds[policy.tau2 :]


@given(
    curve=st.lists(st.floats(0, 2), min_size=4, max_size=60),
    window=st.integers(1, 20),
    slope=st.floats(1e-5, 0.1),
    length=st.integers(0, 80),
    cap=st.integers(1, 60),
)
def test_paper_follows_the_rule_on_any_curve(curve, window, slope, length, cap):
    parameters, steps = PaperParameters(window, slope, length, cap), len(curve)
    policy = Paper(parameters, steps)
    kinds = replay(policy, steps, lambda step: Seen(curve[step]))
    expected = published_rule(curve, parameters, steps)
    if expected is None:
        assert policy.tau1 is None and "p" not in kinds
    else:
        assert (policy.tau1, policy.tau2) == expected
        assert kinds.count("p") <= length
        inside = [i for i, kind in enumerate(kinds) if kind == "p"]
        assert all(expected[0] <= i < expected[1] for i in inside)


def test_paper_clips_a_window_beyond_the_end():
    policy = Paper(PaperParameters(window=2, slope=0.01, length=30, cap=15), 20)
    kinds = replay(policy, 20, lambda _: Seen(0.5))
    assert policy.tau2 == 20
    assert kinds.endswith("p") and len(kinds) == 20


def test_paper_parameters_are_shares_of_the_run():
    scaled = EPSILON_PARAMETERS.scaled(25)
    assert (scaled.window, scaled.length, scaled.cap) == (6, 2, 8)
    assert scaled.slope == pytest.approx(0.8e-3)
    assert EPSILON_PARAMETERS.scaled(50) == EPSILON_PARAMETERS
    assert EPSILON_PARAMETERS.scaled(4).length == 0


@pytest.mark.parametrize("wrong", [{"window": 0}, {"slope": 0.0}, {"length": -1}, {"cap": 0}])
def test_paper_parameters_out_of_range(wrong):
    with pytest.raises(ConfigError, match="expected"):
        PaperParameters(**{"window": 12, "slope": 1e-3, "length": 5, "cap": 15, **wrong})


def test_exact_never_pipelines():
    assert replay(Exact(), 20, lambda _: Seen()) == "E" * 20


drifts = st.floats(0, 1, allow_nan=False)


@given(
    drift=st.lists(drifts, min_size=30, max_size=30),
    features=st.lists(drifts, min_size=30, max_size=30),
    tolerance=st.floats(0, 0.5),
    gap=st.integers(0, 20),
    alternates=st.booleans(),
    bend=st.none() | drifts,
)
def test_adaptive_keeps_its_promises(drift, features, tolerance, gap, alternates, bend):
    lengths = [0.05] * 30
    policy = Adaptive(tolerance, lengths, 5.0, gap)
    kinds = replay(
        policy, 30, lambda step: Seen(0.1, drift[step], features[step]), bend, alternates
    )
    assert kinds[:FIRST_EXACT] == "E" * FIRST_EXACT
    assert alternates or "u" not in kinds
    assert "Eu" not in kinds, "features of the cond branch are what an exact step leaves"
    runs = [len(run) for run in kinds.split("E") if run]
    assert all(run <= gap for run in runs)
    assert all(run <= 2**count for count, run in enumerate(runs))


@given(
    drift=st.floats(1e-4, 0.5),
    small=st.floats(1e-4, 0.05),
    factor=st.floats(1, 10),
    cfg=st.floats(1.5, 12),
)
def test_adaptive_is_monotone_on_a_steady_drift(drift, small, factor, cfg):
    lengths = [0.05] * 40
    counts = [
        replay(Adaptive(tolerance, lengths, cfg), 40, lambda _: Seen(0.1, drift, 0.0)).count("p")
        for tolerance in (small, small * factor)
    ]
    assert counts[0] <= counts[1]


def test_adaptive_at_no_tolerance_is_exact_and_at_any_pipelines():
    lengths = [0.05] * 20
    assert replay(Adaptive(0.0, lengths, 5.0), 20, lambda _: Seen(0.1, 1e-3, 0.0)) == "E" * 20
    free = replay(Adaptive(1e9, lengths, 5.0, 4), 20, lambda _: Seen(0.1, 1e-3, 0.0))
    assert free == "EEEpEppEppppEppppEpp"


def test_adaptive_leaves_where_a_drift_rises():
    lengths = [0.05] * 30
    kinds = replay(
        Adaptive(0.004, lengths, 5.0), 30, lambda step: Seen(0.1, 0.5 if step > 15 else 0.001, 0.0)
    )
    assert "p" in kinds[:16]
    assert kinds[21:] == "E" * 9


def alternating(drift, bend, cfg=5.0):
    """A run whose pipelined steps may evaluate either branch."""
    policy = Adaptive(0.02, [0.05] * 40, cfg)
    return replay(policy, 40, lambda _: Seen(0.1, drift, 0.0), bend, either=True)


def test_the_uncond_branch_is_evaluated_where_that_renews_the_difference():
    kinds = alternating(drift=0.02, bend=0.001)
    assert kinds.count("u") >= 8 and "uu" not in kinds
    cond_only = replay(Adaptive(0.02, [0.05] * 40, 5.0), 40, lambda _: Seen(0.1, 0.02, 0.0))
    assert kinds.count("E") < cond_only.count("E")


def test_the_uncond_branch_is_left_alone_where_it_shows_nothing_new():
    rough = alternating(drift=0.02, bend=1.0)
    assert "u" not in rough and "p" in rough
    unguided = alternating(drift=0.02, bend=0.0, cfg=1.0)
    assert "u" not in unguided and "p" in unguided


def test_what_the_steps_have_shown():
    known = Known.by_exact(4)
    assert known.by(COND, 5) == Known(exact=4, cond=5, uncond=4, difference=4)
    known = known.by(COND, 5).by(UNCOND, 6)
    assert (known.difference, known.between) == (5, True), "uncond at 4 and 6, cond at 5"
    assert known.by(COND, 7) == Known(exact=4, cond=7, uncond=6, difference=6, between=True)
    assert known.by(UNCOND, 7).difference == 5, "cond was not seen after step 5"
    late = Known.by_exact(4).by(COND, 5).by(COND, 6).by(UNCOND, 7)
    assert (late.difference, late.between) == (4, False), "uncond was not seen since step 4"
    assert not Known.by_exact(4).joins(UNCOND, 5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_adaptive_trusts_nothing_that_is_not_a_number(value):
    lengths = [0.05] * 20
    kinds = replay(
        Adaptive(0.1, lengths, 5.0), 20, lambda step: Seen(0.1, value if step == 2 else 0.0, 0.0)
    )
    assert kinds == "E" * 20


def test_adaptive_without_guidance_watches_features_alone():
    lengths = [0.05] * 20
    still = replay(Adaptive(0.001, lengths, 1.0), 20, lambda _: Seen(None, None, 0.001))
    moving = replay(Adaptive(0.001, lengths, 1.0), 20, lambda _: Seen(None, None, 0.5))
    assert "p" in still
    assert moving == "E" * 20


def test_adaptive_waits_until_every_drift_was_seen():
    lengths = [0.05] * 20
    assert replay(Adaptive(9.0, lengths, 5.0), 20, lambda _: Seen(0.1, 0.0)) == "E" * 20
    assert replay(Adaptive(9.0, lengths, 5.0), 20, lambda _: Seen(0.1, None, 0.0)) == "E" * 20
    late = Adaptive(9.0, lengths, 5.0)
    kinds = replay(late, 20, lambda step: Seen(0.1, 0.0, None if step < 9 else 0.0))
    assert kinds.index("p") == 10


@pytest.mark.parametrize("steps", range(1, 9))
@pytest.mark.parametrize("mode", ["adaptive", "paper", "exact"])
def test_few_steps_are_decided_without_errors(mode, steps):
    sigmas = [1 - i / steps for i in range(steps + 1)]
    policy = policy_for(mode, Tuning(tolerance=1.0), sigmas, True, 5.0)
    kinds = replay(policy, steps, lambda _: Seen(0.1, 0.01, 0.01))
    assert kinds[:FIRST_EXACT] == "E" * min(steps, FIRST_EXACT)
    assert len(kinds) == steps


@pytest.mark.parametrize(
    ("end", "cfg", "kinds"), [(0.0, 5.0, "EE"), (0.1, 5.0, "pp"), (0.0, 1.0, "pp")]
)
def test_the_last_guided_steps_before_sigma_0_are_exact(end, cfg, kinds):
    sigmas = [*(1 - i / 20 for i in range(18)), end]
    policy = policy_for("adaptive", Tuning(tolerance=1e9, largest_gap=30), sigmas, True, cfg)
    assert replay(policy, 18, lambda _: Seen(0.1, 0.01, 0.01)).endswith(kinds)


def test_step_lengths():
    assert step_lengths([4.0, 1.0, 0.0], False) == [3.0, 1.0]
    assert step_lengths([0.8, 0.5, 0.0], True) == pytest.approx([0.6, 0.5])
    assert math.isfinite(step_lengths([1.0, 1.0, 0.0], True)[0])


def test_tuned_parameters_replace_the_published_ones():
    sigmas = [float(i) for i in range(50, -1, -1)]
    policy = policy_for("paper", Tuning(window=4, slope=0.1, length=0, cap=7), sigmas, False, 5.0)
    assert replay(policy, 50, lambda _: Seen(0.5)) == "E" * 50
    assert policy.tau1 == 4
    default = policy_for("paper", Tuning(), sigmas, False, 5.0)
    replay(default, 50, lambda _: Seen(0.5))
    assert (default.tau1, default.tau2) == (12, 17)


@pytest.mark.parametrize(
    "wrong", [{"tolerance": -1.0}, {"largest_gap": -1}, {"length": -2}, {"step_seconds": 0.0}]
)
def test_tuning_out_of_range(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Tuning(**wrong)


@pytest.mark.parametrize("mode", ["adaptive", "paper", "exact"])
@pytest.mark.parametrize("sigmas", [[], [14.6], [14.6, 0.0]])
def test_parts_of_a_schedule_without_steps(mode, sigmas):
    """SplitSigmas at step 0 gives one noise level."""
    policy = policy_for(mode, Tuning(), sigmas, flow=False, cfg=5.0)
    assert policy.choose(0, Known.by_exact(0)) is None

"""Policies: numbers in, decisions out."""

from __future__ import annotations

import copy
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid_core.config import Tuning
from hybrid_core.course.adaptive import LAST_EXACT, Adaptive
from hybrid_core.course.course import Course
from hybrid_core.course.paper import (
    EPSILON_PARAMETERS,
    FLOW_PARAMETERS,
    Paper,
    PaperParameters,
)
from hybrid_core.course.policy import FIRST_EXACT, FORECAST, PIPELINED, Exact, Reach, Seen
from hybrid_core.errors import ConfigError, NotLinear
from hybrid_core.telling.report import LETTERS


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


def replay(policy, calls, seen, features=True):
    """Kinds over a run, one letter a call."""
    kinds = ""
    for call in range(calls):
        kind, drift = policy.choose(call, features)
        policy.did(call, kind, drift)
        shown = seen(call)
        if kind == "exact":
            policy.saw(call, shown)
        elif kind == "pipelined" and policy.guided:
            policy.saw(call, Seen(own_drift=shown.own_drift))
        kinds += LETTERS[kind]
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
    kinds = replay(policy, steps, lambda call: Seen(curve[call]))
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
    kinds = replay(policy, steps, lambda call: Seen(curve[call]))
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
FLAT = [0.05] * 40


def reach(cfg=5.0, own=FLAT):
    return Reach(own, [abs(cfg - 1.0) * one for one in own])


def steady(own=0.001, difference=0.001, features=0.001):
    return lambda call: Seen(0.1, own, difference, features)


def shortened(kinds):
    """Rows of calls that are not exact."""
    return [row for row in kinds.split("E") if row]


@given(
    own=st.lists(drifts, min_size=30, max_size=30),
    difference=st.lists(drifts, min_size=30, max_size=30),
    features=st.lists(drifts, min_size=30, max_size=30),
    tolerance=st.floats(0, 0.5),
    gap=st.integers(0, 20),
    allowed=st.sets(st.sampled_from([FORECAST, PIPELINED])),
)
def test_adaptive_keeps_its_promises(own, difference, features, tolerance, gap, allowed):
    policy = Adaptive(tolerance, reach(own=[0.05] * 30), gap, allowed)
    kinds = replay(policy, 30, lambda c: Seen(0.1, own[c], difference[c], features[c]))
    assert kinds[:FIRST_EXACT] == "E" * FIRST_EXACT and kinds.endswith("E" * LAST_EXACT)
    assert {LETTERS[kind] for kind in allowed} | {"E"} >= set(kinds)
    rows = [len(row) for row in shortened(kinds)]
    assert all(row <= gap for row in rows)
    assert all(row <= 2**count for count, row in enumerate(rows))


@given(
    drift=st.floats(1e-4, 0.5),
    small=st.floats(1e-4, 0.05),
    factor=st.floats(1, 10),
    cfg=st.floats(1.5, 12),
)
def test_adaptive_is_monotone_on_a_steady_drift(drift, small, factor, cfg):
    counts = [
        replay(Adaptive(tolerance, reach(cfg)), 40, steady(drift, drift)).count("E")
        for tolerance in (small, small * factor)
    ]
    assert counts[0] >= counts[1]


def test_errors_are_weighed_by_the_reach_that_holds():
    policy = Adaptive(0.005, reach(1.5))
    before = replay(policy, 40, steady(0.001, 0.001), features=False)
    policy.weigh(reach(200.0))
    policy.restart()
    assert "F" in before and replay(policy, 40, steady(0.001, 0.001), features=False) == "E" * 40


def test_adaptive_at_no_tolerance_is_exact_and_at_any_the_gaps_double():
    assert replay(Adaptive(0.0, reach()), 40, steady(0.0, 0.0)) == "E" * 40
    free = replay(Adaptive(1e9, reach(own=[0.05] * 24), 4), 24, steady())
    assert free == "EEEFEFFEFFFFEFFFFEFFFEEE"


def test_the_errors_of_a_gap_are_summed():
    """Of 0.01 * n * 0.05 * (1 + 4) a call: 0.0025, 0.005, 0.0075, in all 0.0025, 0.0075, 0.015."""
    for tolerance, row in ((0.0026, 1), (0.0074, 1), (0.0076, 2), (0.0149, 2), (0.0151, 3)):
        kinds = replay(Adaptive(tolerance, reach()), 40, steady(0.01, 0.01, None))
        assert max(map(len, shortened(kinds))) == row


def test_adaptive_leaves_where_a_drift_rises():
    kinds = replay(
        Adaptive(0.004, reach()), 40, lambda call: Seen(0.1, 0.001, 0.5 if call > 15 else 0.001)
    )
    assert "F" in kinds[:16] and set(kinds[24:]) == {"E"}


def test_each_call_weighs_by_how_far_it_moves_the_latent():
    """A schedule whose later steps are short."""
    kinds = replay(Adaptive(0.004, reach(own=[1.0] * 20 + [0.01] * 20)), 40, steady(0.01, 0.01))
    assert "F" not in kinds[:20] and "F" in kinds[20:]


def test_a_pipelined_call_is_made_where_the_prediction_moves_too_fast_to_foresee():
    moving = steady(own=0.5, difference=0.0001, features=0.0001)
    kinds = replay(Adaptive(0.005, reach()), 40, moving)
    assert "p" in kinds and "F" not in kinds
    assert "p" not in replay(Adaptive(0.005, reach()), 40, moving, features=False)
    assert "p" not in replay(Adaptive(0.005, reach(), kinds=[FORECAST]), 40, moving)


def test_without_guidance_a_chain_is_not_broken_by_exact_calls():
    moving = steady(own=0.5, difference=None, features=0.0001)
    kinds = replay(Adaptive(0.005, reach(1.0)), 40, moving)
    assert kinds == "EEEE" + "p" * 33 + "EEE"
    rough = steady(own=0.5, difference=None, features=0.5)
    assert replay(Adaptive(0.005, reach(1.0)), 40, rough) == "E" * 40


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_adaptive_trusts_nothing_that_is_not_a_number(value):
    kinds = replay(
        Adaptive(0.1, reach()), 40, lambda call: Seen(0.1, value if call == 2 else 0.0, 0.0)
    )
    assert kinds == "E" * 40


def test_adaptive_waits_until_the_drifts_were_seen():
    assert replay(Adaptive(9.0, reach()), 40, lambda _: Seen(0.1, 0.0, None)) == "E" * 40
    assert replay(Adaptive(9.0, reach()), 40, lambda _: Seen(0.1, None, 0.0)) == "E" * 40
    late = replay(Adaptive(9.0, reach()), 40, lambda c: Seen(0.1, 0.0, None if c < 9 else 0.0))
    assert late.index("F") == 10


def test_after_a_restart_calls_are_exact_again():
    policy = Adaptive(9.0, reach())
    replay(policy, 10, steady())
    policy.restart()
    assert [policy.choose(call, True)[0] for call in (10,)] == ["exact"]


def test_the_policy_of_a_step_to_come_leaves_the_runs_alone():
    """A copy is asked what will be."""
    policy = Adaptive(9.0, reach())
    replay(policy, 5, steady())
    ahead = copy.copy(policy)
    kind, drift = ahead.choose(5, True)
    ahead.did(5, kind, drift)
    assert policy.choose(5, True) == (kind, drift)


def untraced():
    raise NotLinear("it is not asked")


@pytest.mark.parametrize("steps", range(1, 13))
@pytest.mark.parametrize("cfg", [1.0, 5.0])
def test_few_calls_are_decided_without_errors(steps, cfg):
    kinds = replay(Adaptive(1.0, reach(cfg, [0.1] * steps)), steps, steady())
    assert len(kinds) == steps
    assert kinds[:FIRST_EXACT] == "E" * min(steps, FIRST_EXACT)


def test_tuned_parameters_replace_the_published_ones():
    policy = Paper.tuned(Tuning(window=4, slope=0.1, length=0, cap=7), 50, flow=False)
    assert replay(policy, 50, lambda _: Seen(0.5)) == "E" * 50
    assert policy.tau1 == 4
    default = Paper.tuned(Tuning(), 50, flow=False)
    replay(default, 50, lambda _: Seen(0.5))
    assert (default.tau1, default.tau2) == (12, 17)


@pytest.mark.parametrize(
    "wrong", [{"tolerance": -1.0}, {"largest_gap": -1}, {"length": -2}, {"step_seconds": 0.0}]
)
def test_tuning_out_of_range(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Tuning(**wrong)


@pytest.mark.parametrize("wrong", [(-1.0, 12), (math.nan, 12), (0.1, -1)])
def test_adaptive_out_of_range(wrong):
    with pytest.raises(ConfigError, match="expected"):
        Adaptive(wrong[0], reach(), wrong[1])


@pytest.mark.parametrize("mode", ["adaptive", "paper", "exact"])
@pytest.mark.parametrize("sigmas", [[], [14.6]])
def test_parts_of_a_schedule_without_steps(mode, sigmas):
    """SplitSigmas at step 0 gives one noise level."""
    course = Course.of(mode, Tuning(), sigmas, False, untraced)
    assert course.obstacle is None and not course.shortens

"""Cuts and their costs: pure numbers."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hybrid_core.stages.plan import (
    GAIN_WORTH_A_CHANGE,
    SAME_SPEED,
    Cut,
    balanced,
    chain,
    mirrored,
    rebalanced,
    slower,
    stage_costs,
    u_shaped,
)

COSTS = st.lists(st.floats(0.01, 10), min_size=2, max_size=12)
SPEEDS = st.floats(0.1, 10)
SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=6)


@st.composite
def unets(draw):
    """Units of each block on the way down, in the middle and on the way up."""
    down = draw(SIZES)
    up = draw(st.lists(st.integers(1, 4), min_size=len(down), max_size=len(down)))
    return down, draw(st.integers(0, 3)), up


def spans(sizes, start):
    """First and last unit of each block."""
    found = []
    for size in sizes:
        found.append((start, start + size - 1))
        start += size
    return found


def test_a_chain_is_cut_after_each_block_but_the_last():
    assert chain(4) == [Cut(0, 0), Cut(0, 1), Cut(0, 2)]
    assert chain(1) == chain(0) == []


def test_cuts_of_a_mirrored_chain():
    assert mirrored(8) == [Cut(1, 6), Cut(2, 5), Cut(3, 4)]
    assert mirrored(7) == [Cut(1, 5), Cut(2, 4)]


def test_cuts_of_a_unet():
    #  units    down 0  1 2  3 4  middle 5  up 6 7  8 9  10
    assert u_shaped([1, 2, 2], 1, [2, 2, 1]) == [Cut(1, 8), Cut(1, 9), Cut(3, 6), Cut(3, 7)]


@given(st.integers(2, 40))
def test_a_mirrored_cut_keeps_its_skips_inside(count):
    for cut in mirrored(count):
        for unit in range(count):
            inside = cut.first <= unit <= cut.last
            assert inside == (cut.first <= count - 1 - unit <= cut.last)


@given(unets())
def test_a_cut_of_a_unet_keeps_its_skips_inside(unet):
    down, middle, up = unet
    downs = spans(down, 0)
    ups = spans(up, sum(down) + middle)
    for cut in u_shaped(down, middle, up):
        assert 0 < cut.first < cut.last < sum(down) + middle + sum(up) - 1
        assert cut.first in [first for first, _ in downs]
        for (start, _), (taken, _) in zip(downs, reversed(ups), strict=True):
            # a block on the way up takes its skip when its first unit runs
            assert (start >= cut.first) == (taken <= cut.last)


@given(unets())
def test_cuts_of_a_unet_are_different(unet):
    cuts = u_shaped(*unet)
    assert len(cuts) == len(set(cuts))


@given(COSTS, st.data())
def test_stages_share_all_units_and_b_repeats_those_before_the_first(costs, data):
    last = data.draw(st.integers(0, len(costs) - 1))
    first = data.draw(st.integers(0, last))
    a, b = stage_costs(Cut(first, last), costs)
    assert a + b == pytest.approx(sum(costs) + sum(costs[:first]))


@given(COSTS, SPEEDS)
def test_balanced_is_the_minimum(costs, speed):
    cuts = chain(len(costs))
    best = balanced(cuts, costs, speed)
    assert best in cuts
    assert all(slower(best, costs, speed) <= slower(cut, costs, speed) for cut in cuts)


@given(COSTS, SPEEDS, st.floats(1, 10))
def test_a_faster_worker_gets_no_smaller_share(costs, speed, faster):
    cuts = chain(len(costs))
    slow, fast = balanced(cuts, costs, speed), balanced(cuts, costs, speed * faster)
    assert fast.last >= slow.last


def test_balanced_takes_half_of_equal_units():
    assert balanced(chain(10), [1.0] * 10) == Cut(0, 4)
    assert balanced(chain(10), [1.0] * 10, worker_speed=4) == Cut(0, 7)


@given(COSTS, SPEEDS, st.data())
def test_rebalanced_keeps_the_plan_unless_the_gain_is_worth_it(costs, speed, data):
    cuts = chain(len(costs))
    planned = data.draw(st.sampled_from(cuts))
    chosen = rebalanced(cuts, planned, costs, speed)
    speed = 1.0 if 1 / SAME_SPEED <= speed <= SAME_SPEED else speed
    best = balanced(cuts, costs, speed)
    gain = slower(planned, costs, speed) / slower(best, costs, speed) - 1
    assume(abs(gain - GAIN_WORTH_A_CHANGE) > 1e-9)
    assert chosen == (best if gain > GAIN_WORTH_A_CHANGE else planned)


def test_rebalanced_ignores_small_differences_of_the_clock():
    cuts, planned = chain(4), Cut(0, 1)
    assert rebalanced(cuts, planned, [1.0, 1.03, 0.98, 1.0], 1.0) == planned
    assert rebalanced(cuts, planned, [1.0] * 4, 1.2) == planned
    assert rebalanced(cuts, planned, [1.0] * 4, 3.0) == Cut(0, 2)
    assert rebalanced(cuts, planned, [3.0, 2.0, 1.0, 1.0], 1.0) == Cut(0, 0)

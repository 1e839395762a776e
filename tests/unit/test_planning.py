"""The quickest division of a step, against every division there is."""

from __future__ import annotations

import itertools
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid_core.planning import tokens
from hybrid_core.planning.step import Load, alone, quickest
from hybrid_core.planning.tokens import Gather, Link, Member
from hybrid_core.planning.whole import Pace, Rectangle, divided, makespan

NEARLY = 1.03
paces = st.builds(
    lambda speed, fixed: Pace(1 / speed, fixed), st.floats(1, 5), st.sampled_from((0.0, 0.0, 0.15))
)


def equal(count):
    return (Pace(1.0),) * count


def free(paces, total):
    """Seconds where any device may take any forward passes: one after the other to whoever would
    be done first, which is the least that whole ones can take.
    """
    counts = [0] * len(paces)
    for _ in range(total):
        soonest = min(range(len(paces)), key=lambda i: paces[i].seconds(counts[i] + 1))
        counts[soonest] += 1
    return max(pace.seconds(count) for pace, count in zip(paces, counts, strict=True))


def tilings(devices, branches, pictures):
    """Every way to give each device a rectangle of any rows, or nothing: its forward passes."""
    rows = [
        some
        for count in range(1, branches + 1)
        for some in itertools.combinations(range(branches), count)
    ]
    parts = [
        frozenset((row, at) for row in some for at in range(first, end))
        for some in rows
        for first in range(pictures)
        for end in range(first + 1, pictures + 1)
    ]

    def placed(device, taken):
        if len(taken) == branches * pictures:
            yield (0,) * (devices - device)
            return
        if device == devices:
            return
        for rest in placed(device + 1, taken):
            yield (0, *rest)
        for part in parts:
            if not part & taken:
                for rest in placed(device + 1, taken | part):
                    yield (len(part), *rest)

    return set(placed(0, frozenset()))


TILINGS = {
    shape: tilings(*shape)
    for shape in [(2, 2, 2), (3, 2, 2), (3, 2, 3), (2, 3, 2), (3, 3, 1), (4, 2, 2), (4, 3, 1)]
}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(TILINGS)), st.lists(paces, min_size=4, max_size=4))
def test_no_division_by_rectangles_is_quicker(shape, some):
    devices, branches, pictures = shape
    some = tuple(some[:devices])
    best = min(
        max(pace.seconds(count) for pace, count in zip(some, counts, strict=True))
        for counts in TILINGS[shape]
    )
    assert makespan(some, divided(some, branches, pictures)) <= best * NEARLY


@settings(max_examples=100, deadline=None)
@given(st.lists(paces, min_size=1, max_size=8), st.integers(1, 3), st.integers(1, 16))
def test_one_to_eight_devices_of_any_speed(some, branches, pictures):
    some = tuple(some)
    division = divided(some, branches, pictures)
    cells = [
        (row, at)
        for part in division
        if part is not None
        for row in part.branches
        for at in range(part.first, part.end)
    ]
    assert sorted(cells) == [(b, p) for b in range(branches) for p in range(pictures)], "each once"
    seconds = makespan(some, division)
    assert seconds >= free(some, branches * pictures) * (1 - 1e-9)
    if 1 in (branches, pictures):
        assert seconds <= free(some, branches * pictures) * NEARLY
    assert seconds <= min(pace.seconds(branches * pictures) for pace in some)


@pytest.mark.parametrize(
    ("devices", "branches", "pictures", "expected"),
    [
        (2, 2, 1, [((0,), 0, 1), ((1,), 0, 1)]),
        (2, 3, 1, [((0, 2), 0, 1), ((1,), 0, 1)]),
        (2, 3, 2, [((0, 1, 2), 0, 1), ((0, 1, 2), 1, 2)]),
        (2, 2, 4, [((0,), 0, 4), ((1,), 0, 4)]),
        (2, 1, 5, [((0,), 0, 3), ((0,), 3, 5)]),
        (3, 3, 1, [((1,), 0, 1), ((0,), 0, 1), ((2,), 0, 1)]),
        (3, 2, 1, [((0,), 0, 1), ((1,), 0, 1), None]),
    ],
)  # fmt: skip
def test_equal_devices(devices, branches, pictures, expected):
    found = divided(equal(devices), branches, pictures)
    assert found == tuple(part and Rectangle(*part) for part in expected)


def test_the_slow_one_takes_less_and_is_left_out_where_it_costs_more_than_it_brings():
    fast, slow = Pace(1.0), Pace(2.0)
    found = divided((fast, slow), 2, 4)
    assert [part.forwards for part in found] == [6, 2], "8 forward passes, 2 to 1, in whole columns"
    assert divided((fast, slow), 1, 1)[1] is None
    assert divided((fast, Pace(1.0, fixed=5.0)), 1, 4) == (Rectangle((0,), 0, 4), None)


GATHER = Gather(1000.0, 2, 240)
members = st.builds(
    lambda pace, rate, latency: Member(pace, Link(latency, rate)),
    paces, st.sampled_from((2000.0, 8000.0, 1e9)), st.sampled_from((0.0, 0.01)),
)  # fmt: skip


def by_enumeration(some, gather, steps):
    """Seconds of the best shares in multiples of 1 / steps."""
    best = float("inf")
    for cuts in itertools.combinations_with_replacement(range(steps + 1), len(some) - 1):
        ends = (0, *cuts, steps)
        counts = [(b - a) * gather.tokens // steps for a, b in itertools.pairwise(ends)]
        best = min(best, tokens.slowest(some, counts, gather))
    return best


@settings(max_examples=25, deadline=None)
@given(st.lists(members, min_size=1, max_size=3))
def test_shares_of_tokens_are_within_three_percent_of_the_best(some):
    counts = tokens.shared(some, GATHER)
    assert sum(counts) == GATHER.tokens and min(counts) >= 0
    assert tokens.slowest(some, counts, GATHER) <= by_enumeration(some, GATHER, 40) * NEARLY


@pytest.mark.parametrize("speeds", [(1, 1), (1, 1, 1, 1), (3, 1), (5, 4, 3, 2, 1)])
def test_free_links_give_shares_by_speed(speeds):
    counts = tokens.shared([Member(Pace(1 / speed), Link()) for speed in speeds], GATHER)
    assert counts == [240 * speed // sum(speeds) for speed in speeds]


def test_without_scipy_shares_follow_the_speeds(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    some = [Member(Pace(1.0), Link(rate=1e6)), Member(Pace(3.0), Link(rate=1e6))]
    assert tokens.shared(some, GATHER) == [180, 60]


def test_a_network_behind_a_slow_link_takes_no_tokens():
    some = [Member(Pace(1.0), Link(rate=100.0)), Member(Pace(1.0), Link(rate=100.0))]
    assert tokens.shared(some, GATHER) in ([240, 0], [0, 240])
    assert quickest(some, Load(1, 1, GATHER)).kind == "alone"


def test_two_branches_on_four_devices_go_to_a_pair_each():
    four = [Member(Pace(1.0), Link(rate=20000.0))] * 4
    found = quickest(four, Load(2, 1, GATHER))
    assert found.kind == "groups" and found.shares == (0.25,) * 4
    assert found.seconds == pytest.approx(0.5 + 0.5 * 1000 / 20000)


@settings(max_examples=20, deadline=None)
@given(st.lists(members, min_size=1, max_size=4), st.integers(1, 2), st.integers(1, 3))
def test_more_ways_are_never_slower(some, branches, pictures):
    load = Load(branches, pictures, GATHER)
    found = quickest(some, load)
    assert sum(found.shares) == pytest.approx(1)
    assert found.seconds <= alone(some[0], load) * (1 + 1e-6)
    assert found.seconds <= quickest(some, Load(branches, pictures)).seconds * (1 + 1e-6)

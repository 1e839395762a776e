"""Plans of exact and forecast calls from recorded predictions (benchmarks/gaps.py)."""

import itertools
import random

import pytest
import torch

from benchmarks.gaps import Gaps, plans
from hybrid_core.course.adaptive import LAST_EXACT
from hybrid_core.course.policy import FIRST_EXACT, Reach

CALLS = 12


def test_plans_miss_least_of_all_schedules_with_as_many_exact_calls():
    chance = random.Random(3)
    errors = {gap: chance.random() for gap in itertools.combinations(range(CALLS), 3)}

    def missed(before, start, end):
        return errors[before, start, end] if end > start + 1 else 0.0

    def total(plan):
        return sum(missed(*gap) for gap in zip(plan, plan[1:], plan[2:], strict=False))

    found = plans(missed, CALLS, largest_gap=3)

    first, last = range(FIRST_EXACT), range(CALLS - LAST_EXACT, CALLS)
    between = range(FIRST_EXACT, CALLS - LAST_EXACT)
    best = {}
    for count in range(len(between) + 1):
        for chosen in itertools.combinations(between, count):
            plan = (*first, *chosen, *last)
            if max(b - a for a, b in itertools.pairwise(plan)) <= 4:
                best.setdefault(len(plan), []).append(total(plan))
    assert found.keys() == best.keys()
    for count, plan in found.items():
        assert len(plan) == count and {*first, *last} <= {*plan}
        assert total(plan) == pytest.approx(min(best[count]))


@pytest.mark.parametrize("end", (6, CALLS - LAST_EXACT))
def test_a_gap_misses_what_its_calls_leave_the_expected_course_by(end):
    """Against the sums written out: made good in a line, in the last calls as continued."""
    generator = torch.Generator().manual_seed(0)
    own, apart = torch.randn(2, CALLS, 50, generator=generator, dtype=torch.float64).cumsum(1)
    every = torch.cat([own, apart])
    weights = torch.rand(2, CALLS, generator=generator, dtype=torch.float64).tolist()
    gaps = Gaps((every @ every.T / 50)[None], Reach(*weights))

    before, start = end - 6, end - 4
    lost = torch.zeros(50, dtype=torch.float64)
    for values, weight in zip((own, apart), weights, strict=True):
        slope = values[start] - values[before]
        earlier = values[before] - values[max(before - 2, 0)]
        share = 0.0
        if before:
            share = float((slope @ earlier / (earlier @ earlier)).clamp(0, 1))
        for call in range(start + 1, end):
            line = (values[end] - values[start]) * (call - start) / 4
            if end == CALLS - LAST_EXACT:
                line = share * slope * (call - start) / 2
            lost += weight[call] * (values[call] - values[start] - line)
    assert gaps.missed(before, start, end) == pytest.approx(float(lost.square().mean()), rel=1e-9)


def test_nothing_is_missed_between_neighbours():
    gaps = Gaps(torch.ones(1, 2 * CALLS, 2 * CALLS), Reach([1.0] * CALLS, [1.0] * CALLS))
    assert gaps.missed(3, 4, 5) == 0.0

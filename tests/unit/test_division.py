"""Plans: who evaluates which part."""

from __future__ import annotations

import pytest

from hybrid_core.driver.division import (
    HERE,
    Share,
    alone,
    bounds,
    by_tokens,
    compared,
    divided,
    halves,
    in_stages,
)
from hybrid_core.planning.whole import Pace
from hybrid_core.workers.contract import Part, Pictures

EQUAL = {0: Pace(1.0)}


@pytest.mark.parametrize(
    ("branches", "own", "others"),
    [([0, 1], (0,), (1,)), ([0, 1, 2], (0, 2), (1,)), ([1, 3], (1,), (3,))],
)
def test_every_second_branch_goes_to_the_worker(branches, own, others):
    plan = divided(branches, EQUAL)
    assert plan == [Share(HERE, Part(own)), Share(0, Part(others))]
    turned = divided(branches, EQUAL, turned=True, keep=4)
    assert turned == [Share(HERE, Part(others)), Share(0, Part(own, keep=4))]


def test_one_branch_is_not_divided():
    assert divided([2], EQUAL) == alone([2]) == [Share(HERE, Part((2,)))]


def test_stages_are_of_this_step_here_and_of_the_next_one_there():
    own, ahead = in_stages(0, 1, 0, 7)
    assert own == Share(HERE, Part((0,))) and not own.early
    assert ahead == Share(0, Part((1,), upto=7), early=True)
    assert in_stages(0, None, 0, 7) == [own]


@pytest.mark.parametrize(("batch", "own", "others"), [(2, (0, 1), (1, 2)), (5, (0, 3), (3, 5))])
def test_half_of_the_pictures_goes_to_the_worker(batch, own, others):
    here, there = (Part((0,), pictures=Pictures(*ends, batch)) for ends in (own, others))
    assert divided([0], EQUAL, batch) == [Share(HERE, here), Share(0, there)]
    seen = compared(halves([0], batch), [0])
    assert seen == [Share(HERE, here), Share(0, Part((0,)), compared=True), Share(HERE, there)]


@pytest.mark.parametrize("branches", range(1, 7))
@pytest.mark.parametrize("batch", range(1, 9))
def test_two_equal_devices_have_every_second_branch_or_half_of_the_batch(branches, batch):
    """Whichever share is less, and branches where both are."""
    by_branch, by_picture = -(-branches // 2) * batch, branches * -(-batch // 2)
    every = tuple(range(branches))
    if by_picture < by_branch:
        expected = [share.part for share in halves(every, batch)]
    else:
        expected = [Part(every[::2]), Part(every[1::2])]
    plan = divided(every, EQUAL, batch)
    assert [share.part for share in plan] == [part for part in expected if part.branches]
    assert [share.device for share in plan] == [HERE, 0][: len(plan)]


def test_three_prompts_go_to_three_devices_and_four_share_two_prompts_by_pictures():
    paces = {0: Pace(1.0), 2: Pace(1.0)}
    plan = divided([0, 1, 2], paces)
    assert [share.device for share in plan] == [HERE, 0, 2]
    assert sorted(share.part.branches for share in plan) == [(0,), (1,), (2,)]
    plan = divided([0, 1], {**paces, 3: Pace(1.0)}, 2)
    assert [share.part.forwards for share in plan] == [0.5] * 4


def test_unequal_devices_have_unequal_shares():
    plan = divided([0, 1], {0: Pace(2.0)}, 4)
    assert [share.part.forwards for share in plan] == [1.5, 0.5]
    plan = divided([0], {0: Pace(0.5), 1: Pace(0.5)}, 5)
    assert [share.part.pictures.count for share in plan] == [1, 2, 2]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([1, 1], (0, 500, 1000)),
        ([1, 3], (0, 750, 1000)),
        ([1, 1, 1], (0, 333, 667, 1000)),
        ([1, 2, 4], (0, 571, 857, 1000)),
        ([1, 1e9, 1e9], (0, 998, 999, 1000)),
        ([1e9, 1, 1e9], (0, 1, 999, 1000)),
    ],
)
def test_tokens_are_in_proportion_to_speed_and_everybody_has_some(seconds, expected):
    paces = [Pace(float(one)) for one in seconds]
    assert bounds(paces) == expected
    plan = by_tokens([1], dict(enumerate(paces[1:])))
    assert [share.device for share in plan] == [HERE, *range(len(paces) - 1)]
    assert [share.part.tokens.place for share in plan] == list(range(len(paces)))


def test_this_process_takes_part_however_slow_it_is():
    for batch in (1, 2, 8):
        own = divided([0, 1], {0: Pace(0.1), 1: Pace(0.1)}, batch)[0]
        assert own.device == HERE and own.part.branches


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_every_branch_is_evaluated_once(count):
    for plan in (alone(range(count)), divided(list(range(count)), EQUAL)):
        assert sorted(b for share in plan for b in share.part.branches) == list(range(count))
        assert plan[0].device == HERE


def test_a_large_batch_is_divided_some_pictures_at_a_time():
    plan = divided([0], EQUAL, 1001)
    counts = [share.part.pictures.count for share in plan]
    assert sum(counts) == 1001 and max(counts) <= 504

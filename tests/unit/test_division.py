"""Plans: who evaluates which part."""

from __future__ import annotations

import pytest

from hybrid_core.driver.division import (
    HERE,
    Share,
    alone,
    by_branch,
    by_picture,
    in_stages,
    pictures_pay,
    to_compare_pictures,
)
from hybrid_core.workers.contract import Part, Pictures


@pytest.mark.parametrize(
    ("branches", "own", "others"),
    [([0, 1], (0,), (1,)), ([0, 1, 2], (0, 2), (1,)), ([1, 3], (1,), (3,))],
)
def test_every_second_branch_goes_to_the_worker(branches, own, others):
    plan = by_branch(branches, 0)
    assert plan == [Share(HERE, Part(own)), Share(0, Part(others))]
    turned = by_branch(branches, 0, turned=True, keep=4)
    assert turned == [Share(HERE, Part(others)), Share(0, Part(own, keep=4))]


def test_one_branch_is_not_divided():
    assert by_branch([2], 0) == alone([2]) == [Share(HERE, Part((2,)))]


def test_stages_are_of_this_step_here_and_of_the_next_one_there():
    own, ahead = in_stages(0, 1, 0, 7)
    assert own == Share(HERE, Part((0,))) and not own.early
    assert ahead == Share(0, Part((1,), upto=7), early=True)
    assert in_stages(0, None, 0, 7) == [own]


@pytest.mark.parametrize(("batch", "own", "others"), [(2, (0, 1), (1, 2)), (5, (0, 3), (3, 5))])
def test_half_of_the_pictures_goes_to_the_worker(batch, own, others):
    here, there = (Part((0,), pictures=Pictures(*ends, batch)) for ends in (own, others))
    assert by_picture([0], 0, batch) == [Share(HERE, here), Share(0, there)]
    compared = to_compare_pictures([0], 0, batch)
    assert compared == [Share(HERE, here), Share(0, Part((0,)), compared=True), Share(HERE, there)]


@pytest.mark.parametrize(
    ("branches", "batch", "pays"),
    [(1, 1, False), (1, 2, True), (1, 3, True), (2, 2, False), (2, 3, False), (3, 2, True),
     (3, 3, False), (3, 4, True), (4, 4, False)],
)  # fmt: skip
def test_pictures_are_divided_where_the_larger_share_is_less(branches, batch, pays):
    assert pictures_pay(branches, batch) is pays


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_every_branch_is_evaluated_once(count):
    for plan in (alone(range(count)), by_branch(list(range(count)), 0)):
        assert sorted(b for share in plan for b in share.part.branches) == list(range(count))
        assert plan[0].device == HERE

"""Tokens of one picture over more than two devices: one group, or one for each branch."""

from __future__ import annotations

from collections import deque

import pytest
from tensors import relative
from toy_framework import ONE, PROMPTS, STEPS, Run, Transformer, TransformerModels, serial

from hybrid_core.config import Settings, WorkerDevice
from hybrid_core.driver import tokens
from hybrid_core.driver.division import HERE, by_tokens, seconds
from hybrid_core.errors import WorkerDied
from hybrid_core.planning.whole import Pace
from hybrid_core.telling.report import kinds
from hybrid_core.workers.beside import ThreadLink
from hybrid_core.workers.holdings import Holdings
from hybrid_core.workers.inline import InlineWorker

CLOSE = 1e-5

pytestmark = pytest.mark.usefixtures("inferring")


@pytest.fixture(autouse=True)
def whatever_it_costs(monkeypatch):
    monkeypatch.setattr(tokens, "TRIES", 10**6)


@pytest.fixture
def network():
    return Transformer()


def workers(*paces):
    """Not measured; paces: different cards' own figures."""
    made = []
    for number, pace in enumerate(paces):
        device = WorkerDevice(f"card {number + 1}", differs="another card", pace=pace)
        held = Holdings(InlineWorker(TransformerModels, Settings(), device))
        held.paces = deque(maxlen=0)
        made.append(held)
    return made


def run(network, holdings, prompts):
    return Run(network, holdings, prompts=prompts, divided=True)


def test_four_devices_are_two_groups_of_two():
    """This process and card 2 have the first branch, cards 1 and 3 the second one."""
    plan = by_tokens([0, 1], {device: Pace(1.0) for device in range(4)})
    seen = [(share.device, share.part.branches, share.part.tokens.place) for share in plan]
    assert seen == [(HERE, (0,), 0), (0, (1,), 0), (1, (0,), 1), (2, (1,), 1)]
    assert all(share.part.tokens.relayed and share.part.forwards == 0.5 for share in plan)
    assert [share.part.gives for share in plan] == [1, 1, 0, 0]
    assert not any(share.part.tokens.relayed for share in by_tokens([0], {0: Pace(1.0)}))


def test_groups_have_the_shares_of_their_slowest_devices():
    paces = {0: Pace(1.0), 1: Pace(3.0), 2: Pace(2.0)}
    plan = by_tokens([0, 1], paces)
    assert {share.part.tokens.bounds for share in plan} == {(0, 750, 1000)}
    assert seconds(plan, paces) == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("paces", "prompts", "expected"),
    [
        ((1.0, 1.0), ONE, [1 / 3] * 3),
        ((1.0, 1.0, 1.0), ONE, [0.25] * 4),
        ((2.0, 4.0), ONE, [0.57, 0.29, 0.14]),
        ((1.0, 1.0, 1.0), PROMPTS, [0.5] * 4),
        ((1.0, 1.0, 1.0, 1.0), PROMPTS, [0.5] * 4),
        ((1.0, 3.0, 3.0), PROMPTS, [0.75, 0.75, 0.25, 0.25]),
    ],
)
def test_several_devices_divide_one_picture_and_it_is_the_frameworks(
    network, paces, prompts, expected
):
    holdings, expected_image = workers(*paces), serial(network, prompts, 1)
    first = run(network, holdings, prompts)
    assert relative(first.sample(batch=1), expected_image) < CLOSE
    assert kinds(first.report.steps) == "d" * STEPS and first.report.reasons == []
    assert [step.compared for step in first.report.steps] == [True] + [False] * (STEPS - 1)
    again = run(network, holdings, prompts)
    assert relative(again.sample(batch=1), expected_image) < CLOSE
    report = again.report
    assert not any(step.compared for step in report.steps)
    loads = report.steps[-1].loads
    found = [loads[device] for device in range(-1, len(expected) - 1)]
    assert found == pytest.approx(expected, abs=0.02) and len(loads) == len(expected)
    assert report.ideal == pytest.approx(sum(expected) / max(expected), rel=0.03)
    assert report.steps[-1].share == pytest.approx(expected[0] / len(prompts), abs=0.02)
    assert all(step.gathers == 4 for step in report.steps)


@pytest.mark.parametrize("prompts", [ONE, PROMPTS])
@pytest.mark.parametrize("victim", [0, 1, 2])
def test_one_that_dies_inside_a_gather_costs_no_image_and_the_others_go_on(
    network, monkeypatch, prompts, victim
):
    holdings = workers(1.0, 1.0, 1.0)
    run(network, holdings, prompts).sample(batch=1)
    failing, swap, asked = run(network, holdings, prompts), ThreadLink.swap, []

    def fails(self, at, mine, forms):
        beside = holdings[victim].worker._beside
        if beside is not None and self.theirs is beside.link.mine:
            asked.append(at)
            if len(asked) == 20:
                raise WorkerDied("gone")
        return swap(self, at, mine, forms)

    monkeypatch.setattr(ThreadLink, "swap", fails)
    assert relative(failing.sample(batch=1), serial(network, prompts, 1)) < CLOSE
    (reason,) = failing.report.reasons
    assert reason.startswith(f"without card {victim + 1}: ") and "gone" in reason
    last = failing.report.steps[-1].loads
    assert victim not in last and len(last) == (3 if prompts is ONE else 2)


def test_where_all_of_them_do_not_pay_two_are_tried(network, monkeypatch):
    monkeypatch.setattr(tokens, "TRIES", 2)
    holdings, learn = workers(1.0, 1.0), tokens.TokenSharing.learn

    def costly(self, branches, record):
        record.gathered_seconds = 100.0 if len(record.loads) > 2 else 0.0
        record.own_seconds, record.waited_seconds = 0.1, 0.0
        return learn(self, branches, record)

    monkeypatch.setattr(tokens.TokenSharing, "learn", costly)
    slowed = run(network, holdings, ONE)
    assert relative(slowed.sample(batch=1), serial(network, ONE, 1)) < CLOSE
    assert [len(step.loads) for step in slowed.report.steps] == [3, 3] + [2] * (STEPS - 2)
    (reason,) = slowed.report.reasons
    assert "does not pay here" in reason


def test_branches_of_different_sizes_are_not_grouped(network, monkeypatch):
    monkeypatch.setattr("toy_framework.ToyCall.even", False)
    uneven = run(network, workers(1.0, 1.0, 1.0), PROMPTS)
    assert relative(uneven.sample(batch=1), serial(network, PROMPTS, 1)) < CLOSE
    assert kinds(uneven.report.steps) == "E" * STEPS

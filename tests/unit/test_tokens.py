"""Where tokens are, whose they are, and a transformer of a few lines whose blocks are divided."""

from __future__ import annotations

import logging
import threading
from collections import deque

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tensors import relative
from toy_framework import (
    ONE,
    PROMPTS,
    SIGMAS,
    STEPS,
    MixingModels,
    Run,
    ToyCall,
    Transformer,
    TransformerModels,
    serial,
    start,
    stepped,
)

from hybrid_core.config import WorkerDevice
from hybrid_core.driver import tokens
from hybrid_core.driver.division import by_tokens
from hybrid_core.driver.tokens import NO_BLOCK, OTHERWISE, foretold
from hybrid_core.errors import WorkerDied, WorkerFailed
from hybrid_core.planning.tokens import Link
from hybrid_core.planning.whole import Pace
from hybrid_core.stages.attention import PLAIN
from hybrid_core.stages.token_streams import Cut, Stream
from hybrid_core.stages.tokens import Traffic
from hybrid_core.telling.report import kinds
from hybrid_core.workers.beside import ThreadLink
from hybrid_core.workers.holdings import PACES_KEPT, Holdings
from hybrid_core.workers.inline import InlineWorker

CLOSE = 1e-5
GRIDS = st.lists(st.integers(4, 20), min_size=1, max_size=3).map(tuple)
BOUNDS = st.sampled_from([(0, 500, 1000), (0, 50, 1000), (0, 250, 500, 1000), (0, 1, 2, 3, 1000)])


@given(GRIDS, BOUNDS)
def test_every_token_is_at_one_place_and_each_place_has_one(grid, bounds):
    stream = Stream(grid)
    seen = []
    for place in range(len(bounds) - 1):
        ranges = stream.ranges(bounds, place)
        mine = [at for first, count in ranges for at in range(first, first + count)]
        assert mine
        seen += mine
    assert sorted(seen) == list(range(stream.count))


@given(GRIDS, BOUNDS, st.booleans())
def test_pieces_joined_are_the_whole(grid, bounds, spread):
    stream, other = Stream(grid), Stream((5,))
    if spread:
        cut, whole = Cut(1, (stream,), spread=True), torch.randn(2, *grid, 3)
    else:
        cut, whole = Cut(1, (other, stream)), torch.randn(2, 5 + stream.count, 3)
    pieces = [cut.piece(whole, bounds, place) for place in range(len(bounds) - 1)]
    sizes = [cut.size(whole.shape, bounds, place) for place in range(len(bounds) - 1)]
    assert [tuple(piece.shape) for piece in pieces] == sizes
    assert torch.equal(cut.joined(pieces, whole.shape, bounds), whole)


def test_attention_is_answered_in_the_thread_that_asked_alone():
    before = torch.nn.functional.scaled_dot_product_attention
    x, seen, other = torch.randn(1, 2, 4, 8), [], []

    def attend(kernel, q, k, v, mask, dim):
        seen.append((tuple(k.shape), dim))
        return kernel(q, k, v, mask)

    def beside():
        other.append(torch.nn.functional.scaled_dot_product_attention(x, x, x))

    with PLAIN.by(attend):
        mine = torch.nn.functional.scaled_dot_product_attention(x, x, x)
        thread = threading.Thread(target=beside)
        thread.start()
        thread.join()
    assert torch.equal(mine, other[0]) and seen == [((1, 2, 4, 8), -2)]
    assert torch.nn.functional.scaled_dot_product_attention is before


@pytest.fixture
def worker(monkeypatch):
    """Its tokens are divided, whatever the clock says."""
    monkeypatch.setattr(tokens, "TRIES", 10**6)
    with torch.inference_mode():
        yield InlineWorker(TransformerModels)


@pytest.fixture
def holdings(worker):
    """Not measured: it counts as equally fast."""
    return unmeasured(worker)


def unmeasured(worker):
    held = Holdings(worker)
    held.paces = deque(maxlen=0)
    return held


@pytest.fixture
def network():
    return Transformer()


def run(network, holdings, prompts=ONE, **more):
    return Run(network, holdings, prompts=prompts, divided=True, **more)


def test_one_picture_is_divided_by_tokens_and_is_the_frameworks(network, holdings):
    expected = serial(network, ONE, 1)
    first = run(network, holdings)
    assert relative(first.sample(batch=1), expected) < CLOSE
    assert kinds(first.report.steps) == "d" * STEPS and first.report.reasons == []
    assert [step.compared for step in first.report.steps] == [True] + [False] * (STEPS - 1)
    again = run(network, holdings)
    assert relative(again.sample(batch=1), expected) < CLOSE
    report = again.report
    assert not any(step.compared for step in report.steps)
    assert all(step.divides == "tokens" and step.gathers == 4 for step in report.steps)
    assert report.ideal == pytest.approx(2.0) and report.gather["bytes"] > 0
    assert report.data()["gather"] == report.gather
    assert "tokens divided" in report.line()


@pytest.mark.parametrize(("pace", "share"), [(3.0, 0.75), (0.5, 1 / 3)])
def test_who_is_faster_gets_more_tokens(network, worker, pace, share):
    worker.device = WorkerDevice("another card", differs="another card", pace=pace)
    holdings = unmeasured(worker)
    first = run(network, holdings)
    assert relative(first.sample(batch=1), serial(network, ONE, 1)) < CLOSE
    assert [step.share for step in first.report.steps] == pytest.approx([share] * STEPS, abs=1e-2)
    here = first.report.steps[-1].share
    assert f"tokens divided, {here:.0%} of them here" in first.report.line()


def test_what_both_took_for_their_tokens_is_their_speed(network, worker):
    holdings = Holdings(worker)
    run(network, holdings).sample(batch=1)
    assert len(holdings.paces) == PACES_KEPT and min(holdings.paces) > 0


@pytest.mark.parametrize(
    ("link", "said"),
    [
        (None, "at most 1.96x one device, the link was not measured"),
        (Link(0.001, 1e9), "1.92x one device is expected with a link of 1.0 GB/s and 1000 us"),
        (Link(0.0, 1e6), "0.65x one device is expected with a link of 0.0 GB/s and 0 us"),
    ],
)
def test_what_dividing_may_bring_is_told_before_it_is_done(link, said):
    """An evaluation of 1 s, 10 exchanges of 1 MB in all, a worker that is 1.04 times as slow."""
    traffic = Traffic(blocks=10, exchanges=10, bytes=10**6, seconds=0.5)
    assert said in foretold(traffic, 1.5, by_tokens([0], {0: Pace(1.04)}), link)


def test_the_log_has_what_is_expected_and_what_came_of_it(network, holdings, caplog):
    caplog.set_level(logging.INFO, "hybrid_ksampler")
    run(network, holdings).sample(batch=1)
    before, after = (line for line in caplog.messages if line.startswith(("tokens", "divided by")))
    assert "3 exchanges" in before and "the link was not measured" in before
    assert "on one device" in after


@pytest.fixture
def paying(monkeypatch):
    """Whether divided steps are to pay."""
    monkeypatch.setattr(tokens, "TRIES", 2)
    learn, pays = tokens.TokenSharing.learn, []

    def as_said(self, branches, record):
        record.own_seconds, record.waited_seconds = 1.0, 0.0
        record.gathered_seconds = 0.0 if pays[-1] else 100.0
        return learn(self, branches, record)

    monkeypatch.setattr(tokens.TokenSharing, "learn", as_said)
    return pays


def sampled(network, holdings):
    one = run(network, holdings)
    assert relative(one.sample(batch=1), serial(network, ONE, 1)) < CLOSE
    return one.report


def test_where_it_does_not_pay_the_run_goes_on_alone(network, holdings, paying):
    paying.append(False)
    first, second, *later = (sampled(network, holdings) for _ in range(4))
    for report in first, second:  # something else may have slowed down the first
        assert kinds(report.steps) == "dd" + "s" * (STEPS - 2)
        assert len(report.reasons) == 1 and "does not pay here" in report.reasons[0]
    for report in later:
        assert kinds(report.steps) == "s" * STEPS and report.reasons == second.reasons


def test_what_did_not_pay_once_in_a_while_is_divided_again(network, holdings, paying):
    for pays in [False, True] * 3:
        paying.append(pays)
        kind = "d" * STEPS if pays else "dd" + "s" * (STEPS - 2)
        assert kinds(sampled(network, holdings).steps) == kind


@pytest.mark.parametrize("error", [WorkerDied("gone"), WorkerFailed("out of memory")])
def test_a_failure_inside_a_gather_costs_no_image(network, holdings, monkeypatch, error):
    run(network, holdings).sample(batch=1)
    gather, asked = ThreadLink.gather, []

    def fails(self, at, mine, forms):
        if self.place == 0:
            asked.append(at)
            if len(asked) == 10:
                raise error
        return gather(self, at, mine, forms)

    monkeypatch.setattr(ThreadLink, "gather", fails)
    failed = run(network, holdings)
    assert relative(failed.sample(batch=1), serial(network, ONE, 1)) < CLOSE
    assert kinds(failed.report.steps) == "dd" + "s" * (STEPS - 2)
    assert str(error) in failed.report.reasons[0] and len(failed.said) == 1


def test_a_network_without_such_blocks_is_not_divided_and_says_so(worker):
    network, holdings = Transformer(mixes="block"), Holdings(InlineWorker(MixingModels))
    refused = run(network, holdings)
    assert relative(refused.sample(batch=1), serial(network, ONE, 1)) < CLOSE
    assert kinds(refused.report.steps) == "s" * STEPS and refused.report.reasons == [NO_BLOCK]


def test_a_network_that_differs_by_tokens_is_not_divided_and_says_so(network, holdings):
    joined = Cut.joined

    def wrong(self, pieces, whole, bounds):
        return joined(self, pieces[::-1], whole, bounds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Cut, "joined", wrong)
        refused = run(network, holdings)
        assert relative(refused.sample(batch=1), serial(network, ONE, 1)) < CLOSE
    assert kinds(refused.report.steps) == "s" * STEPS and refused.report.reasons == [OTHERWISE]


def test_steps_of_one_branch_in_a_run_of_two_are_divided_by_tokens(network, holdings):
    """What CFGOverride to 1 does; what PAG asks for beside the guider is not divided."""
    guided, x = run(network, holdings, prompts=PROMPTS), start(1)
    for index in range(STEPS):
        outs = [network(x, torch.full((1,), SIGMAS[index]), p) for p in prompts_at(index)]
        x = stepped(x, outs, index)

    def override(index):
        guided.prompts = [*prompts_at(index), None][:2]

    assert relative(guided.sample(override, batch=1), x) < CLOSE
    report = guided.report
    assert kinds(report.steps) == "EEEEEEddddddEEEEEEEE" and report.reasons == []
    assert [step.compared for step in report.by_tokens] == [True] + [False] * 5
    assert [step.step for step in report.steps] == list(range(STEPS))
    assert f"{STEPS} of {STEPS} steps shared" in report.line()
    beside = run(network, holdings, prompts=PROMPTS)
    call = ToyCall(network, ONE, start(1), torch.ones(1))
    call.aside = True
    beside.driver.evaluate(call)
    (step,) = beside.report.steps
    assert (step.kind, step.step, call.asked) == ("single", None, [(0,)])


def prompts_at(index):
    return ONE if 6 <= index < 12 else PROMPTS


def test_what_one_device_took_is_what_dividing_is_measured_by(network, holdings, worker):
    shared = run(network, holdings)
    assert shared.driver._tokens._alone is None
    worker.ready = lambda: len(shared.report.steps) > 2
    shared.sample(batch=1)
    steps = kinds(shared.report.steps)
    assert steps.startswith("sss") and steps.endswith("dd") and steps.strip("s").strip("d") == ""
    assert shared.driver._tokens._alone == min(s.own_seconds for s in shared.report.of("single"))

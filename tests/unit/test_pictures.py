"""A batch divided by pictures: one branch, half of the pictures on each device."""

from __future__ import annotations

import pytest
import torch
from tensors import relative
from toy_framework import PROMPTS, STEPS, Network, Run, ToyModels, serial

from hybrid_core.driver.crew import INSEPARABLE
from hybrid_core.errors import ProtocolError, WorkerDied, WorkerFailed
from hybrid_core.telling.report import kinds
from hybrid_core.workers.contract import Part, Pictures
from hybrid_core.workers.evaluator import Evaluator
from hybrid_core.workers.process.parts import pictures

pytestmark = pytest.mark.usefixtures("inferring")

CLOSE = 1e-5
ONE = PROMPTS[:1]


@pytest.mark.parametrize("batch", [2, 3, 4])
def test_one_branch_is_divided_by_pictures_and_is_the_frameworks(network, holdings, batch):
    first = Run(network, holdings, prompts=ONE)
    seen = first.sample(batch=batch)
    assert relative(seen, serial(network, ONE, batch)) < CLOSE
    assert [step.compared for step in first.report.steps] == [True] + [False] * (STEPS - 1)
    assert first.calls == [[(0,), (0,)]] + [[(0,)]] * (STEPS - 1), "the first step is all here"
    run = Run(network, holdings, prompts=ONE)
    assert torch.equal(run.sample(batch=batch), seen)
    report = run.report
    assert kinds(report.steps) == "d" * STEPS and (report.reasons, run.said) == ([], [])
    assert report.divided == report.shared == STEPS
    assert report.ideal == pytest.approx(batch / -(-batch // 2))
    assert report.bytes_sent > 0 and report.bytes_received > 0
    assert all(step.worker_seconds is not None for step in report.steps)


def test_one_picture_of_one_branch_needs_no_worker(network, holdings, worker):
    run = Run(network, holdings, prompts=ONE)
    assert torch.equal(run.sample(batch=1), serial(network, ONE, 1))
    assert kinds(run.report.steps) == "s" * STEPS and not worker.alive


def test_a_worker_that_dies_gives_the_same_bits(network, holdings, worker):
    expected = Run(network, holdings, prompts=ONE).sample(batch=3)
    run = Run(network, holdings, prompts=ONE)
    seen = run.sample(lambda step: worker.end("died") if step == 7 else None, batch=3)
    assert torch.equal(seen, expected)
    assert kinds(run.report.steps) == "d" * 7 + "s" * 13
    assert run.calls[7:] == [[(0,), (0,)]] * 13, "a part at a time"
    (reason,) = run.report.reasons
    assert "the worker was stopped" in reason and len(run.said) == 1


@pytest.mark.parametrize("error", [WorkerFailed("out of memory"), WorkerDied("gone")])
def test_pictures_that_a_worker_fails_at_are_evaluated_here(
    network, holdings, worker, monkeypatch, error
):
    expected = Run(network, holdings, prompts=ONE).sample(batch=2)
    run, collect = Run(network, holdings, prompts=ONE), worker.collect

    def fails(*arguments):
        if len(run.report.steps) == 5:
            raise error
        return collect(*arguments)

    monkeypatch.setattr(worker, "collect", fails)
    assert torch.equal(run.sample(batch=2), expected)
    assert kinds(run.report.steps) == "d" * 5 + "s" * 15
    assert str(error) in run.report.reasons[0]


def test_a_network_that_mixes_its_pictures_is_not_divided(network, holdings, worker):
    """As a video model whose frames are the batch."""
    Run(network, holdings).sample()
    plain = Network.forward

    def mixed(self, x, sigma, prompt):
        return plain(self, x + 0.1 * x.mean(0, keepdim=True), sigma, prompt)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Network, "forward", mixed)
        holdings.compared.clear()
        run = Run(network, holdings, prompts=ONE)
        assert relative(run.sample(batch=4), serial(network, ONE, 4)) == 0
        assert kinds(run.report.steps) == "s" * STEPS and run.report.reasons == [INSEPARABLE]
        assert run.calls == [[(0,)] * 3] + [[(0,)]] * (STEPS - 1)
        again = Run(network, holdings, prompts=ONE)
        again.sample(batch=4)
        assert again.calls == [[(0,)]] * STEPS and again.report.reasons == [INSEPARABLE]
        both = Run(network, holdings)
        assert relative(both.sample(batch=4), serial(network, batch=4)) < CLOSE
        assert kinds(both.report.steps) == "E" * STEPS, "its branches still are"
    assert worker.alive


def test_a_network_that_takes_whole_batches_only_is_not_divided(network, holdings, worker):
    plain = Network.forward

    def whole(self, x, sigma, prompt):
        if len(x) != 4:
            raise RuntimeError("shape '[1, 4]' is invalid")
        return plain(self, x, sigma, prompt)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Network, "forward", whole)
        run = Run(network, holdings, prompts=ONE)
        assert torch.equal(run.sample(batch=4), serial(network, ONE, 4))
    assert kinds(run.report.steps) == "s" * STEPS and run.report.reasons == [INSEPARABLE]
    assert worker.alive and worker.idle()


@pytest.mark.parametrize("error", [MemoryError, torch.cuda.OutOfMemoryError])
def test_no_memory_for_a_part_tells_nothing_of_the_network(network, holdings, error):
    plain = Network.forward

    def full(self, x, sigma, prompt):
        if len(x) != 4:
            raise error("no memory")
        return plain(self, x, sigma, prompt)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Network, "forward", full)
        run = Run(network, holdings, prompts=ONE)
        assert torch.equal(run.sample(batch=4), serial(network, ONE, 4))
    assert kinds(run.report.steps) == "s" * STEPS and run.report.reasons == []
    later = Run(network, holdings, prompts=ONE)
    assert relative(later.sample(batch=4), serial(network, ONE, 4)) < CLOSE
    assert kinds(later.report.steps) == "d" * STEPS and later.report.reasons == []


@pytest.mark.parametrize("prompts", [ONE, PROMPTS])
def test_predictions_that_are_no_numbers_tell_nothing_of_the_network(network, holdings, prompts):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Network, "forward", lambda self, x, sigma, prompt: x * torch.nan)
        run = Run(network, holdings, prompts=prompts)
        assert run.sample(batch=2).isnan().all()
    assert run.report.shared == 0 and run.report.reasons == []
    later = Run(network, holdings, prompts=prompts)
    assert relative(later.sample(batch=2), serial(network, prompts, 2)) < CLOSE
    assert later.report.shared == STEPS and later.report.reasons == []


def test_a_network_that_predicts_otherwise_is_not_shared(network, holdings, worker):
    plain = network.forward
    network.forward = lambda *arguments: plain(*arguments) * 1.001
    run = Run(network, holdings, prompts=ONE)
    assert relative(run.sample(batch=2), serial(network, ONE, 2)) < CLOSE
    assert kinds(run.report.steps) == "s" * STEPS and run.report.shared == 0
    (said,) = run.said
    assert "another prediction" in said and INSEPARABLE not in run.report.reasons


def test_nothing_is_divided_before_it_was_compared(network, holdings, worker, monkeypatch):
    """The worker comes late: until then the batch is whole."""
    comes = []
    monkeypatch.setattr(worker, "ready", lambda: worker.alive and len(comes) > 6)
    run = Run(network, holdings, prompts=ONE)
    seen = run.sample(comes.append, batch=2)
    assert relative(seen, serial(network, ONE, 2)) < CLOSE
    assert kinds(run.report.steps) == "s" * 7 + "d" * 13
    assert run.calls[:8] == [[(0,)]] * 7 + [[(0,), (0,)]]


def test_the_worker_refuses_pictures_that_did_not_come(network):
    evaluator = Evaluator(ToyModels())
    evaluator.load({"state": network.state_dict()})
    evaluator.hold(1, ONE)
    inputs = [torch.zeros(2, 4, 8, 8), torch.ones(2)]
    part = Part((), pictures=Pictures(1, 4, 4))
    with pytest.raises(ProtocolError, match="2 pictures came, expected Pictures"):
        evaluator.evaluate(1, inputs, part)


@pytest.mark.parametrize(
    "named", [[], [0, 1], [0, 1, 2, 3], [1, 1, 2], [2, 1, 2], [0, 3, 2], [-1, 1, 2], [0, True, 2],
              [0, 1.0, 2], "012", None],
)  # fmt: skip
def test_pictures_of_another_form_are_refused(named):
    with pytest.raises(ProtocolError, match="field 'pictures'"):
        pictures({"pictures": named})


def test_pictures_of_a_message():
    assert pictures({"pictures": [1, 3, 3]}) == Pictures(1, 3, 3)
    assert pictures({}) is None

"""The loop of a run, with a worker in this process and a framework of a few lines."""

from __future__ import annotations

import pytest
import torch
from tensors import relative
from toy_framework import PROMPTS, STEPS, Run, serial

from hybrid_core.errors import WorkerDied, WorkerFailed
from hybrid_core.stages import plan
from hybrid_core.telling.report import kinds

pytestmark = pytest.mark.usefixtures("inferring")

CLOSE = 1e-5


@pytest.fixture(autouse=True)
def cut_by_size(monkeypatch):
    """The cut does not follow the clock in these tests, whatever else the machine does."""
    monkeypatch.setattr(plan, "rebalanced", lambda cuts, planned, *_: planned)


def warm(network, holdings):
    """The worker has its replica, as after a first run."""
    Run(network, holdings).sample()


def test_an_exact_run_shares_every_step_and_is_the_frameworks(network, holdings):
    warm(network, holdings)
    run = Run(network, holdings)
    assert relative(run.sample(), serial(network)) < CLOSE
    report = run.report
    assert kinds(report.steps) == "E" * STEPS and (report.status, report.reasons) == ("done", [])
    assert run.calls == [[(0,)]] * STEPS, "this process evaluates the cond branch alone"
    assert report.ratio is not None and report.bytes_sent > 0 and report.bytes_received > 0
    assert [step.step for step in report.steps] == list(range(STEPS))
    assert all(step.worker_seconds is not None for step in report.steps)
    assert all(step.discrepancy > 0 for step in report.steps)


def test_a_run_shares_from_the_moment_the_worker_is_ready(network, holdings, worker, monkeypatch):
    warm(network, holdings)
    expected = Run(network, holdings).sample()
    worker.end(None)
    comes = []
    monkeypatch.setattr(worker, "ready", lambda: len(comes) > 6)
    run = Run(network, holdings)
    assert torch.equal(run.sample(comes.append), expected), "before that it evaluates alike"
    assert kinds(run.report.steps) == "L" * 7 + "E" * 13
    assert run.report.reasons == []


def patient(network, holdings, **tuning):
    """A run of a model whose code may compile at its first evaluation, which is to be compared."""
    warm(network, holdings)
    holdings.compared.clear()
    run = Run(network, holdings, **tuning)
    run.lease.patient = True
    return run


def test_nobody_waits_for_a_first_evaluation_that_may_compile(
    network, holdings, worker, monkeypatch
):
    run, comes = patient(network, holdings), []
    monkeypatch.setattr(worker, "answered", lambda number: len(comes) > 6)
    assert relative(run.sample(comes.append), serial(network)) < CLOSE
    assert kinds(run.report.steps) == "L" * 6 + "E" * 14 and run.report.reasons == []
    assert run.calls[0] == [(0,), (1,)] and run.calls[6] == [(0,)]


def test_a_model_that_was_evaluated_before_it_changed_is_waited_for(network, holdings):
    warm(network, holdings)
    for key in holdings.compared:
        holdings.compared[key] = "as it was"
    run = Run(network, holdings)
    run.lease.patient = True
    assert relative(run.sample(), serial(network)) < CLOSE
    assert kinds(run.report.steps) == "E" * STEPS


def test_a_late_answer_that_differs_ends_the_sharing(network, holdings):
    run = patient(network, holdings)
    with torch.no_grad():
        network.blocks[0].weight.add_(1.0)
    assert relative(run.sample(), serial(network)) < CLOSE
    assert kinds(run.report.steps) == "L" * STEPS
    assert "gives another prediction" in run.report.reasons[0]


def test_a_first_evaluation_that_never_ends_ends_the_worker(network, holdings, worker, monkeypatch):
    run = patient(network, holdings, load_seconds=1e-6)
    monkeypatch.setattr(worker, "answered", lambda number: False)
    assert relative(run.sample(), serial(network)) < CLOSE
    assert "the first evaluation took longer" in run.report.reasons[0] and not worker.alive


def test_a_second_run_loads_nothing(network, holdings):
    warm(network, holdings)
    Run(network, holdings).sample()
    assert holdings.loads == 1


def test_mode_adaptive_pipelines_and_stays_close(network, holdings):
    warm(network, holdings)
    run = Run(network, holdings, "adaptive", kinds={"pipelined"}, tolerance=1e9, largest_gap=2)
    seen = run.sample()
    found = kinds(run.report.steps)
    assert found == "EEEEpEppEppEppEppEEE"
    assert run.report.cut == "blocks.1"
    assert CLOSE < relative(seen, serial(network)) < 0.05
    asked = [calls for calls, step in zip(run.calls, run.report.steps, strict=True)
             if step.kind == "pipelined"]  # fmt: skip
    assert all(len(call) == 1 and len(call[0]) == 1 for call in asked), "one branch a step"


def test_a_forecast_step_evaluates_nothing_anywhere(network, holdings):
    warm(network, holdings)
    run = Run(network, holdings, "adaptive", tolerance=1e9, largest_gap=2)
    seen = run.sample()
    assert kinds(run.report.steps) == "EEEFEFFEFFEFFEFFEEEE"
    assert CLOSE < relative(seen, serial(network)) < 0.02
    for calls, step in zip(run.calls, run.report.steps, strict=True):
        assert bool(calls) == (step.kind != "forecast")
    assert run.report.ideal == pytest.approx(40 / 11)


@pytest.mark.parametrize("prompts", [PROMPTS, PROMPTS[:1]])
def test_one_device_forecasts_too(network, holdings, prompts):
    run = Run(network, holdings, "adaptive", prompts, tolerance=1e9, largest_gap=2)
    seen = run.sample(obstacle="another node is in the way")
    found = kinds(run.report.steps)
    assert found.replace("L", "E").replace("s", "E") == "EEEFEFFEFFEFFEFFEEEE"
    assert CLOSE < relative(seen, serial(network, prompts)) < 0.02
    assert run.report.ideal == pytest.approx(20 / 11)
    assert run.said == ["on one device: another node is in the way"]


def test_no_tolerance_gives_the_frameworks_own_bits_on_one_device(network, holdings):
    run = Run(network, holdings, "adaptive", tolerance=0.0)
    seen = run.sample(obstacle="another node is in the way")
    assert torch.equal(seen, Run(network, holdings).sample(obstacle="another one"))
    assert kinds(run.report.steps) == "L" * STEPS


def test_mode_paper_mixes_the_branches_features(network, holdings):
    warm(network, holdings)
    run = Run(network, holdings, "paper", window=3, slope=1e9, length=20)
    seen = run.sample()
    assert run.report.pipelined == 6 and run.report.local == 0
    assert CLOSE < relative(seen, serial(network)) < 0.5


def test_one_branch_is_pipelined_too(network, holdings):
    warm(network, holdings)
    prompts = PROMPTS[:1]
    run = Run(network, holdings, "adaptive", prompts, kinds={"pipelined"}, tolerance=1e9)
    seen = run.sample()
    assert set(kinds(run.report.steps)) == {"s", "p"}
    assert CLOSE < relative(seen, serial(network, prompts)) < 0.1


def test_a_worker_that_dies_gives_the_same_bits(network, holdings, worker):
    warm(network, holdings)
    expected = Run(network, holdings).sample()
    run = Run(network, holdings)
    assert torch.equal(run.sample(lambda step: worker.end("died") if step == 7 else None), expected)
    assert kinds(run.report.steps) == "E" * 7 + "L" * 13
    (reason,) = run.report.reasons
    assert "the worker was stopped" in reason and len(run.said) == 1


@pytest.mark.parametrize(
    ("error", "ended"), [(WorkerFailed("out of memory"), False), (WorkerDied("gone"), True)]
)
def test_a_failed_request_ends_a_worker_whose_state_is_not_known(
    network, holdings, worker, monkeypatch, error, ended
):
    warm(network, holdings)
    expected = Run(network, holdings).sample()

    collect = worker.collect

    def fails(*arguments):
        collect(*arguments)
        raise error

    monkeypatch.setattr(worker, "collect", fails)
    run = Run(network, holdings)
    assert relative(run.sample(), expected) < CLOSE
    assert worker.alive != ended and str(error) in (worker.last_error or "")
    assert str(error) in run.report.reasons[0] and run.report.shared == 0
    monkeypatch.undo()
    warm(network, holdings)
    again = Run(network, holdings)
    again.sample()
    assert again.report.local == 0


@pytest.mark.parametrize("where", ["begin", "take_in", "ready", "ask", "collect", "finish", "told"])
def test_a_fault_of_this_pack_costs_no_image(network, holdings, worker, monkeypatch, where):
    warm(network, holdings)
    run = Run(network, holdings, "adaptive", tolerance=1e9, largest_gap=2)
    armed = []

    def fails(*_, **__):
        if armed:
            raise ZeroDivisionError("a fault")
        return original(*_, **__)

    owner, name = {
        "begin": (run.course, "begin"), "take_in": (run.pipeline, "take_in"),
        "ready": (run.lease, "ready"), "ask": (run.lease, "ask"),
        "collect": (run.lease, "collect"), "finish": (run.pipeline, "saw"),
        "told": (run.driver._watcher, "stepped"),
    }[where]  # fmt: skip
    original = getattr(owner, name)
    monkeypatch.setattr(owner, name, fails)
    seen = run.sample(lambda step: armed.append(step) if step == 5 else None)
    assert relative(seen, serial(network)) < 0.05
    assert kinds(run.report.steps)[-13:] == "L" * 13 and len(run.report.steps) >= STEPS
    (said,) = run.said
    assert "ZeroDivisionError: a fault" in said
    assert not worker.alive, "what it was asked is not known"
    monkeypatch.undo()
    warm(network, holdings)
    again = Run(network, holdings)
    again.sample()
    assert again.report.local == 0


def test_a_fault_before_the_first_step_has_a_reason(network, holdings):
    run = Run(network, holdings)
    run.driver._rent = lambda: [].pop()
    assert torch.equal(run.sample(), serial(network))
    assert run.report.reasons == ["a fault of this pack, IndexError: pop from empty list"]
    assert kinds(run.report.steps) == "L" * STEPS and len(run.said) == 1


def test_a_watcher_hears_of_the_steps_after_a_fault(network, holdings, monkeypatch):
    warm(network, holdings)
    run, heard = Run(network, holdings), []
    monkeypatch.setattr(
        run.driver._watcher, "stepped", lambda report: heard.append(kinds(report.steps))
    )

    def harm(step):
        if step == 5:
            monkeypatch.setattr(run.lease, "ask", lambda *_: 1 // 0)

    run.sample(harm)
    assert heard == ["E" * min(n, 5) + "L" * (n - 5) for n in range(1, STEPS + 1)]


def test_an_error_of_the_network_itself_is_raised_as_it_is(network, holdings, worker):
    warm(network, holdings)
    run = Run(network, holdings)

    def harm(step):
        if step == 4:
            network.forward = fails

    def fails(*_):
        raise MemoryError("the network's own")

    with pytest.raises(MemoryError, match="the network's own") as caught:
        run.sample(harm)
    assert caught.value.__cause__ is None
    assert worker.alive and worker.idle(), "nothing that is under way is wanted"


@pytest.mark.parametrize("base", [BaseException, Exception])  # ComfyUI's, and older ones'
def test_cancel_goes_through_and_keeps_the_worker(network, holdings, worker, base):
    warm(network, holdings)

    class Interrupted(base):
        pass

    ticks = []

    def tick():
        ticks.append(1)
        if len(ticks) == 6:
            raise Interrupted

    run = Run(network, holdings, tick=tick, cancelled=Interrupted)
    with pytest.raises(Interrupted):
        run.sample()
    assert worker.alive and worker.idle()
    again = Run(network, holdings)
    again.sample()
    assert again.report.local == 0


def test_what_cannot_be_shared_is_the_frameworks_own_and_says_why_once(network, holdings):
    warm(network, holdings)
    run = Run(network, holdings)
    assert torch.equal(run.sample(obstacle="a patch"), serial(network))
    assert run.calls == [[(0, 1)]] * STEPS, "in one go"
    assert run.report.reasons == ["a patch"] and len(run.said) == 1
    assert kinds(run.report.steps) == "L" * STEPS


def test_evaluations_of_other_branches_are_no_steps(network, holdings):
    """PAG and its kin ask for the cond branch once more."""
    warm(network, holdings)
    run = Run(network, holdings)
    original = run.driver.evaluate

    def with_another(call):
        out = original(call)
        call.conds, call.aside = [call.conds[0]], True
        original(call)
        call.conds = PROMPTS
        return out

    run.driver.evaluate = with_another
    assert relative(run.sample(), serial(network)) < CLOSE
    assert kinds(run.report.steps) == "Ed" * STEPS, "whose pictures are divided"
    assert [s.step for s in run.report.steps if s.kind == "shared"] == [None] * STEPS
    assert f"{STEPS} of {STEPS} steps shared" in run.report.line()


@pytest.mark.parametrize(
    ("batch", "own", "kind"), [(1, (0, 2), "E"), (2, (0, 1, 2), "d"), (3, (0, 2), "E")]
)
def test_three_branches_go_by_branch_or_by_picture_whichever_is_less(
    network, holdings, batch, own, kind
):
    prompts = [*PROMPTS, PROMPTS[0] * 0.5]
    Run(network, holdings, prompts=prompts).sample(batch=batch)
    run = Run(network, holdings, "adaptive", tolerance=1e9)
    run.prompts = prompts
    seen = run.sample(batch=batch)
    assert run.calls == [[own]] * STEPS
    assert kinds(run.report.steps) == kind * STEPS
    assert relative(seen, serial(network, prompts, batch)) < CLOSE
    assert "more than two branches" in run.report.unshortened and run.report.reasons == []


def test_equality_is_seen_once_before_anything_is_shared(network, holdings):
    run = Run(network, holdings)
    assert relative(run.sample(), serial(network)) < CLOSE
    assert run.calls == [[(0,), (1,)]] + [[(0,)]] * (STEPS - 1), "the first step is all here"
    assert [step.compared for step in run.report.steps] == [True] + [False] * (STEPS - 1)
    assert run.report.milliseconds["compared"] > 0
    assert run.report.ideal == pytest.approx(2 * STEPS / (STEPS + 1))
    again = Run(network, holdings)
    again.sample()
    assert not any(step.compared for step in again.report.steps)


def test_a_network_that_predicts_otherwise_is_not_shared(network, holdings, worker):
    """Something was changed that neither weights nor portraits show."""
    plain = network.forward
    network.forward = lambda *arguments: plain(*arguments) * 1.001
    run = Run(network, holdings)
    assert relative(run.sample(), serial(network)) < CLOSE
    assert kinds(run.report.steps) == "L" * STEPS and run.report.shared == 0
    (said,) = run.said
    assert "another prediction" in said and worker.alive
    again = Run(network, holdings)
    again.sample()
    assert again.report.shared == 0 and again.calls == [[(0, 1)]] * STEPS, "not tried again"


def test_a_network_that_is_plain_again_is_shared_again(network, holdings):
    plain = network.forward
    network.forward = lambda *arguments: plain(*arguments) * 1.001
    Run(network, holdings).sample()
    del network.forward
    run = Run(network, holdings)
    assert relative(run.sample(), serial(network)) < CLOSE
    assert kinds(run.report.steps) == "E" * STEPS
    assert run.report.steps[0].compared, "it was not seen alike yet"


def test_a_network_changed_between_runs_is_compared_anew(network, holdings):
    warm(network, holdings)
    plain = network.forward
    network.forward = lambda *arguments: plain(*arguments) * 1.0
    run = Run(network, holdings)
    run.sample()
    assert kinds(run.report.steps) == "E" * STEPS and run.report.steps[0].compared


def test_a_network_changed_while_it_samples_is_told(network, holdings):
    warm(network, holdings)
    plain, run = network.forward, Run(network, holdings)

    def harm(step):
        if step == 9:
            network.forward = lambda *arguments: plain(*arguments) * 1.001

    run.sample(harm)
    assert "changed the network while it sampled" in run.report.reasons[0] and len(run.said) == 1
    again = Run(network, holdings)
    again.sample()
    assert again.report.shared == 0, "it was compared anew"


def test_a_prompt_that_is_written_to_between_steps_is_sent_again(network, holdings):
    """Under inference mode torch does not count writes."""
    warm(network, holdings)
    prompts = [prompt.clone() for prompt in PROMPTS]

    def harm(index):
        if index == 8:
            prompts[1].mul_(-1.0)

    run = Run(network, holdings, prompts=prompts)
    seen = run.sample(harm)
    assert kinds(run.report.steps) == "E" * STEPS
    prompts = [prompt.clone() for prompt in PROMPTS]
    alone = Run(network, holdings, prompts=prompts)
    expected = alone.sample(harm, obstacle="alone")
    assert relative(seen, expected) < CLOSE
    assert relative(expected, serial(network)) > 0.01, "it matters"

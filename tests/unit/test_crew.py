"""Several workers in one run: shares by speed, one that fails, one that comes up later."""

from __future__ import annotations

from collections import deque

import pytest
from tensors import relative
from toy_framework import PROMPTS, STEPS, Run, ToyModels, serial

from hybrid_core.config import Settings, WorkerDevice
from hybrid_core.driver import crew
from hybrid_core.driver.crew import Crew
from hybrid_core.errors import WorkerDied, WorkerFailed
from hybrid_core.telling.report import kinds
from hybrid_core.workers.holdings import PACES_KEPT, Holdings
from hybrid_core.workers.inline import InlineWorker

CLOSE = 1e-5
THREE = [*PROMPTS, PROMPTS[0] * 0.5]


pytestmark = pytest.mark.usefixtures("inferring")


def workers(count, paces=None):
    """Holdings of inline workers, which are not measured; paces: different cards' own figures."""
    made = []
    for number in range(count):
        device = WorkerDevice(f"card {number + 1}")
        if paces is not None:
            device = WorkerDevice(device.label, differs="another card", pace=paces[number])
        held = Holdings(InlineWorker(ToyModels, Settings(), device))
        held.paces = deque(maxlen=0)
        made.append(held)
    return made


def loads(run):
    """What each device does of the last step, this process first."""
    last = run.report.steps[-1].loads
    return [round(last.get(device, 0.0), 3) for device in range(-1, max(last) + 1)]


def warm(network, holdings, prompts=PROMPTS, batch=2):
    Run(network, holdings, prompts=prompts).sample(batch=batch)


@pytest.mark.parametrize(
    ("count", "prompts", "batch", "expected"),
    [
        (2, THREE, 1, [1, 1, 1]),
        (2, PROMPTS[:1], 3, [1 / 3] * 3),
        (3, PROMPTS, 2, [0.5] * 4),
        (3, PROMPTS[:1], 8, [0.25] * 4),
        (2, PROMPTS, 4, [0.75, 0.75, 0.5]),
    ],
)
def test_every_device_has_its_share_and_the_image_is_the_frameworks(
    network, count, prompts, batch, expected
):
    holdings = workers(count)
    first = Run(network, holdings, prompts=prompts)
    assert relative(first.sample(batch=batch), serial(network, prompts, batch)) < CLOSE
    assert first.report.reasons == [] and first.report.steps[0].compared
    run = Run(network, holdings, prompts=prompts)
    assert relative(run.sample(batch=batch), serial(network, prompts, batch)) < CLOSE
    assert loads(run) == pytest.approx(expected, abs=1e-3)
    assert run.report.shared == STEPS and not any(s.compared for s in run.report.steps)
    assert run.report.ideal == pytest.approx(sum(expected) / max(expected))
    assert all(held.worker.bytes_sent for held in holdings)


@pytest.mark.parametrize(
    ("paces", "prompts", "batch", "expected"),
    [
        ([2.0], PROMPTS, 4, [1.5, 0.5]),
        ([0.5], PROMPTS[:1], 3, [1 / 3, 2 / 3]),
        ([1.5, 3.0], PROMPTS[:1], 6, [0.5, 1 / 3, 1 / 6]),
        ([4.0], PROMPTS, 1, [2]),
        ([0.2, 0.2], PROMPTS, 2, [0.5, 0.5, 1]),
    ],
)
def test_shares_follow_the_speeds(network, paces, prompts, batch, expected):
    holdings = workers(len(paces), paces)
    warm(network, holdings, prompts, batch)
    run = Run(network, holdings, prompts=prompts)
    assert relative(run.sample(batch=batch), serial(network, prompts, batch)) < CLOSE
    assert loads(run) == pytest.approx(expected, abs=1e-3)
    assert run.report.reasons == []


@pytest.mark.parametrize("error", [WorkerFailed("out of memory"), WorkerDied("gone")])
@pytest.mark.parametrize("victim", [0, 1, 2])
def test_one_that_fails_leaves_and_the_others_go_on(network, monkeypatch, error, victim):
    holdings = workers(3)
    warm(network, holdings, batch=4)
    run = Run(network, holdings)
    worker = holdings[victim].worker
    collect = worker.collect

    def fails(*arguments):
        answer = collect(*arguments)
        if len(run.report.steps) == 5:
            raise error
        return answer

    monkeypatch.setattr(worker, "collect", fails)
    assert relative(run.sample(batch=4), serial(network, batch=4)) < CLOSE
    assert kinds(run.report.steps) == "d" * STEPS, "also the step in which it failed"
    assert victim in run.report.steps[5 - 1].loads and victim not in run.report.steps[6].loads
    assert len(run.report.steps[6].loads) == 3
    (reason,) = run.report.reasons
    assert reason.startswith(f"without card {victim + 1}: ") and str(error) in reason
    monkeypatch.undo()
    again = Run(network, holdings)
    again.sample(batch=4)
    assert len(again.report.steps[-1].loads) == 4, "the next run has all of them"


def test_all_fail_one_after_the_other(network):
    holdings = workers(3)
    warm(network, holdings, THREE, batch=4)
    run = Run(network, holdings, prompts=THREE)

    def harm(step):
        if step in (5, 9, 13):
            holdings[(step - 5) // 4].worker.end("died")

    assert relative(run.sample(harm, batch=4), serial(network, THREE, 4)) < CLOSE
    assert [len(step.loads) for step in run.report.steps] == [4] * 5 + [3] * 4 + [2] * 4 + [1] * 7
    assert len(run.report.reasons) == 3 and len(run.said) == 1


def test_one_that_comes_up_joins_at_the_next_step(network, monkeypatch):
    holdings = workers(2)
    warm(network, holdings, THREE, batch=1)
    late = holdings[1].worker
    late.end(None)
    came = []
    monkeypatch.setattr(late, "ready", lambda: late.alive and len(came) > 6)
    run = Run(network, holdings, prompts=THREE)
    assert relative(run.sample(came.append, batch=1), serial(network, THREE, 1)) < CLOSE
    taking = [len(step.loads) for step in run.report.steps]
    assert taking[:7] == [2] * 7 and taking[-11:] == [3] * 11
    assert [step.compared for step in run.report.steps].index(True) in (7, 8), "seen alike first"
    assert run.report.reasons == []


def test_a_worker_that_predicts_otherwise_leaves_and_the_others_stay(network, monkeypatch):
    holdings = workers(2)
    plain = ToyModels.evaluate

    def otherwise(self, *arguments):
        return [1.01 * out for out in plain(self, *arguments)]

    holdings[1].worker.start()
    models = holdings[1].worker._evaluator.models
    monkeypatch.setattr(models, "evaluate", otherwise.__get__(models))
    run = Run(network, holdings, prompts=THREE)
    assert relative(run.sample(batch=1), serial(network, THREE, 1)) < CLOSE
    assert [sorted(step.loads) for step in run.report.steps[1:]] == [[-1, 0]] * (STEPS - 1)
    assert "another prediction" in run.report.reasons[0]


def test_only_as_many_are_started_as_are_of_use(network):
    holdings = workers(3)
    warm(network, holdings, batch=1)
    assert [held.worker.alive for held in holdings] == [True, False, False]
    warm(network, holdings, PROMPTS[:1], batch=3)
    assert [held.worker.alive for held in holdings] == [True, True, False]


def test_a_pipeline_has_one_worker_and_the_next_one_takes_its_place(network):
    holdings = workers(2)
    settings = {"kinds": {"pipelined"}, "tolerance": 1e9, "largest_gap": 2}
    Run(network, holdings, "adaptive", **settings).sample()
    run = Run(network, holdings, "adaptive", **settings)
    seen = run.sample(lambda step: holdings[0].worker.end("died") if step == 8 else None)
    assert relative(seen, serial(network)) < 0.05
    found = kinds(run.report.steps)
    assert "p" in found[:8] and "p" in found[10:] and holdings[1].worker.alive
    assert len(run.report.reasons) == 1


def test_cancel_stops_all_of_them(network):
    holdings = workers(3)
    warm(network, holdings, batch=2)
    ticks = []

    class Interrupted(BaseException):
        pass

    def tick():
        ticks.append(1)
        if len(ticks) == 8:
            raise Interrupted

    run = Run(network, holdings, tick=tick, cancelled=Interrupted)
    with pytest.raises(Interrupted):
        run.sample(batch=2)
    assert all(held.worker.alive and held.worker.idle() for held in holdings)


@pytest.mark.parametrize(
    ("measured", "differs", "expected"),
    [
        ([], None, 1.0),
        ([2.0, 2.0, 2.0, 2.0], None, 1.0),
        ([2.0, 9.0, 2.1, 1.9, 2.0], None, 1.9),
        ([2.0, 9.0, 1.0, 1.9, 2.0], None, 1.0),
        ([9.0] * 5, None, 1.95),
        ([0.5, 0.4, 0.5, 0.5, 0.1], None, 0.5),
        ([], "a 3060 beside a 4090", 3.0),
        ([2.0, 2.0], "a 3060 beside a 4090", 3.0),
        ([2.0, 2.0, 7.0], "a 3060 beside a 4090", 2.0),
    ],
)
def test_a_pace_is_what_recent_steps_agree_on(measured, differs, expected):
    device = WorkerDevice("a card", differs=differs, pace=3.0 if differs else 1.0)
    held = Holdings(InlineWorker(ToyModels, Settings(), device))
    held.paces.extend(measured)
    assert crew.pace(held) == pytest.approx(expected, rel=0.06)


@pytest.mark.parametrize(
    ("differs", "figures", "expected"),
    [(None, 1.0, 1.0), (None, 1.1, 1.0), (None, 2.0, 9.0), ("a 3060 beside a 4090", 1.0, 9.0)],
)
def test_equal_cards_stay_equal_however_busy_one_of_them_is(differs, figures, expected):
    device = WorkerDevice("a card", uuid="GPU-1", differs=differs, pace=figures)
    held = Holdings(InlineWorker(ToyModels, Settings(), device))
    held.paces.extend([9.0] * PACES_KEPT)
    assert crew.pace(held) == pytest.approx(expected, rel=0.06)


def test_nobody_is_a_crew_too():
    nobody = Crew()
    assert nobody.gone and nobody.ready(3) == {} and nobody.there(3) == {}

"""What a watcher is told of runs, whatever becomes of them."""

from __future__ import annotations

import time

import comfy.model_management
import psutil
import pytest
import torch
from helpers import Watched, ask_for, bring_up, guider, quiet, sample, wait_until

from hybrid_core.comfy_bridge.attach import attach, watched
from hybrid_core.comfy_bridge.overview import overview
from hybrid_core.comfy_bridge.replica import ModelSource


class Notes:
    """A Watcher that writes down what it hears."""

    def __init__(self):
        self.heard = []
        self.report = None

    def began(self, report):
        self.report = report
        self.heard.append("began")

    def stepped(self, report):
        assert report is self.report
        self.heard.append(report.steps[-1].kind)

    def ended(self, report):
        assert report is self.report
        self.heard.append(report.status)


def followed(demo, session, mode="exact", kind="mmdit"):
    notes = Notes()
    return attach(demo[kind], mode, quiet, session, lambda _: None, watcher=notes), notes


def test_every_step_is_told_with_its_times(demo, session):
    bring_up(session, demo["mmdit"])
    model, notes = followed(demo, session)
    sample(model, "mmdit", steps=5)
    assert notes.heard == ["began", *["exact"] * 5, "done"]
    for number, step in enumerate(notes.report.steps):
        assert step.step == number and 0 < step.discrepancy < 2
        assert step.seconds >= step.own_seconds > 0 and step.worker_seconds > 0
        assert step.waited_seconds >= 0
    assert notes.report.ratio > 0 and notes.report.total == 5


def test_one_branch_is_called_single(demo, session):
    model, notes = followed(demo, session, kind="unet")
    sample(model, "unet", cfg=1.0)
    assert notes.heard == ["began", *["single"] * 4, "done"]
    assert all(step.discrepancy is None for step in notes.report.steps)


def test_local_run_shows_its_curve_too(demo, own_session, monkeypatch):
    monkeypatch.setenv("HYBRID_KSAMPLER_DEVICE", "")
    session = own_session()
    model, notes = followed(demo, session, "adaptive")
    seen = sample(model, "mmdit")
    assert torch.equal(seen, sample(demo["mmdit"], "mmdit")), "watched, and KSampler's bits"
    assert notes.heard == ["began", *["local"] * 4, "done"]
    assert all(step.discrepancy > 0 for step in notes.report.steps)
    assert "no second GPU" in notes.report.reasons[0] and notes.report.ratio == 1.0
    monkeypatch.setenv("HYBRID_KSAMPLER_DEVICE", "cpu:1")


def test_adaptive_tells_what_it_weighed(demo, session):
    bring_up(session, demo["mmdit"])
    notes = Notes()
    tuned = Watched(demo["mmdit"], session, "adaptive", tolerance=1.0)
    sample(watched(tuned.model, notes), "mmdit", steps=16)
    steps = notes.report.steps
    assert "forecast" in notes.heard and notes.report.tolerance == 1.0
    for step in steps:
        if step.kind == "forecast":
            assert step.drift <= 1.0 and step.discrepancy is None and step.own_seconds is None
    assert len(tuned.reports) == 1, "watching takes nothing from who was told before"


class Fails(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (comfy.model_management.InterruptProcessingException, "interrupted"),
        (Fails, "failed"),
    ],
)
def test_a_run_that_ends_early_says_how(demo, session, error, status):
    bring_up(session, demo["mmdit"])
    model, notes = followed(demo, session)

    def stop(step, *_):
        if step == 1:
            raise error

    made = guider(model, "mmdit")
    sampler = comfy.samplers.sampler_object("euler")
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", 4)
    noise = torch.randn(1, 48, 16, 16)
    with torch.inference_mode(), pytest.raises(error):
        made.sample(noise, torch.zeros_like(noise), sampler, sigmas, callback=stop)
    assert notes.heard[-1] == status and notes.heard.count("exact") == 2


def test_a_model_that_is_not_attached_cannot_be_watched(demo):
    assert watched(demo["mmdit"], Notes()) is None


def test_looking_at_the_worker_takes_nothing_from_a_run(demo, own_session):
    """The reply to a load that outlives its run belongs to the next run."""
    session = own_session()
    session.start()
    wait_until(lambda: session.state() == "ready", 60)
    model = Watched(demo["mmdit"], session)
    host = session.worker
    ask_for(session, demo["mmdit"])
    wait_until(
        lambda: session.holdings().loading and host.replied(session.holdings().loading.number), 60
    )
    pid = host.pid
    assert overview(session)["worker"]["state"] == "ready"
    sample(model.model, "mmdit", steps=3)
    assert model.reports[-1].partitioned == 3 and host.pid == pid and host.last_error is None


def test_a_slow_answer_does_not_cost_the_worker(demo, own_session, monkeypatch):
    session = own_session()
    bring_up(session, demo["mmdit"])
    pid = session.worker.pid
    monkeypatch.setattr("hybrid_core.workers.pool.STATUS_SECONDS", 0.0)
    assert session.status() == {} and session.worker.pid == pid
    monkeypatch.undo()
    wait_until(lambda: session.status().get("models") == 1, 60)
    watched_model = Watched(demo["mmdit"], session)
    sample(watched_model.model, "mmdit", steps=3)
    assert watched_model.reports[-1].partitioned == 3 and session.worker.pid == pid


def test_a_worker_that_finishes_a_cancelled_request_is_left_alone(demo, own_session):
    session = own_session(request_seconds=0.2)
    bring_up(session, demo["mmdit"])
    host = session.worker
    assert session.status()["models"] == 1
    process = psutil.Process(host.pid)
    process.suspend()
    with host.lock:
        host.post("forget", {"base_key": "another"})  # and nobody waits for it
    until = time.monotonic() + 1
    wait_until(lambda: session.status() == {} and time.monotonic() > until, 60)
    assert host.pid == process.pid
    process.resume()
    wait_until(lambda: session.status().get("models") == 1, 60)


def test_a_worker_that_never_answers_is_ended(demo, own_session, monkeypatch):
    session = own_session(request_seconds=0.5)
    bring_up(session, demo["mmdit"])
    psutil.Process(session.worker.pid).suspend()
    monkeypatch.setattr("hybrid_core.workers.pool.STATUS_SECONDS", 0.1)
    wait_until(lambda: session.status() == {} and session.worker.pid is None, 60)
    assert "does not answer" in session.worker.last_error


def test_a_worker_stuck_in_a_first_evaluation_that_nobody_waits_for_is_ended(
    demo, own_session, monkeypatch
):
    session = own_session(load_seconds=6.0)
    bring_up(session, demo["mmdit"])
    evaluate = session.worker.evaluate

    def stuck(*asked):
        psutil.Process(session.worker.pid).suspend()
        return evaluate(*asked)

    monkeypatch.setattr(session.worker, "evaluate", stuck)
    monkeypatch.setattr(ModelSource, "by", "another node")  # nobody waits for its first evaluation
    watched = Watched(demo["mmdit"], session)
    sample(watched.model, "mmdit", steps=3)
    assert watched.reports[-1].partitioned == 0
    wait_until(lambda: session.status() == {} and session.worker.pid is None, 60)
    assert "does not answer" in session.worker.last_error


def test_a_page_that_cannot_be_told_keeps_no_worker(demo, session, monkeypatch):
    def failing():
        raise RuntimeError("the server is closing")

    monkeypatch.setattr(session, "on_change", failing)
    bring_up(session, demo["mmdit"])
    host, watch = session.worker, session._watch
    wait_until(lambda: session.state() == "ready")
    comfy.model_management.unload_all_models()
    wait_until(lambda: host.pid is None)
    assert watch.is_alive()

"""Two, three and four processes on two cores: KSampler's image, whoever of them dies."""

from __future__ import annotations

import os
import signal
import time

import pytest
from harm import KIND
from helpers import EvenSession, Watched, empty_latent, relative, sample, wait_until

from hybrid_core.config import DEVICE_VARIABLE, Settings
from hybrid_core.driver import tokens
from hybrid_core.telling.report import kinds
from hybrid_core.workers.process.host import Host

EQUAL = 1e-4  # relative, fp32
DEVICES = "cpu:1;cpu:0;cpu:1,0"  # the two cores are shared


@pytest.fixture(scope="module")
def crowd(demo):
    """A session with three workers, all up with the model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DEVICE_VARIABLE, DEVICES)
        session = EvenSession(Settings())
        ready(session, demo[KIND])
        yield session
        session.stop()
        assert [holdings.worker.pid for holdings in session.every()] == [None] * 3


def ready(session, model):
    session.active_runs += 1  # nobody looks after them meanwhile
    watched = Watched(model, session, "exact")

    def shared_by_all():
        time.sleep(1.0)  # they come up meanwhile
        sample(watched.model, KIND, steps=2, latent=empty_latent(2))
        return len(watched.reports[-1].steps[-1].loads) == 4

    wait_until(shared_by_all, 120)
    session.active_runs -= 1


@pytest.mark.parametrize("processes", [2, 3, 4])
@pytest.mark.parametrize("cfg", [1.0, 5.0])
def test_every_process_takes_part_and_the_image_is_ksamplers(demo, crowd, processes, cfg):
    watched = Watched(demo[KIND], crowd, "exact", most_devices=processes)
    settings = {"cfg": cfg, "latent": empty_latent(processes), "sampler": "dpmpp_2m"}
    sample(watched.model, KIND, **settings)  # parts of a batch are compared once
    seen = sample(watched.model, KIND, **settings)
    report = watched.reports[-1]
    assert relative(seen, sample(demo[KIND], KIND, **settings)) < EQUAL
    assert report.reasons == [] and report.local == report.single == 0
    assert [len(step.loads) for step in report.steps] == [processes] * len(report.steps)
    assert [entry["device"] for entry in report.who] == ["cpu", *DEVICES.split(";")][:processes]
    assert sum(entry["share"] for entry in report.who) == pytest.approx(1, abs=0.002)


@pytest.mark.parametrize(("processes", "cfg"), [(3, 1.0), (4, 1.0), (4, 5.0)])
def test_one_picture_is_divided_by_tokens_and_is_ksamplers(
    demo, crowd, processes, cfg, monkeypatch
):
    monkeypatch.setattr(tokens, "TRIES", 10**6)  # four processes on two cores do not pay
    watched = Watched(demo[KIND], crowd, "exact", most_devices=processes)
    settings = {"cfg": cfg, "sampler": "euler_ancestral"}
    for _ in range(2):  # the first run records
        seen = sample(watched.model, KIND, **settings)
    report = watched.reports[-1]
    assert relative(seen, sample(demo[KIND], KIND, **settings)) < EQUAL
    assert report.reasons == [] and len(report.by_tokens) == len(report.steps)
    share = 0.5 if cfg > 1 else 1 / processes
    for step in report.steps:
        assert list(step.loads.values()) == pytest.approx([share] * processes, abs=1e-3)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_process_that_is_killed_beside_a_gather_costs_no_image(demo, crowd, monkeypatch):
    monkeypatch.setattr(tokens, "TRIES", 10**6)
    watched, victim = Watched(demo[KIND], crowd, "exact"), 1
    sample(watched.model, KIND)  # records
    kill_at_third_request(crowd.holdings(victim).worker, monkeypatch)
    seen = sample(watched.model, KIND, steps=6)
    report = watched.reports[-1]
    assert relative(seen, sample(demo[KIND], KIND, steps=6)) < EQUAL
    assert kinds(report.steps)[:3] == "ddL" and kinds(report.steps).endswith("EE")
    (reason,) = report.reasons
    assert reason.startswith(f"without {DEVICES.split(';')[victim]}: ")


def kill_at_third_request(worker, monkeypatch):
    """As soon as it was asked for an evaluation for the third time."""
    post, asked = Host.post, []

    def deadly(self, op, *rest):
        number = post(self, op, *rest)
        if op == "evaluate" and self is worker:
            asked.append(number)
            if len(asked) == 3:
                os.kill(self.pid, signal.SIGKILL)
        return number

    monkeypatch.setattr(Host, "post", deadly)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
@pytest.mark.parametrize("victim", [0, 1, 2])
def test_a_process_that_is_killed_costs_no_image_and_the_others_go_on(
    demo, crowd, victim, monkeypatch
):
    ready(crowd, demo[KIND])
    watched = Watched(demo[KIND], crowd, "exact")
    settings = {"latent": empty_latent(2), "steps": 6}
    kill_at_third_request(crowd.holdings(victim).worker, monkeypatch)
    seen = sample(watched.model, KIND, **settings)
    (report,) = watched.reports
    assert relative(seen, sample(demo[KIND], KIND, **settings)) < EQUAL
    assert report.local == 0 and report.shared == 6, "also the step in which it died"
    assert [victim in step.loads for step in report.steps] == [True] * 2 + [False] * 4
    assert len(report.steps[-1].loads) >= 2
    (reason,) = report.reasons
    assert reason.startswith(f"without {DEVICES.split(';')[victim]}: ")


def test_hybrid_options_may_keep_it_to_one_device(demo, crowd):
    watched = Watched(demo[KIND], crowd, most_devices=1)
    sample(watched.model, KIND)
    assert watched.reports[0].reasons == ["Hybrid Options allows one GPU"]
    assert kinds(watched.reports[0].steps) == "LLLL"

"""ComfyUI on one node of a Ray cluster, its worker on the other: KSampler's image, come what may.

The tests share a cluster and come in this order; the last one ends it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

import comfy.model_management
import psutil
import pytest
from harm import KIND
from helpers import Watched, empty_latent, relative, sample, wait_until

from hybrid_core.comfy_bridge import elsewhere
from hybrid_core.comfy_bridge.session import Session
from hybrid_core.config import Settings
from hybrid_core.workers.process.host import Host

EQUAL = 1e-4  # relative, fp32
ACTOR = "ray::Actor"


@pytest.fixture
def in_mid_run(session, monkeypatch):
    """Calls something once, when the second step is asked of the worker."""

    def arrange(act):
        post, asked = Host.post, []

        def post_and_act(self, op, *rest):
            number = post(self, op, *rest)
            asked.extend([op] if op == "evaluate" else [])
            if asked.count("evaluate") == 2:
                asked.append("done")
                asked.append("evaluate")
                act()
            return number

        monkeypatch.setattr(Host, "post", post_and_act)

    return arrange


@pytest.mark.parametrize("pictures", [1, 2])
def test_the_image_is_ksamplers(session, model, pictures):
    watched, latent = Watched(model, session), empty_latent(pictures)
    sample(watched.model, KIND, latent=latent)  # parts of a batch are compared once
    seen = sample(watched.model, KIND, latent=latent)
    report = watched.reports[-1]
    assert relative(seen, sample(model, KIND, latent=latent)) < EQUAL
    assert report.reasons == [] and report.local == 0 and report.shared == 4
    assert [entry["device"] for entry in report.who] == ["cpu", session.worker.device.label]
    assert "ray" not in sys.modules, "only the worker's process uses Ray"


def test_one_prompts_tokens_are_not_sent(session, model):
    watched = Watched(model, session)
    sample(watched.model, KIND, cfg=1.0)
    (reason,) = watched.reports[0].reasons
    assert "need a second GPU in this computer" in reason


def test_comfyuis_process_listens_to_nobody(session):
    assert [c for c in psutil.Process().net_connections() if c.status == psutil.CONN_LISTEN] == []


def test_cancel_stops_the_run_and_costs_no_worker(session, model, cluster, in_mid_run):
    pids = session.worker.pid, [part.pid for part in cluster.other.parts(ACTOR)]
    in_mid_run(comfy.model_management.interrupt_current_processing)
    watched = Watched(model, session)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(watched.model, KIND)
    assert watched.reports[0].status == "interrupted"
    wait_until(session.worker.idle)
    seen = sample(watched.model, KIND)
    assert relative(seen, sample(model, KIND)) < EQUAL and watched.reports[1].shared == 4
    assert pids == (session.worker.pid, [part.pid for part in cluster.other.parts(ACTOR)])


def test_an_actor_that_is_killed_costs_no_image(session, model, cluster, in_mid_run):
    (actor,) = cluster.other.parts(ACTOR)
    in_mid_run(lambda: os.kill(actor.pid, signal.SIGKILL))
    seen, reference, report = run(session, model)
    assert relative(seen, reference) < EQUAL
    assert report.shared < 4 and "is lost" in " ".join(report.reasons)


def test_a_computer_that_is_lost_costs_no_image(session, model, cluster, in_mid_run):
    (raylet,), (actor,) = cluster.other.parts("raylet"), cluster.other.parts(ACTOR)
    worker = psutil.Process(session.worker.pid)

    def lose() -> None:
        actor.suspend()  # so that this step is not answered before
        raylet.kill()
        actor.kill()

    in_mid_run(lose)
    seen, reference, report = run(session, model)
    assert relative(seen, reference) < EQUAL
    assert report.shared < 4 and "is lost" in " ".join(report.reasons)
    wait_until(lambda: not worker.is_running() and not cluster.other.parts(ACTOR))


def run(session, model):
    watched = Watched(model, session)
    return sample(watched.model, KIND), sample(model, KIND), watched.reports[0]


def test_an_address_where_nobody_answers_is_said_at_once():
    """Ray goes on trying for minutes, in which the node would only say that it waits."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    alone = Session(Settings())
    alone.look_elsewhere(elsewhere.chosen(f"127.0.0.1:{port}"))
    worker = alone.holdings().worker
    worker.start()
    wait_until(lambda: alone.state() == "none")
    assert f"127.0.0.1:{port} is not to be reached" in worker.last_error
    alone.stop()

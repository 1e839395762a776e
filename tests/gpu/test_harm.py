"""The worker is harmed on a GPU: no lost image, no hung node, and the next runs are shared."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace

import comfy.model_management
import pytest
import torch
from harm import KIND, alive, next_run_works
from helpers import Watched, bring_up, sample, wait_until

from hybrid_core.comfy_bridge.session import Session
from hybrid_core.workers.process.host import Host

pytestmark = pytest.mark.slow
WORKERS_BYTES = 256 << 20
LARGE = {"samples": torch.zeros(64, 48, 32, 32)}  # 12.6 MB: a copy takes long enough to be hit


def arena_class(session):
    return type(session.holdings().worker._arena)


@pytest.mark.parametrize("during", ["write", "read"])
def test_worker_killed_while_the_parent_copies(
    own_session, model, partitioned, monkeypatch, during
):
    session = own_session()
    bring_up(session, model)
    host, arena = session.holdings().worker, arena_class(session)
    copy, copies, pid = getattr(arena, during), [], host.pid

    def deadly(self, number, *arguments):
        copies.append(number)
        if len(copies) == 3:
            threading.Thread(target=os.kill, args=(pid, signal.SIGKILL)).start()
        return copy(self, number, *arguments)

    watched = Watched(model, session)
    monkeypatch.setattr(arena, during, deadly)
    seen = sample(watched.model, KIND, latent=LARGE)
    monkeypatch.undo()
    assert len(copies) >= 3
    wait_until(lambda: not alive(pid))
    expected = sample(model, KIND, latent=LARGE)
    assert (seen - expected).norm() / expected.norm() < 1e-4
    next_run_works(session, model, partitioned)


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.004])
def test_worker_killed_while_it_copies_or_evaluates(
    own_session, model, partitioned, monkeypatch, delay
):
    session = own_session()
    bring_up(session, model)
    post, posts = Host.post, []

    def deadly(self, op, fields, *rest):
        number = post(self, op, fields, *rest)
        posts.append(op)
        if posts.count("evaluate") == 2 and op == "evaluate":
            threading.Timer(delay, os.kill, (self.pid, signal.SIGKILL)).start()
        return number

    monkeypatch.setattr(Host, "post", deadly)
    watched = Watched(model, session)
    seen = sample(watched.model, KIND, latent=LARGE, steps=8)
    monkeypatch.undo()
    assert watched.reports[0].local > 0
    expected = sample(model, KIND, latent=LARGE, steps=8)
    assert (seen - expected).norm() / expected.norm() < 1e-4
    next_run_works(session, model, partitioned)


def test_cancel_in_mid_step(own_session, model, partitioned, monkeypatch):
    session = own_session()
    bring_up(session, model)
    pid, post, steps = session.holdings().worker.pid, Host.post, []

    def interrupting(self, op, fields, *rest):
        number = post(self, op, fields, *rest)
        if op == "evaluate" and len(steps.append(number) or steps) == 3:
            comfy.model_management.interrupt_current_processing()
        return number

    monkeypatch.setattr(Host, "post", interrupting)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(Watched(model, session).model, KIND, steps=30)
    monkeypatch.undo()
    assert not comfy.model_management.processing_interrupted()
    next_run_works(session, model, partitioned)
    assert session.holdings().worker.pid == pid, "Cancel does not cost the worker"


class Narrow(Session):
    """Its worker may take little of the GPU's memory for tensors."""

    @staticmethod
    def device():
        device = Session.devices().chosen[0]
        share = WORKERS_BYTES / torch.cuda.mem_get_info()[1]
        limit = {"PYTORCH_CUDA_ALLOC_CONF": f"per_process_memory_fraction:{share:.6f}"}
        return replace(device, environment={**device.environment, **limit})


def test_worker_out_of_memory(own_session, model, partitioned):
    session = own_session(Narrow)
    bring_up(session, model)
    pid = session.holdings().worker.pid
    latent = {"samples": torch.zeros(256, 48, 32, 32)}  # 65,536 tokens
    watched = Watched(model, session)
    seen = sample(watched.model, KIND, latent=latent, steps=2)
    (said,) = watched.announced
    assert "memory" in said
    assert session.holdings().worker.pid == pid, "the worker survives its own lack of memory"
    expected = sample(model, KIND, latent=latent, steps=2)
    assert (seen - expected).norm() / expected.norm() < 1e-4
    next_run_works(session, model, partitioned)
    assert session.holdings().worker.pid == pid

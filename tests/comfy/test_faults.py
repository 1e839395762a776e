"""Never a lost image, never a hung node: the worker is harmed at each point of the protocol."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import comfy.model_management
import pytest
import torch
from harm import KIND, alive, next_run_works
from helpers import Watched, ask_for, bring_up, sample, wait_until

from hybrid_core.comfy_bridge import demo_models
from hybrid_core.driver.driver import Driver
from hybrid_core.transport import wire
from hybrid_core.transport.arenas.host_arena import HostArena
from hybrid_core.workers.process.host import USUAL, Host

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="uses Linux's /proc")


@pytest.mark.parametrize("op", ["load", "conds", "evaluate"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_worker_killed_around_a_request(session, model, partitioned, monkeypatch, op, when):
    if op == "load":
        session.stop()
    else:
        bring_up(session, model)
        session.holdings().contexts.clear()
    killed = []
    post = Host.post

    def deadly(self, asked, fields, *rest):
        if asked != op or killed:
            return post(self, asked, fields, *rest)
        killed.append(self.pid)
        if when == "before":
            os.kill(self.pid, signal.SIGKILL)
            wait_until(lambda: not self._process.is_alive())
        number = post(self, asked, fields, *rest)
        os.kill(self.pid, signal.SIGKILL)
        return number

    monkeypatch.setattr(Host, "post", deadly)
    if op == "load":
        with torch.inference_mode():
            assert not session.bring_up(model, 60)
        seen = partitioned
    else:
        watched = Watched(model, session)
        seen = sample(watched.model, KIND)
        assert watched.reports[0].local > 0
        (said,) = watched.announced
        assert "the other process is gone" in said
    assert killed and not alive(killed[0])
    assert (seen - partitioned).norm() / partitioned.norm() < 1e-5
    monkeypatch.undo()
    next_run_works(session, model, partitioned)


def test_worker_killed_in_mid_run_gives_the_same_bits(session, model, partitioned, monkeypatch):
    bring_up(session, model)
    post, steps = Host.post, []

    def deadly(self, asked, fields, *rest):
        number = post(self, asked, fields, *rest)
        if asked == "evaluate" and len(steps.append(number) or steps) == 3:
            os.kill(self.pid, signal.SIGKILL)
        return number

    monkeypatch.setattr(Host, "post", deadly)
    watched = Watched(model, session)
    assert torch.equal(sample(watched.model, KIND), partitioned)
    assert (watched.reports[0].partitioned, watched.reports[0].local) == (2, 2)


def test_worker_killed_while_it_starts(session, model, reference, partitioned):
    session.stop()
    watched = Watched(model, session)
    begin = Driver.prepare

    def begin_and_kill(self, *arguments):
        begin(self, *arguments)
        os.kill(session.holdings().worker.pid, signal.SIGKILL)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Driver, "prepare", begin_and_kill)
        seen = sample(watched.model, KIND)
    assert (seen - reference).norm() / reference.norm() < 1e-5
    next_run_works(session, model, partitioned)


def test_worker_killed_between_runs(session, model, partitioned):
    bring_up(session, model)
    os.kill(session.holdings().worker.pid, signal.SIGKILL)
    watched = Watched(model, session)
    assert (sample(watched.model, KIND) - partitioned).norm() / partitioned.norm() < 1e-5
    next_run_works(session, model, partitioned)


@linux
def test_worker_hung_in_mid_step(own_session, model, partitioned):
    session = own_session(step_seconds=0.5, step_factor=1.0)
    bring_up(session, model)
    pid = session.holdings().worker.pid
    os.kill(pid, signal.SIGSTOP)
    watched = Watched(model, session)
    session.holdings().contexts.clear()
    began = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hybrid_core.workers.holdings.Holdings.context_number", lambda *_: 0)
        seen = sample(watched.model, KIND)
    assert time.monotonic() - began < 20
    assert torch.equal(seen, partitioned) or (seen - partitioned).norm() / partitioned.norm() < 1e-5
    assert "no answer within" in watched.announced[0]
    assert not alive(pid)
    next_run_works(session, model, partitioned)


@linux
def test_worker_hung_while_it_takes_conditioning(own_session, model, partitioned):
    session = own_session(request_seconds=0.5)
    bring_up(session, model)
    pid = session.holdings().worker.pid
    session.holdings().contexts.clear()
    os.kill(pid, signal.SIGSTOP)
    watched = Watched(model, session)
    seen = sample(watched.model, KIND)
    assert (seen - partitioned).norm() / partitioned.norm() < 1e-5
    assert not alive(pid)


@linux
def test_worker_that_never_comes_up_is_given_up(own_session, model, reference):
    session = own_session(start_seconds=0.2)
    session.holdings().worker._means = USUAL  # which takes seconds
    with torch.inference_mode():
        assert not session.bring_up(model, 5)
    assert "was not up after" in session.holdings().worker.last_error
    assert session.holdings().worker.pid is None


@linux
def test_worker_out_of_memory(session, model, partitioned):
    import resource

    bring_up(session, model)
    pid = session.holdings().worker.pid
    used = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    before = resource.prlimit(pid, resource.RLIMIT_AS, (used, resource.RLIM_INFINITY))
    latent = {"samples": torch.zeros(16, 48, 32, 32)}
    watched = Watched(model, session)
    seen = sample(watched.model, KIND, latent=latent, steps=2)
    (said,) = watched.announced
    assert "memory" in said
    assert session.holdings().worker.pid == pid, "the worker survives its own lack of memory"
    resource.prlimit(pid, resource.RLIMIT_AS, before)
    expected = sample(model, KIND, latent=latent, steps=2)
    assert (seen - expected).norm() / expected.norm() < 1e-4
    next_run_works(session, model, partitioned)
    assert session.holdings().worker.pid == pid


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (
            lambda m: m.update(tensors=[{"dtype": "float32", "shape": [1, 48], "at": 1 << 40}]),
            "out",
        ),
        (lambda m: m.update(tensors=[{"dtype": "object", "shape": [1], "at": 0}]), "dtype"),
        (lambda m: m.update(tensors=[{"dtype": "float32", "shape": [2], "at": 0}]), "returned"),
        (lambda m: m.update(tensors=[]), "returned"),
        (lambda m: m.update(tensors=None), "expected a list"),
        (lambda m: m.update(seq=m["seq"] + 1), "came to request"),
        (lambda m: m.update(op="ok"), "was answered 'ok'"),
    ],
)
def test_a_malformed_reply_costs_no_image(session, model, partitioned, monkeypatch, harm, said):
    bring_up(session, model)
    decode = wire.decode

    def harmed(data, allowed):
        message = decode(data, allowed)
        if message["op"] == "result":
            harm(message)
        return message

    monkeypatch.setattr(wire, "decode", harmed)
    watched = Watched(model, session)
    seen = sample(watched.model, KIND)
    monkeypatch.undo()
    assert (seen - partitioned).norm() / partitioned.norm() < 1e-5
    assert said in watched.announced[0]
    next_run_works(session, model, partitioned)


def test_a_reply_that_is_no_message_costs_no_image(session, model, partitioned, monkeypatch):
    bring_up(session, model)
    monkeypatch.setattr(
        wire,
        "decode",
        lambda data, allowed: (_ for _ in ()).throw(wire.ProtocolError("no message")),
    )
    watched = Watched(model, session)
    seen = sample(watched.model, KIND)
    monkeypatch.undo()
    assert (seen - partitioned).norm() / partitioned.norm() < 1e-5
    next_run_works(session, model, partitioned)


def test_arena_too_small_runs_locally_and_says_so(own_session, model, reference):
    session = own_session(slot_bytes=4096)
    bring_up(session, model)  # weights and portraits go in pieces
    pid = session.holdings().worker.pid
    watched = Watched(model, session)
    assert torch.equal(sample(watched.model, KIND), reference)
    (said,) = watched.announced
    assert "a slot of the shared memory holds 4096" in said
    assert session.holdings().worker.pid == pid


def test_cancel_in_mid_step(session, model, partitioned, monkeypatch):
    bring_up(session, model)
    pid = session.holdings().worker.pid
    write, seen = HostArena.write, []

    def interrupting(self, number, tensors):
        seen.append(number)
        if len(seen) == 3:
            comfy.model_management.interrupt_current_processing()
        return write(self, number, tensors)

    monkeypatch.setattr(HostArena, "write", interrupting)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(Watched(model, session).model, KIND, steps=30)
    monkeypatch.undo()
    assert not comfy.model_management.processing_interrupted()
    next_run_works(session, model, partitioned)
    assert session.holdings().worker.pid == pid, "Cancel does not cost the worker"


@linux
def test_cancel_while_waiting_for_a_hung_worker(own_session, model, partitioned):
    session = own_session(request_seconds=60)
    bring_up(session, model)
    session.holdings().contexts.clear()
    pid = session.holdings().worker.pid
    os.kill(pid, signal.SIGSTOP)
    timer = threading.Timer(0.5, comfy.model_management.interrupt_current_processing)
    timer.start()
    began = time.monotonic()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(Watched(model, session).model, KIND)
    assert time.monotonic() - began < 5
    os.kill(pid, signal.SIGCONT)
    next_run_works(session, model, partitioned)


def test_free_ends_the_worker(session, model, partitioned):
    bring_up(session, model)
    sample(Watched(model, session).model, KIND)
    pid = session.holdings().worker.pid
    assert session.holdings().contexts
    comfy.model_management.unload_all_models()  # what /free does
    wait_until(lambda: session.holdings().worker.pid is None)
    wait_until(lambda: not session.holdings().contexts)
    assert not alive(pid)
    next_run_works(session, model, partitioned)


def test_free_ends_the_worker_beside_a_model_that_other_code_holds(session, model, partitioned):
    leaking = demo_models.load_model("unet")
    comfy.model_management.load_models_gpu([leaking])
    held = leaking.model  # ComfyUI goes on listing it, without a patcher to unload it by
    del leaking
    gc.collect()
    bring_up(session, model)
    comfy.model_management.unload_all_models()
    entries = comfy.model_management.current_loaded_models
    assert any(entry.real_model() is held for entry in entries)
    wait_until(lambda: session.holdings().worker.pid is None)
    next_run_works(session, model, partitioned)


def test_a_patcher_that_gives_way_to_another_at_a_look_ends_nothing(own_session, monkeypatch):
    """ComfyUI lists no patcher for the moment between a clone's end and its parent's turn."""
    session, held = own_session(), SimpleNamespace(holds_model=True)
    session.unused_seconds = lambda number: 1.0
    looks = []
    for patcher in (None, "parent", None, None):
        entries = [SimpleNamespace(model=patcher)]
        monkeypatch.setattr(comfy.model_management, "current_loaded_models", entries)
        looks.append(session._why_stop(0, held))
    assert looks == [None, None, None, "ComfyUI has freed its models"]


def test_free_ends_a_worker_that_a_run_waits_for_in_vain(session, model, reference, partitioned):
    bring_up(session, model)
    host, images = session.holdings().worker, []
    run = threading.Thread(
        target=lambda: images.append(sample(Watched(model, session).model, KIND))
    )
    os.kill(host.pid, signal.SIGSTOP)
    run.start()
    wait_until(lambda: host.under_way is not None)
    session.stop()
    run.join(20)
    assert torch.equal(images[0], reference), "nothing was shared yet"
    next_run_works(session, model, partitioned)


def test_a_process_that_outlives_its_end_costs_nothing(session, model, partitioned, monkeypatch):
    """A driver can keep a killed process for seconds; nothing of ours may wait for that."""
    bring_up(session, model)
    host = session.holdings().worker

    def busy():
        raise ValueError("Cannot close a process while it is still running")

    monkeypatch.setattr(host._process, "close", busy)
    host.end("hung")
    assert host.pid is None and "hung" in host.last_error
    next_run_works(session, model, partitioned)


@pytest.mark.parametrize("what", ["pipe", "memory", "start"])
def test_a_system_without_memory_for_a_worker_costs_no_image(own_session, model, reference, what):
    def refused(*_):
        raise OSError(1455, "The paging file is too small")

    session = own_session()
    worker = session.holdings().worker
    worker._means = replace(worker._means, **{what: refused})
    watched = Watched(model, session)
    assert torch.equal(sample(watched.model, KIND), reference)
    assert "could not be started" in watched.announced[0]


def test_idle_worker_is_ended(own_session, model):
    session = own_session(idle_seconds=0.5)
    bring_up(session, model)
    pid = session.holdings().worker.pid
    wait_until(lambda: session.holdings().worker.pid is None)
    assert not alive(pid)


def test_a_model_that_the_parent_dropped_is_dropped_by_the_worker(own_session, model):
    from hybrid_core.comfy_bridge import demo_models

    session = own_session()
    other = demo_models.load_model("mmdit")
    bring_up(session, other)
    bring_up(session, model)
    holdings = session.holdings()
    assert len(holdings.bases) == 2
    del other
    comfy.model_management.cleanup_models_gc()
    watched = Watched(model, session)
    sample(watched.model, KIND)
    assert len(holdings.bases) == 1
    assert holdings.worker.status(10)["models"] == 1


PARENT = """
import os, sys
sys.path.insert(0, os.environ["COMFYUI_DIR"]); sys.path.append({root!r})
import torch
from comfy.cli_args import args
args.cpu = True
from hybrid_core.comfy_bridge import demo_models
from hybrid_core.comfy_bridge.session import SESSION
with torch.inference_mode():
    assert SESSION.bring_up(demo_models.load_model("unet"), 120)
print(SESSION.holdings().worker.pid, flush=True)
sys.stdin.read()
"""


def shared_memory():
    """Names of what lies in shared memory; browsers beside these tests begin theirs with a dot."""
    return {name for name in os.listdir("/dev/shm") if not name.startswith(".")}


@linux
@pytest.mark.parametrize("how", ["killed", "ended"])
def test_the_parents_end_ends_the_worker_and_frees_the_memory(how):
    root = str(Path(__file__).resolve().parents[2])
    before = shared_memory()
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(root=root)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert parent.stdout is not None and parent.stdin is not None
    with parent:
        worker = int(parent.stdout.readline())
        assert alive(worker)
        if how == "killed":
            parent.kill()
        parent.stdin.close()
        parent.wait(20)
    wait_until(lambda: not alive(worker))
    assert shared_memory() <= before


@linux
def test_no_process_and_no_descriptor_is_left_after_many_restarts(own_session, model):
    session = own_session()
    host = session.holdings().worker
    pids = []

    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    for _ in range(6):
        host.start()
        pids.append(host.pid)
        host.end("test")
        if len(pids) == 1:
            first = descriptors()
    assert descriptors() <= first
    assert not any(alive(pid) for pid in pids)


def test_free_ends_a_worker_whose_load_no_run_has_taken_in(own_session, model):
    session = own_session()
    session.start()
    wait_until(lambda: session.state() == "ready", 60)
    holdings = session.holdings()
    ask_for(session, model)
    assert holdings.loading is not None and holdings.key is None
    comfy.model_management.unload_all_models()
    wait_until(lambda: holdings.worker.pid is None)


def test_the_panels_start_works_after_free(own_session, model, partitioned):
    session = own_session()
    bring_up(session, model)
    comfy.model_management.unload_all_models()
    wait_until(lambda: session.holdings().worker.pid is None)
    session.start()
    pid = session.holdings().worker.pid
    wait_until(lambda: session.state() == "ready", 60)
    time.sleep(2.5)  # two looks of the watch
    assert session.holdings().worker.pid == pid
    next_run_works(session, model, partitioned)

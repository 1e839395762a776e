"""Which data plane a worker gets, over a stand-in for CUDA: each failure leads to the next one."""

from __future__ import annotations

import logging
import math
import re
import sys
import time

import pytest
import torch
from fake_worker import World

from hybrid_core.config import Settings, Tuning, WorkerDevice
from hybrid_core.errors import ConfigError, WorkerDied
from hybrid_core.telling.report import Report
from hybrid_core.transport.choice import planes
from hybrid_core.transport.choice.selftest import exchanges
from hybrid_core.workers.holdings import Holdings
from hybrid_core.workers.lease import Lease

GPU_WORKER = WorkerDevice("GPU 1", {}, uuid="GPU-1")
TENSOR = torch.arange(1000, dtype=torch.float32).reshape(10, 100)


@pytest.fixture(autouse=True)
def plain_linux(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(planes, "kernel", lambda: "Linux version 6.1")


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


def works(world, plane):
    """Exchanges over `plane`, an end in good order."""
    assert world.host.data_plane == plane
    for _ in range(3):
        if plane == "host":
            number = world.host.post("evaluate", {"context": 0}, [TENSOR])
            assert torch.equal(world.host.wait(number, "result", 10).tensors[0], TENSOR)
        else:
            assert torch.equal(world.exchange(TENSOR), TENSOR)
    assert world.end() == []


def test_auto_takes_memory_on_the_gpu(world, caplog):
    caplog.set_level(logging.INFO, "hybrid_ksampler")
    world.bring_up()
    assert world.host.data_plane_reason is None
    link = world.host.planes.link
    assert link.latency > 0 and 0 < link.rate < math.inf
    (said,) = [r.getMessage() for r in caplog.records if "plane" in r.msg]
    assert re.fullmatch(r"data plane: cuda_ipc, \d+ us and [\d.e-]+ GB/s", said)
    works(world, "cuda_ipc")


@pytest.mark.parametrize("plane", ["cuda_ipc", "host_pinned", "host"])
def test_each_plane_can_be_forced(world, plane):
    world.host.planes.want(plane)
    world.bring_up()
    assert (world.host.data_plane_reason, world.host.planes.missed) == (None, None)
    assert (world.host.planes.link is None) == (plane == "host")
    works(world, plane)


def test_large_slots_are_checked_to_their_end(monkeypatch):
    world = World(monkeypatch, slot_bytes=9 << 20)
    world.bring_up()
    assert max(map(sum, exchanges(9 << 20))) == 8 << 20
    works(world, "cuda_ipc")


def test_the_check_does_not_wait_for_what_the_prompt_has_enqueued(world):
    event = world.ours.new_event(0, shared=False)
    world.ours.points[event.handle].recorded = 1  # and never reached
    stuck = world.ours.current_stream(0)
    world.ours.stream_wait(stuck, event)
    world.machine.eager = 0.0
    world.bring_up()
    assert world.host.data_plane == "cuda_ipc"
    assert len(world.ours._queue(stuck)) == 1
    assert world.end() == []


def test_weights_go_through_host_memory(world):
    world.bring_up()
    number = world.host.post_any_size("load", {"data": None}, [torch.randn(9000)])
    assert world.host.wait(number, "ok", 10).fields["portrait"] == 1
    works(world, "cuda_ipc")


SET_UP = ("malloc", "new_stream", "new_event", "memory_handle", "event_handle")
BOTH_USE = ("copy_bytes", "stream_wait", "delay")
OPENING = ("open_memory", "open_event")
USING = ("copy_bytes", "stream_wait", "synchronize")


@pytest.mark.parametrize("name", [*SET_UP, *BOTH_USE, "record"])
def test_an_error_in_the_parent_leads_to_pinned_memory(world, name):
    world.ours.fails[name] = 1 if name in (*BOTH_USE, "record") else 0
    world.bring_up()
    assert world.host.data_plane_reason == f"cuda_ipc: {name} returned cudaErrorInjected"
    assert len(world.workers) == 1
    works(world, "host_pinned")


@pytest.mark.parametrize("name", OPENING)
def test_an_error_when_the_worker_opens_leads_to_pinned_memory(world, name):
    world.harm = lambda _, calls: calls.fails.update({name: 0})
    world.bring_up()
    assert world.host.data_plane_reason == f"cuda_ipc: {name} returned cudaErrorInjected"
    assert len(world.workers) == 1
    works(world, "host_pinned")


@pytest.mark.parametrize("name", USING)
def test_a_worker_that_fails_in_the_check_is_replaced(world, name):
    """Its GPU context may be broken: a new process has another one."""

    def harm(number, calls):
        if number == 1:
            calls.fails[name] = 1

    world.harm = harm
    world.bring_up()
    assert len(world.workers) == 2
    assert f"{name} returned cudaErrorInjected" in world.host.data_plane_reason
    works(world, "host_pinned")


def test_bytes_that_differ_lead_to_pinned_memory(world):
    world.machine.corrupt = True
    world.bring_up()
    reason = "cuda_ipc: to the worker: a pattern of 1 bytes came out different"
    assert world.host.data_plane_reason == reason
    assert len(world.workers) == 1
    works(world, "host_pinned")


def test_bytes_that_differ_on_the_way_back_lead_to_pinned_memory(world, monkeypatch):
    copy = type(world.ours).copy_bytes

    def corrupting(self, to, to_gpu, source, source_gpu, size, stream):
        copy(self, to, to_gpu, source, source_gpu, size, stream)
        if self is world.ours and source >= 1 << 50 and size > 1000:
            copy(self, to, to_gpu, source + size - 64, source_gpu, 1, stream)

    monkeypatch.setattr(type(world.ours), "copy_bytes", corrupting)
    world.bring_up()
    assert "cuda_ipc: from the worker: a pattern of" in world.host.data_plane_reason
    works(world, "host_pinned")


def test_an_event_that_does_not_hold_is_found(monkeypatch):
    """Copies still under way when the worker reads: the check sees it, whatever chance does."""
    for _ in range(3):
        world = World(monkeypatch)
        world.machine.by_chance = lambda: None
        world.harm = lambda _, calls: setattr(calls, "stream_wait", lambda *_: None)
        world.bring_up()
        assert "came out different" in world.host.data_plane_reason
        works(world, "host_pinned")


@pytest.mark.parametrize("process", ["parent", "worker"])
def test_memory_that_cannot_be_pinned_leads_to_the_unpinned(world, process):
    world.no_ipc["parent"] = "cuda.bindings cannot be imported"
    if process == "parent":
        world.ours.fails["register"] = 0
    else:
        world.harm = lambda _, calls: calls.fails.update(register=0)
    world.bring_up()
    assert world.host.data_plane_reason == (
        "cuda_ipc: cuda.bindings cannot be imported; "
        "host_pinned: register returned cudaErrorInjected"
    )
    works(world, "host")
    assert world.ours.pinned == {} == world.workers[0].pinned


@pytest.mark.parametrize("process", ["parent", "worker"])
def test_without_cuda_bindings(world, process):
    world.no_ipc[process] = "cuda.bindings cannot be imported: none"
    world.bring_up()
    assert world.host.data_plane_reason == "cuda_ipc: cuda.bindings cannot be imported: none"
    works(world, "host_pinned")


def test_a_gpu_that_the_parent_does_not_see(world):
    world.ours.visible = (0,)
    world.bring_up()
    assert world.host.data_plane_reason == "cuda_ipc: GPU 1 is hidden from this process"
    works(world, "host_pinned")


def test_a_worker_that_hangs_in_the_check_is_replaced(monkeypatch):
    world = World(monkeypatch, plane_seconds=0.5)

    def harm(number, calls):
        if number == 1:
            calls.synchronize = lambda _: time.sleep(2)

    world.harm = harm
    world.bring_up()
    assert len(world.workers) == 2
    assert "no answer within" in world.host.data_plane_reason
    works(world, "host_pinned")


def test_a_worker_that_dies_in_the_check_is_replaced(world):
    def harm(number, calls):
        if number == 1:
            calls.synchronize = lambda _: world.host._process.kill()

    world.harm = harm
    world.bring_up()
    assert len(world.workers) == 2
    assert "the other process is gone" in world.host.data_plane_reason
    works(world, "host_pinned")


def test_a_plane_that_cost_a_worker_is_not_tried_again(world):
    world.harm = lambda number, calls: calls.fails.update(synchronize=0) if number == 1 else None
    world.bring_up()
    world.host.stop()
    world.bring_up()
    assert (len(world.workers), world.host.data_plane) == (3, "host_pinned")
    assert "cuda_ipc: " in world.host.data_plane_reason
    assert world.end() == []


def test_the_worker_is_ended_while_a_plane_is_chosen(world):
    world.ours.delay = lambda _: time.sleep(0.1)
    world.host.start()
    deadline = time.monotonic() + 10
    while not world.host.planes.under_way and time.monotonic() < deadline:
        world.host.ready()
    time.sleep(0.15)
    world.host.end("test")
    assert (world.machine.left(), world.machine.problems) == ([], [])
    world.bring_up()
    works(world, "cuda_ipc")


def test_a_worker_that_dies_when_another_plane_is_wanted(world):
    world.bring_up()
    world.host._process.kill()
    world.host.planes.want("host")
    with pytest.raises(WorkerDied, match="while a data plane was chosen"):
        world.bring_up()
    world.host.end("test")
    assert (world.machine.left(), world.machine.problems) == ([], [])
    world.bring_up()
    works(world, "host")


def test_another_plane_is_taken_without_another_worker(world):
    world.bring_up()
    number = world.host.post("load", {"data": None}, [TENSOR])
    world.host.wait(number, "ok", 10)
    for plane in ("host", "cuda_ipc", "host_pinned", "auto"):
        world.host.planes.want(plane)
        world.bring_up()
        assert world.host.data_plane == ("cuda_ipc" if plane == "auto" else plane)
    assert world.host.status(10)["loads"] == 1
    assert len(world.workers) == 1
    works(world, "cuda_ipc")


def test_no_plane_is_changed_while_a_request_is_under_way(world):
    world.bring_up()
    number = world.host.post("load", {"data": None}, [TENSOR])
    world.host.planes.want("host")
    assert world.host.ready()
    world.host.wait(number, "ok", 10)
    assert not world.host.ready()
    world.bring_up()
    works(world, "host")


# where it is not to be tried


@pytest.mark.parametrize(
    ("platform", "kernel", "said"),
    [
        ("win32", "", "Windows"),
        ("linux", "Linux version 5.15.167.4-microsoft-standard-WSL2", "WSL2"),
        ("linux", "Linux version 4.4.0-19041-Microsoft", "WSL2"),
        ("darwin", "", "darwin"),
    ],
)
@pytest.mark.parametrize("wanted", ["auto", "cuda_ipc"])
def test_windows_and_wsl_always_take_host_memory(
    world, monkeypatch, platform, kernel, said, wanted
):
    monkeypatch.setattr(planes.sys, "platform", platform)
    monkeypatch.setattr(planes, "kernel", lambda: kernel)
    assert said in planes.obstacle_to_ipc(GPU_WORKER)
    monkeypatch.setattr(planes, "sys", type("S", (), {"platform": platform}))
    monkeypatch.setattr(sys, "platform", "linux")  # this process's own shared memory
    world.host.planes.want(wanted)
    world.bring_up()
    assert said in world.host.data_plane_reason
    assert "malloc" not in world.ours.called
    assert (world.host.planes.missed is None) == (wanted == "auto")
    works(world, "host_pinned")


def test_a_worker_without_a_uuid_shares_no_gpu_memory():
    assert "UUID" in planes.obstacle_to_ipc(WorkerDevice("GPU 1"))
    assert planes.obstacle_to_ipc(GPU_WORKER) is None


def test_order_of_trying():
    assert planes.to_try("auto", True, None)[0] == ["cuda_ipc", "host_pinned", "host"]
    assert planes.to_try("host_pinned", True, "x") == (["host_pinned", "host"], [])
    assert planes.to_try("auto", True, "x") == (["host_pinned", "host"], ["cuda_ipc: x"])
    assert planes.to_try("auto", False, None) == (["host"], [])
    assert planes.to_try("cuda_ipc", False, None) == (["host"], ["cuda_ipc: a process has no GPU"])


def test_wrong_words_are_refused():
    for make in (Settings, Tuning):
        with pytest.raises(ConfigError, match="data_plane is 'gpu', expected one of auto, cuda"):
            make(data_plane="gpu")


# what a run says of it


class Asked(Exception):
    """For the model."""


class NoModel:
    key = base_key = name = by = "m"

    def needed_bytes(self):
        raise Asked


def test_a_run_reports_the_plane_and_a_forced_one_that_failed(world):
    world.no_ipc["parent"] = "none"
    for wanted in ("auto", "cuda_ipc"):
        report = Report()
        tuning = Tuning(data_plane=wanted)
        lease = Lease(Holdings(world.host), NoModel(), lambda: None, report, tuning)
        deadline = time.monotonic() + 20
        with pytest.raises(Asked):
            while time.monotonic() < deadline:
                lease.ready()
        assert report.data()["data_plane"] == "host_pinned"
        assert report.data()["data_plane_reason"] == "cuda_ipc: none"
        said = "data plane cuda_ipc could not be used, host_pinned was (cuda_ipc: none)"
        assert report.reasons == ([] if wanted == "auto" else [said])
    assert world.end() == []

"""Nothing grows: 200 runs with one worker, and workers that come and go."""

from __future__ import annotations

import gc
import os
import time

import comfy.model_management
import psutil
import pytest
import torch
from helpers import FREE, Watched, bring_up, sample

pytestmark = pytest.mark.alone
RUNS = 200
GROWTH = 48 << 20  # bytes that an allocator's rounding may add


def taken():
    """Bytes in use on the whole GPU, after everything that can be given back was."""
    gc.collect()
    torch.cuda.synchronize()
    comfy.model_management.soft_empty_cache(True)
    free, total = torch.cuda.mem_get_info()
    return total - free


def memory(session):
    """Of the GPU and resident: this process's and the worker's."""
    worker = psutil.Process(session.holdings().worker.pid)
    return {
        "gpu": taken(),
        "parent": psutil.Process().memory_info().rss,
        "worker": worker.memory_info().rss,
        "descriptors": len(os.listdir("/proc/self/fd")),
    }


def test_two_hundred_runs_leave_nothing(demo, session):
    for kind in demo:
        bring_up(session, demo[kind])
    kind, before = "mmdit", None
    bring_up(session, demo[kind])
    models = [Watched(demo[kind], session), Watched(demo[kind], session, "adaptive", **FREE)]
    for run in range(20 + RUNS):
        if run == 20:
            before = memory(session)
        watched = models[run % 2]
        sample(watched.model, kind, steps=6, cfg=2.0, seed=run)
        report = watched.reports.pop()
        assert report.local == 0 and report.reasons == []
    after = memory(session)
    grown = {name: after[name] - before[name] for name in after}
    assert grown.pop("descriptors") <= 0
    assert all(value < GROWTH for value in grown.values()), grown


@pytest.mark.slow
def test_workers_that_come_and_go_leave_nothing(demo, own_session):
    session, seen = own_session(), []
    for _ in range(5):
        bring_up(session, demo["unet"])
        sample(Watched(demo["unet"], session).model, "unet")
        session.stop()
        time.sleep(0.5)  # the driver takes back a dead process's memory
        seen.append((taken(), len(os.listdir("/proc/self/fd"))))
    assert seen[-1][0] - seen[0][0] < GROWTH, seen
    assert seen[-1][1] <= seen[0][1], seen


def test_free_gives_the_workers_memory_back(demo, own_session):
    session = own_session()
    bring_up(session, demo["unet"])
    held = taken()
    comfy.model_management.unload_all_models()  # what /free does
    deadline = time.monotonic() + 10
    while session.holdings().worker.pid is not None:
        assert time.monotonic() < deadline, "the worker was not ended"
        time.sleep(0.05)
    time.sleep(0.5)
    assert taken() < held - (100 << 20), "its CUDA context alone is larger"

"""The machine's own GPUs: how they are listed, and the process that is given one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from hybrid_core.comfy_bridge import parent_process, worker_side
from hybrid_core.config import VISIBLE, Settings, WorkerDevice
from hybrid_core.errors import NotPartitionable, NvmlError, WorkerFailed
from hybrid_core.machine import devices, nvml
from hybrid_core.workers.process.host import Host

ROOT = Path(__file__).resolve().parents[2]
OWN = torch.device("cuda", 0)
LIST = (
    "import json; from hybrid_core import nvml; "
    "print(json.dumps([[g.uuid, g.name, g.total] for g in nvml.gpus()]))"
)


@pytest.fixture
def gpus():
    try:
        return nvml.gpus()
    except NvmlError as error:
        pytest.skip(str(error))


def up(device):
    """A worker on `device` that has come up; the caller stops it."""
    host = Host(device, Settings(), worker_side.models, parent_process.describe())
    host.start()
    deadline = time.monotonic() + 120
    try:
        while not host.ready():
            assert time.monotonic() < deadline
            time.sleep(0.05)
    except WorkerFailed:
        host.end(None)
        raise
    return host


def test_nvml_and_torch_agree(gpus):
    by_uuid = {gpu.uuid: gpu for gpu in gpus}
    for index in range(torch.cuda.device_count()):
        seen = devices.own_gpu(torch.device("cuda", index))
        listed = by_uuid[seen.uuid]
        assert (listed.name, listed.capability) == (seen.name, seen.capability)
        assert 0 < listed.free <= listed.total
        assert abs(listed.total - seen.total) < 0.1 * seen.total


@pytest.mark.parametrize("hiding", ["", "0", "-1"])
def test_hidden_gpus_are_listed(gpus, hiding):
    out = subprocess.run(
        [sys.executable, "-c", LIST], cwd=ROOT, env={**os.environ, VISIBLE: hiding},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(out.stdout) == [[gpu.uuid, gpu.name, gpu.total] for gpu in gpus]


def test_the_machines_own_choice(gpus):
    whole = [gpu for gpu in gpus if not gpu.divided]
    if len(whole) == 1:
        with pytest.raises(NotPartitionable, match="there is no second GPU: ComfyUI sees 1"):
            devices.for_worker(OWN, None)
        return
    assert devices.for_worker(OWN, None).uuid != devices.own_gpu(OWN).uuid


def test_the_worker_has_the_gpu_it_was_given(gpus):
    for gpu in gpus:
        host = up(devices.for_worker(OWN, gpu.uuid))
        try:
            status = host.wait(host.post("status", {}), "ok", 30).fields
            assert status["device"] == f"cuda:0 {gpu.name}"
            assert 0 < status["free_bytes"] <= status["available_bytes"] <= gpu.total
        finally:
            host.stop()


def test_a_gpu_that_is_not_there_is_a_named_error():
    uuid = "GPU-00000000-0000-0000-0000-000000000001"
    with pytest.raises(WorkerFailed, match=f"given {uuid} and CUDA shows it no GPU"):
        up(WorkerDevice("a GPU of another machine", {VISIBLE: uuid}, uuid=uuid))

"""Host memory between two real processes, without ComfyUI and without a GPU."""

from __future__ import annotations

import os
import random
import signal
import time

import echo_process
import pytest
import torch
from tensors import raw

from hybrid_core.config import Settings, WorkerDevice
from hybrid_core.errors import WorkerDied
from hybrid_core.transport.carry import carry
from hybrid_core.transport.headers import DTYPES
from hybrid_core.workers.process.host import Host

EXCHANGES = 500


@pytest.fixture(scope="module")
def host():
    device = WorkerDevice("cpu:0", {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}, (0,))
    made = Host(device, Settings(slot_bytes=1 << 20), echo_process.models, {})
    bring_up(made)
    yield made
    made.stop()
    assert made.pid is None


def bring_up(host):
    host.start()
    deadline = time.monotonic() + 120
    while not host.ready():
        assert time.monotonic() < deadline, "the worker did not come up"
        time.sleep(0.02)
    echo_process.hold_nothing(host)


def test_random_exchanges_come_back_byte_for_byte(host):
    chance = random.Random(3)  # noqa: S311
    pool = torch.randint(0, 256, (1 << 20,), dtype=torch.uint8)
    for _ in range(EXCHANGES):
        sent = []
        for _ in range(chance.randrange(4)):
            dtype = DTYPES[chance.choice([name for name in DTYPES if name != "bool"])]
            count, start = int(2 ** chance.uniform(0, 14)), 64 * chance.randrange(8192)
            sent.append(pool[start : start + count * dtype.itemsize].view(dtype))
        reply = echo_process.exchange(host, sent)
        for one, other in zip(reply.tensors, sent, strict=True):
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
            assert torch.equal(raw(one), raw(other).bitwise_not())


def test_there_is_nothing_to_choose_without_gpus(host):
    number = host._number
    host.planes.want("cuda_ipc")
    assert host.ready()
    assert (host.data_plane, host._number) == ("host", number)
    assert "host was (cuda_ipc: a process has no GPU)" in host.planes.missed
    host.planes.want("auto")
    assert host.ready()
    assert host.data_plane_reason is None


def test_a_message_larger_than_a_slot_arrives_whole(host):
    sent = [torch.randn(700_000), torch.arange(9)]
    replica = carry(sent)
    number = host.post_any_size("load", {"data": replica.tree}, replica.tensors)
    assert host.wait(number, "ok", 30).fields["portrait"] == 700_000 * 4 + 9 * 8


def test_a_worker_killed_between_and_in_messages(host):
    os.kill(host.pid, signal.SIGKILL)
    with pytest.raises(WorkerDied):
        for _ in range(100):
            echo_process.exchange(host, [torch.ones(100_000)])
    host.end("test")
    bring_up(host)
    reply = echo_process.exchange(host, [torch.zeros(4)])
    assert torch.equal(raw(reply.tensors[0]), torch.full((16,), 255, dtype=torch.uint8))

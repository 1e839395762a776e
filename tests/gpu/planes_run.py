"""One process of test_planes: a parent with a worker on the same GPU, without ComfyUI.

    python planes_run.py exchanges PLANE COUNT SEED
    python planes_run.py killed PLANE COUNT SEED
    python planes_run.py runs PLANE COUNT SEED

Prints one JSON object. The allocator is the environment's (PYTORCH_CUDA_ALLOC_CONF).
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT), str(ROOT / "tests" / "unit")]

import echo_process  # noqa: E402
import torch  # noqa: E402

from hybrid_core.config import Settings  # noqa: E402
from hybrid_core.errors import WorkerError  # noqa: E402
from hybrid_core.machine import devices  # noqa: E402
from hybrid_core.workers.process.host import Host  # noqa: E402

OWN = torch.device("cuda", 0)
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
POOL = 96 << 20


def bring_up(host: Host) -> None:
    host.start()
    deadline = time.monotonic() + 120
    while not host.ready():
        assert time.monotonic() < deadline, "the worker did not come up"
        time.sleep(0.01)


class Exchanges:
    """Random tensors to the worker and back, each with its bits inverted."""

    def __init__(self, host: Host, seed: int):
        self.host, self.chance = host, random.Random(seed)  # noqa: S311
        generator = torch.Generator(OWN).manual_seed(seed)
        self.pool = torch.randint(
            0, 256, (POOL,), dtype=torch.uint8, device=OWN, generator=generator
        )
        self.wrong = torch.zeros((), dtype=torch.int64, device=OWN)
        self.bytes = 0

    def one(self, largest: int = 22) -> None:
        sent = []
        for _ in range(self.chance.randrange(1, 4)):
            dtype = self.chance.choice(DTYPES)
            count = int(2 ** self.chance.uniform(0, largest)) // dtype.itemsize + 1
            start = 64 * self.chance.randrange((POOL - count * dtype.itemsize) // 64)
            sent.append(self.pool[start : start + count * dtype.itemsize].view(dtype))
        reply = echo_process.exchange(self.host, sent, OWN)
        for one, other in zip(reply.tensors, sent, strict=True):
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
            differs = one.view(torch.uint8) != other.view(torch.uint8).bitwise_not()
            self.wrong += differs.any()  # nothing is waited for: the parent runs ahead
            self.bytes += 2 * len(other) * other.element_size()


def exchanges(host: Host, count: int, seed: int) -> dict[str, float]:
    random_ones, began = Exchanges(host, seed), time.monotonic()
    for index in range(count):
        random_ones.one(22 if index % 100 == 0 else 16)
    wrong = int(random_ones.wrong)
    seconds = time.monotonic() - began
    return {"exchanges": count, "wrong": wrong, "seconds": seconds, "bytes": random_ones.bytes}


def killed(host: Host, count: int, seed: int) -> dict[str, float]:
    """The worker is killed at random moments of large exchanges; the parent's GPU goes on."""
    noticed = wrong = 0
    for index in range(count):
        random_ones = Exchanges(host, seed + index)
        seconds = random_ones.chance.uniform(0, 0.1)
        timer = threading.Timer(seconds, os.kill, (host.pid, signal.SIGKILL))
        timer.start()
        try:
            while True:
                random_ones.one(24)
        except WorkerError:
            noticed += 1
        timer.join()
        host.end("test")
        began = time.monotonic()
        torch.cuda.current_stream().synchronize()
        assert time.monotonic() - began < 5, "the parent's stream waits for a dead process"
        bring_up(host)
        again = Exchanges(host, seed + index)
        again.one()
        wrong += int(again.wrong)
    return {"killed": count, "noticed": noticed, "wrong": wrong}


def runs(host: Host, count: int, seed: int) -> dict[str, float]:
    """Free memory of the GPU after the first 50 runs and after the last; 50 share a worker."""
    wrong, free = 0, []
    for index in range(50 + count):
        host.planes.want("host" if index % 2 else "auto")  # gives back what the plane holds
        bring_up(host)
        random_ones = Exchanges(host, seed + index)
        for _ in range(5):
            random_ones.one()
        wrong += int(random_ones.wrong)
        if index % 50 == 49:
            del random_ones
            host.stop()
            torch.cuda.empty_cache()
            free.append(torch.cuda.mem_get_info()[0])
    return {"runs": count, "wrong": wrong, "lost_bytes": free[0] - free[-1]}


def main() -> None:
    what, plane, count, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    device = devices.for_worker(OWN, devices.own_gpu(OWN).uuid, "this test")
    host = Host(device, Settings(data_plane=plane), echo_process.models, {})
    bring_up(host)
    job = {"exchanges": exchanges, "killed": killed, "runs": runs}[what]
    found: dict[str, object] = {"plane": host.data_plane, "reason": host.data_plane_reason}
    found |= {"allocator": torch.cuda.get_allocator_backend()}
    found |= job(host, count, seed)
    host.stop()
    print(json.dumps(found))


if __name__ == "__main__":
    main()

"""The data planes between two processes on one GPU, without ComfyUI, with each allocator.

HYBRID_EXCHANGES: how many random exchanges are compared byte for byte, all cases together. All of a
million, by themselves, because they take longer than the other tests together:

    HYBRID_EXCHANGES=1000000 python dev.py gpu --allocator cudaMallocAsync --seconds 3600 \
        tests/gpu/test_planes.py -k random
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

RUN = Path(__file__).with_name("planes_run.py")
EXCHANGES = int(os.environ.get("HYBRID_EXCHANGES", "100000"))
PLANES = ("cuda_ipc", "host_pinned", "host")
ALLOCATORS = {
    "backend:cudaMallocAsync": "cudaMallocAsync",  # ComfyUI's default
    "backend:native": "native",
    "backend:native,expandable_segments:True": "native",
}
DEFAULT = "backend:cudaMallocAsync"
LEAK_BYTES = 8 << 20

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]


def run(what: str, plane: str, allocator: str, count: int, seconds: float) -> dict:
    environment = {**os.environ, "PYTORCH_CUDA_ALLOC_CONF": allocator}
    environment.pop("PYTORCH_ALLOC_CONF", None)  # the newer name would win
    done = subprocess.run(
        [sys.executable, str(RUN), what, plane, str(count), "7"],
        env=environment, capture_output=True, text=True, timeout=seconds, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    print(allocator, json.dumps(found))
    assert (found["plane"], found["reason"]) == (plane, None)
    assert found["allocator"] == ALLOCATORS[allocator]
    return found


@pytest.mark.parametrize("allocator", ALLOCATORS)
@pytest.mark.parametrize("plane", PLANES)
def test_random_exchanges_come_back_byte_for_byte(plane, allocator):
    """Of all exchanges the unpinned plane gets a hundredth in each case, the others the rest."""
    hundredth = EXCHANGES // 100
    count = hundredth if plane == "host" else (EXCHANGES - 3 * hundredth) // 6 + 1
    found = run("exchanges", plane, allocator, count, 300 + count / 200)
    assert (found["exchanges"], found["wrong"]) == (count, 0)


@pytest.mark.parametrize(
    ("plane", "allocator"), [*(("cuda_ipc", name) for name in ALLOCATORS), ("host_pinned", DEFAULT)]
)
def test_worker_killed_in_mid_copy(plane, allocator):
    found = run("killed", plane, allocator, 3, 300)
    assert (found["noticed"], found["wrong"]) == (3, 0)


@pytest.mark.alone
@pytest.mark.parametrize("plane", PLANES[:2])
def test_nothing_is_left_after_200_runs(plane):
    found = run("runs", plane, DEFAULT, 200, 900)
    assert (found["runs"], found["wrong"]) == (200, 0)
    assert found["lost_bytes"] < LEAK_BYTES

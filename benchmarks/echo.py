"""Exchanges without a model: a real worker, whose evaluation takes nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from hybrid_core.config import Settings, WorkerDevice
from hybrid_core.workers.process.host import Host

START_SECONDS = 120.0
WARM_UP = 20


class Echo:
    """In the worker: answers an evaluation with as many bytes as its context says."""

    def __init__(self) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"

    def context(self, data: Any) -> torch.Tensor:
        return torch.randn(data // 2, device=self.device).half()

    def evaluate(self, context: Any, inputs: Any, each: Any) -> list[torch.Tensor]:
        return [context]

    def interrupt(self, value: bool) -> None:
        """Nothing takes long here."""

    def after_failure(self) -> None:
        """Nothing is held."""


def models(boot: Any) -> Echo:
    """In the worker's process."""
    return Echo()


@contextmanager
def echoing(device: WorkerDevice, plane: str) -> Iterator[Host]:
    """A worker that echoes over `plane`; another plane where that one cannot be used."""
    host = Host(device, Settings(data_plane=plane), models, {})
    try:
        host.start()
        deadline = time.monotonic() + START_SECONDS
        while not host.ready():
            if time.monotonic() > deadline:
                raise RuntimeError(f"the echoing worker was not up after {START_SECONDS:.0f} s")
            time.sleep(0.02)
        yield host
    finally:
        host.stop()


def exchange(host: Host, sent: Sequence[torch.Tensor], size: int, repeats: int) -> list[float]:
    """Milliseconds of each of some exchanges: `sent` there, `size` bytes back, on its device."""
    device, taken = sent[0].device, []
    host.wait(host.post("conds", {"data": size, "context": 0}), "ok", 30.0)
    for _ in range(WARM_UP + repeats):
        wait_for(device)
        since = time.perf_counter()
        reply = host.wait(
            host.post("evaluate", {"context": 0}, sent), "result", 30.0, device=device
        )
        wait_for(device)
        taken.append((time.perf_counter() - since) * 1000)
        (back,) = reply.tensors
        if back.device != device or back.numel() != size // 2:
            raise RuntimeError(f"{back.numel() * 2} bytes came back on {back.device}")
    return taken[WARM_UP:]


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

"""Exchanges without a model: a real worker, whose evaluation takes nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from hybrid_core.config import Settings, WorkerDevice
from hybrid_core.workers.process import entry
from hybrid_core.workers.process import host as host_module
from hybrid_core.workers.process.host import WorkerHost

START_SECONDS = 120.0
WARM_UP = 20


class Echo:
    """In the worker: answers a step with as many bytes as it is asked for."""

    def __init__(self) -> None:
        self._kept: dict[int, torch.Tensor] = {}

    def step(self, fields: Any, tensors: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], Any]:
        size = fields["bytes"]
        if size not in self._kept:
            self._kept[size] = torch.randn(size // 2, device=tensors[0].device).half()
        return [self._kept[size]], None

    def interrupt(self, value: bool) -> None:
        """Nothing takes long here."""

    def after_failure(self) -> None:
        """Nothing is held."""


def main(*arguments: Any) -> None:
    """The worker's process."""
    entry.evaluator = lambda boot: Echo()
    entry.main(*arguments)


@contextmanager
def echoing(device: WorkerDevice, plane: str) -> Iterator[WorkerHost]:
    """A worker that echoes over `plane`; another plane where that one cannot be used."""
    host = WorkerHost(device, Settings(data_plane=plane), {})
    try:
        with mock.patch.object(host_module, "entry", SimpleNamespace(main=main)):
            host.start()
        deadline = time.monotonic() + START_SECONDS
        while not host.ready():
            if time.monotonic() > deadline:
                raise RuntimeError(f"the echoing worker was not up after {START_SECONDS:.0f} s")
            time.sleep(0.02)
        yield host
    finally:
        host.stop()


def exchange(
    host: WorkerHost, sent: Sequence[torch.Tensor], size: int, repeats: int
) -> list[float]:
    """Milliseconds of each of some exchanges: `sent` there, `size` bytes back, on its device."""
    device, taken = sent[0].device, []
    for _ in range(WARM_UP + repeats):
        wait_for(device)
        since = time.perf_counter()
        reply = host.wait(host.post("step", {"bytes": size}, sent), "result", 30.0, device=device)
        wait_for(device)
        taken.append((time.perf_counter() - since) * 1000)
        (back,) = reply.tensors
        if back.device != device or back.numel() != size // 2:
            raise RuntimeError(f"{back.numel() * 2} bytes came back on {back.device}")
    return taken[WARM_UP:]


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

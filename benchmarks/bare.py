"""The limit of the machine: a branch's forwards in two bare processes at once, no pack."""

from __future__ import annotations

import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from typing import Any


def forwards(name: str, core: int, pipe: Connection) -> None:
    """A process of its own: for each number received, that many forwards; the seconds they took."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    import torch
    from comfy.cli_args import args

    args.cpu = True
    torch.set_num_threads(1)
    from benchmarks.models import SHAPES, conditioning

    shape = SHAPES[name]
    patcher = shape.load()
    model = patcher.model
    ((vectors, extra),) = conditioning(shape, 1 + core)
    batch = shape.latent[0]
    x, sigma = torch.randn(shape.latent), torch.full((batch,), 0.5)
    keywords: dict[str, Any] = {"c_crossattn": vectors.repeat(batch, 1, 1)}
    width = model.adm_channels
    if width:
        pooled = extra["pooled_output"].repeat(batch, 1)
        keywords["y"] = torch.nn.functional.pad(pooled, (0, width - pooled.shape[1]))
    pipe.send("ready")
    with torch.inference_mode():
        while (count := pipe.recv()) > 0:
            model.apply_model(x, sigma, **keywords)  # back into the caches
            since = time.perf_counter()
            for _ in range(count):
                model.apply_model(x, sigma, **keywords)
            pipe.send(time.perf_counter() - since)


class BarePair:
    """Two such processes, one on each core."""

    def __init__(self, name: str):
        context = multiprocessing.get_context("spawn")
        self._pipes, self._processes = [], []
        for core in (0, 1):
            ours, theirs = context.Pipe()
            process = context.Process(target=forwards, args=(name, core, theirs), daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)
        for pipe in self._pipes:
            pipe.recv()

    def seconds(self, count: int) -> float:
        """Both at once, `count` forwards each: the time of the slower one."""
        for pipe in self._pipes:
            pipe.send(count)
        return max(pipe.recv() for pipe in self._pipes)

    def alone(self, count: int) -> float:
        """One of them, the other idle."""
        self._pipes[0].send(count)
        return float(self._pipes[0].recv())

    def close(self) -> None:
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.send(0)
            process.join()

"""The limit of the machine: a branch's forwards, or its stages, in two bare processes at once."""

from __future__ import annotations

import functools
import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from hybrid_core.stages.plan import Cut


def forwards(name: str, core: int, pipe: Connection) -> None:
    """A process of its own: for each (count, cut) received, the seconds of that many forwards.

    With a cut, they are stage B on core 0 and stage A on core 1.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    import torch
    from comfy.cli_args import args

    args.cpu = True
    torch.set_num_threads(1)
    from benchmarks.models import SHAPES, inputs
    from hybrid_core.stages.swap import Splitter

    shape = SHAPES[name]
    model = shape.load().model
    x, sigma, keywords = inputs(model, shape, 1 + core, shape.latent[0])
    splitter = Splitter(model.diffusion_model)

    def full() -> Any:
        return model.apply_model(x, sigma, **keywords)

    pipe.send("ready")
    with torch.inference_mode():
        splitter.record(full)
        while (request := pipe.recv()) is not None:
            count, cut = request
            part: Callable[[], Any] = full
            if cut is not None:
                boundary = splitter.stage_a(full, cut.last)
                stage_b = functools.partial(splitter.stage_b, full, cut, boundary)
                part = functools.partial(splitter.stage_a, full, cut.last) if core else stage_b
            part()  # back into the caches
            since = time.perf_counter()
            for _ in range(count):
                part()
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

    def seconds(self, count: int, cut: Cut | None = None) -> float:
        """Both at once, `count` forwards or stages each: the time of the slower one."""
        for pipe in self._pipes:
            pipe.send((count, cut))
        return max(pipe.recv() for pipe in self._pipes)

    def alone(self, count: int) -> float:
        """One of them, the other idle."""
        self._pipes[0].send((count, None))
        return float(self._pipes[0].recv())

    def close(self) -> None:
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.send(None)
            process.join()

"""The limit at cfg 1: both halves of each forward pass in two bare processes at once."""

from __future__ import annotations

import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.models import Shape, one_branch_shapes, sample


class CopyLink:
    """Exchanges without another side: what is sent and what would come is copied in memory."""

    def __init__(self, place: int):
        self.place, self.bounds = place, (0, 500, 1000)
        self._memory: dict[Any, Any] = {}

    def gather(self, at: int, mine: Any, forms: Any) -> Any:

        for number, tensor in enumerate(mine):
            self._slot((number, tensor.shape, tensor.dtype)).copy_(tensor)
        came = [[self._slot((shape, dtype)).clone() for shape, dtype in some] for some in forms]
        return came

    def _slot(self, key: Any) -> Any:
        import torch

        if key not in self._memory:
            self._memory[key] = torch.zeros(key[-2], dtype=key[-1])
        return self._memory[key]


def half(name: str, place: int, pipe: Connection) -> None:
    """A process of its own: for each number of steps received, the seconds of a run of its half."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {place})
    import torch
    from comfy.cli_args import args

    args.cpu = True
    torch.set_num_threads(1)
    shape = one_branch_shapes()[name]
    model, shape = halved(shape.load(), shape, place)
    pipe.send("ready")
    while (steps := pipe.recv()) is not None:
        since = time.perf_counter()
        sample(model, shape, steps, cfg=1.0)
        pipe.send(time.perf_counter() - since)


def halved(model: Any, shape: Shape, place: int) -> tuple[Any, Shape]:
    """`model` and `shape` for half of the pictures, or of the tokens of one."""
    from dataclasses import replace

    from hybrid_core.comfy_bridge.attention_seams import ATTENTION
    from hybrid_core.comfy_bridge.forwards import with_each_forward
    from hybrid_core.stages.tokens import Plans, TokenDivider, dividing, recording

    if shape.latent[0] > 1:
        return model, replace(shape, latent=(shape.latent[0] // 2, *shape.latent[1:]))
    divider = TokenDivider(model.model.diffusion_model, Plans(), ATTENTION)
    recorded, divided = model.clone(), model.clone()
    recorded.model_options = with_each_forward(model.model_options, recording(divider))
    sample(recorded, shape, 1, cfg=1.0)
    each = dividing(divider, CopyLink(place))
    divided.model_options = with_each_forward(model.model_options, each)
    return divided, shape


class Halves:
    """Two such processes, one on each core."""

    def __init__(self, name: str):
        context = multiprocessing.get_context("spawn")
        self._pipes, self._processes = [], []
        for place in (0, 1):
            ours, theirs = context.Pipe()
            process = context.Process(target=half, args=(name, place, theirs), daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)
        for pipe in self._pipes:
            pipe.recv()

    def seconds(self, steps: int) -> float:
        """Both at once: the time of the slower one."""
        for pipe in self._pipes:
            pipe.send(steps)
        return max(pipe.recv() for pipe in self._pipes)

    def close(self) -> None:
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.send(None)
            process.join()

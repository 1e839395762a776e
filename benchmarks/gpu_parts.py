"""Parts of a step on one device: forwards, stages, the policy's measures."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import torch
from comfy.samplers import KSampler

from benchmarks.echo import wait_for
from benchmarks.models import Shape, inputs
from hybrid_core.config import Tuning
from hybrid_core.course.course import Course
from hybrid_core.course.policy import policy_for
from hybrid_core.stages import plan
from hybrid_core.stages.plan import Cut
from hybrid_core.stages.swap import Splitter, tensors

WARM_UP = 3


@dataclass(frozen=True)
class Time:
    """Medians in milliseconds: until the call returned, and of the device's work with its gaps."""

    host: float
    device: float

    @property
    def launch_bound(self) -> bool:
        """Whether the device waits for this process."""
        return self.host > 0.95 * self.device


@dataclass(frozen=True)
class Staged:
    """One branch in two stages at the cut that a run would choose."""

    cut: Cut
    name: str  # the last block of stage A
    stage_a: Time
    stage_b: Time
    boundary_bytes: int


def timed(call: Callable[[], Any], device: torch.device, repeats: int) -> Time:
    hosts, devices = [], []
    for _ in range(WARM_UP + repeats):
        wait_for(device)
        since = time.perf_counter()
        if device.type == "cuda":
            events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            events[0].record()
            call()
            events[1].record()
            hosts.append((time.perf_counter() - since) * 1000)
            events[1].synchronize()
            devices.append(events[0].elapsed_time(events[1]))
        else:
            call()
            hosts.append((time.perf_counter() - since) * 1000)
            devices.append(hosts[-1])
    return Time(statistics.median(hosts[WARM_UP:]), statistics.median(devices[WARM_UP:]))


class Forwards:
    """A loaded model's forwards at `shape`."""

    def __init__(self, patcher: Any, shape: Shape, repeats: int):
        comfy.model_management.load_models_gpu([patcher])
        self._patcher, self._model, self._shape = patcher, patcher.model, shape
        self._repeats = repeats
        self.device = patcher.load_device

    def full(self, batch: int) -> Time:
        """In full, `batch` latents at once."""
        return timed(self._forward(batch), self.device, self._repeats)

    def _forward(self, batch: int) -> Callable[[], torch.Tensor]:
        x, sigma, keywords = inputs(self._model, self._shape, 1, batch)
        return lambda: self._model.apply_model(x, sigma, **keywords)

    def staged(self) -> Staged:
        """Both stages, timed and checked against the full forward."""
        forward, splitter = self._forward(1), Splitter(self._model.diffusion_model)
        splitter.record(forward)
        result, recording = splitter.record(forward)
        planned = splitter.planned(recording)
        cut = plan.rebalanced(splitter.layout.cuts, planned, recording.seconds(), 1.0)
        boundary = splitter.stage_a(forward, cut.last)
        splitter.check(forward, cut, boundary, result)
        a = functools.partial(splitter.stage_a, forward, cut.last)
        b = functools.partial(splitter.stage_b, forward, cut, boundary)
        return Staged(
            cut,
            splitter.layout.units[cut.last].name,
            timed(a, self.device, self._repeats),
            timed(b, self.device, self._repeats),
            sum(t.numel() * t.element_size() for t in tensors(boundary)),
        )

    def measures(self, staged: Staged, steps: int = 20) -> float:
        """Milliseconds a step of mode adaptive's course: its measures and its decision."""
        forward, splitter = self._forward(1), Splitter(self._model.diffusion_model)
        denoised, boundary = splitter.capture(forward, staged.cut.last)
        other = denoised + 0.1 * torch.randn_like(denoised)
        sigmas = KSampler(self._patcher, steps, self.device, scheduler="normal").sigmas.tolist()
        taken = []
        for _ in range(WARM_UP + self._repeats):
            policy = policy_for("adaptive", Tuning(tolerance=0.0), sigmas, True, 5.0)
            course = Course(policy, sigmas, cfg=5.0)
            wait_for(self.device)
            since = time.perf_counter()
            for step in range(steps):
                sigma = torch.full((1,), sigmas[step], device=self.device)
                course.begin(denoised * sigmas[step], sigma).finish(denoised, other, boundary)
            wait_for(self.device)
            taken.append((time.perf_counter() - since) * 1000 / steps)
        return statistics.median(taken[WARM_UP:])

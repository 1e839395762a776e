"""What mode adaptive itself costs: a forecast step and the decision before an exact one.

    python dev.py bench forecast [--json]

On one core, at the latents of a 1024 x 1024 SDXL image and of a video. An operation is one of
torch's, of the latent's size or smaller: on a GPU a kernel each. They are beside the operations and
the arithmetic of one SDXL forward pass at that size, counted on tensors without contents.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.two_cores import command_line, one_core  # isort: skip

import comfy.ldm.modules.attention
import comfy.supported_models
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.models import FULL_SDXL
from benchmarks.report import Row, publish
from hybrid_core.config import Tuning
from hybrid_core.course.course import Course
from hybrid_core.course.matrix import Matrix, trace
from hybrid_core.course.steps import ForecastStep
from hybrid_core.telling.report import kinds

LATENTS = {
    "SDXL, 1024 x 1024": (1, 4, 128, 128),
    "video, 832 x 480, 81 frames": (1, 16, 21, 60, 104),
}
STEPS, CFG, ROUNDS = 30, 5.0, 5
VIEWS = ("view", "slice", "expand", "reshape", "unsqueeze", "select", "alias", "detach", "split")
Tensor = torch.Tensor


class Operations(TorchDispatchMode):
    """Counts those that compute."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = op.name().partition("::")[2]
        self.count += not name.lstrip("_").startswith(VIEWS)
        return op(*args, **(kwargs or {}))


def main() -> None:
    command_line("forecast", __doc__).parse_args()
    with one_core():
        network = forward_pass()
        publish("forecast", [row | share(row, network) for row in costs()] + [network])


def costs() -> Iterator[Row]:
    for name, shape in LATENTS.items():
        milliseconds: dict[str, list[float]] = {"forecast": [], "exact": []}
        operations: dict[str, list[int]] = {"forecast": [], "exact": []}
        for _ in range(ROUNDS):
            for kind, (seconds, _) in run(shape, counted=False):
                milliseconds[kind].append(seconds * 1000)
        for kind, (_, count) in run(shape, counted=True):
            operations[kind].append(count)
        for kind in milliseconds:
            yield {
                "latent": name,
                "step": kind,
                "ms": round(statistics.median(milliseconds[kind]), 3),
                "operations": round(statistics.mean(operations[kind]), 1),
                "latent_numbers": torch.Size(shape).numel(),
            }


def run(shape: tuple[int, ...], counted: bool) -> Iterator[tuple[str, tuple[float, int]]]:
    """Kind, seconds and operations of a run's calls, every second one forecast."""
    generator = torch.Generator().manual_seed(0)
    cond, uncond, x = (torch.randn(shape, generator=generator) for _ in "123")
    sigmas = [1 - i / STEPS for i in range(STEPS + 1)]
    tuning = Tuning(tolerance=1e9, largest_gap=1, kinds=frozenset(("forecast",)))
    course = Course.of("adaptive", tuning, sigmas, True, lambda: euler(sigmas), cfg=CFG)
    for i, sigma in enumerate(sigmas[:-1]):
        with Operations() if counted else torch.inference_mode() as operations:
            since = time.perf_counter()
            step = course.begin(x, torch.tensor([sigma]))
            if isinstance(step, ForecastStep):
                one, other = step.both()
            else:
                one, other = cond, uncond
                shift = step.finish(one, other)
                if shift is not None:
                    one, other = one + shift, other + shift
            seconds = time.perf_counter() - since
        if i > 3:  # from there on everything is known
            kind = "forecast" if kinds([step.record]) == "F" else "exact"
            yield kind, (seconds, operations.count if counted else 0)
        denoised = other + CFG * (one - other)
        x = denoised + (x - denoised) * (sigmas[i + 1] / sigma)


def euler(sigmas: list[float]) -> Matrix:
    def sample(predict: Any, x: Tensor, noise: Any) -> Tensor:
        for sigma, after in zip(sigmas[:-1], sigmas[1:], strict=True):
            denoised = predict(x, torch.tensor([sigma]))[0]
            x = denoised + (x - denoised) * (after / sigma)
        return x

    return trace(sample, sigmas[0], STEPS)


def forward_pass() -> Row:
    """Of one SDXL forward at 1024 x 1024 with two branches in a batch."""
    meta, attention = torch.device("meta"), comfy.ldm.modules.attention
    attention.optimized_attention = attention.attention_pytorch  # others ask for a device's memory
    made = comfy.supported_models.SDXL(dict(FULL_SDXL))
    made.set_inference_dtype(torch.float16, None)
    network = made.get_model({}, "", device=meta).diffusion_model
    x = torch.empty(2, 4, 128, 128, dtype=torch.float16, device=meta)
    context = torch.empty(2, 77, 2048, dtype=torch.float16, device=meta)
    pooled = torch.empty(2, 2816, dtype=torch.float16, device=meta)
    arithmetic, operations = FlopCounterMode(display=False), Operations()
    with torch.inference_mode(), arithmetic, operations:
        network(x, torch.empty(2, device=meta), context=context, y=pooled)
    return {
        "latent": "SDXL, 1024 x 1024", "step": "two branches, evaluated",
        "operations": operations.count, "gflop": round(arithmetic.get_total_flops() / 1e9),
    }  # fmt: skip


def share(row: Row, network: Row) -> Row:
    """Of a step's operations and arithmetic, one for each number of each operation; percent."""
    return {
        "operations_percent": round(100 * row["operations"] / network["operations"], 2),
        "arithmetic_percent": float(
            f"{row['operations'] * row['latent_numbers'] / network['gflop'] / 1e7:.2g}"
        ),
    }


if __name__ == "__main__":
    main()

"""Fidelity of mode adaptive where a picture is changed a little: detailers, upscalers.

    python dev.py bench low-denoise [--json] [--model WORD] [--pictures 16] [--sampler euler]

Pictures of KSampler's are denoised again towards another prompt, by KSampler and by mode adaptive
at its default tolerance, on one device: which steps are foreseen is the same on two.
"""

from __future__ import annotations

import itertools
import os
import statistics
from typing import Any

from benchmarks.two_cores import command_line  # isort: skip

import torch

from benchmarks.fidelity import image, psnr
from benchmarks.report import Row, progress, publish
from benchmarks.together import SCHEDULER
from demo import pictures
from demo.evaluate import prompt
from hybrid_core.comfy_bridge import demo_models
from hybrid_core.comfy_bridge.attach import attach
from hybrid_core.config import DEVICE_VARIABLE
from hybrid_core.telling.report import Report, kinds
from nodes import common_ksampler

DENOISE, STEPS, CFG = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6), (10, 20, 30), 5.0
MOST = 64  # pictures


def main() -> None:
    parser = command_line("low-denoise", __doc__)
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--sampler", default="euler")
    arguments = parser.parse_args()
    os.environ.pop(DEVICE_VARIABLE)
    torch.set_num_threads(1)
    rows: list[Row] = []
    for kind in demo_models.KINDS:
        if arguments.model in kind:
            rows += measure(kind, arguments.sampler, arguments.pictures)
    publish("low-denoise", rows)


def measure(kind: str, sampler: str, count: int) -> list[Row]:
    """A row for each number of steps and denoise, over all pictures."""
    model = demo_models.load_model(kind)
    reports: list[Report] = []
    attached = attach(model, "adaptive", str, on_report=reports.append)
    labels = pictures.random_labels(MOST, torch.Generator().manual_seed(12))
    settings = list(itertools.product(STEPS, DENOISE))
    decibels: dict[Any, list[float]] = {setting: [] for setting in settings}
    ideals: dict[Any, list[float]] = {setting: [] for setting in settings}
    for seed in range(count):
        drawn, wanted = (prompt(labels[place]) for place in (seed, seed - 1))
        picture = sample(model, kind, drawn, sampler, 16, 1.0, seed)
        for steps, denoise in settings:
            of = kind, wanted, sampler, steps, denoise, 1000 + seed, picture
            plain, seen = (image(sample(patcher, *of)) for patcher in (model, attached))
            decibels[steps, denoise].append(psnr(seen, plain))
            ideals[steps, denoise].append(reports[-1].ideal)
            last = decibels[steps, denoise][-1]
            progress(f"{kind} {seed} {steps} {denoise} {last:.1f} {kinds(reports[-1].steps)}")
    return [
        {
            "model": f"demo {kind}", "sampler": sampler, "steps": steps, "denoise": denoise,
            "pictures": count, "psnr_min_db": round(min(decibels[steps, denoise]), 1),
            "psnr_db": round(statistics.mean(decibels[steps, denoise]), 1),
            "ideal": round(statistics.harmonic_mean(ideals[steps, denoise]), 2),
        }
        for steps, denoise in settings
    ]  # fmt: skip


def sample(
    patcher: Any, kind: str, words: str, sampler: str, steps: int, denoise: float, seed: int,
    latent: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    """Final latent, (1, 48, 16, 16)."""
    empty = {"samples": torch.zeros(1, 4, 8, 8), "downscale_ratio_spacial": 8}
    conds = (demo_models.conditioning(kind, text) for text in (words, ""))
    with torch.inference_mode():
        (out,) = common_ksampler(
            patcher, seed, steps, CFG, sampler, SCHEDULER, *conds,
            empty if latent is None else {"samples": latent}, denoise=denoise,
        )  # fmt: skip
    return out["samples"].clone()


if __name__ == "__main__":
    main()

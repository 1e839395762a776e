"""Speed against fidelity: every mode on the demo models, against the exact image.

    python dev.py bench frontier [--json] [--model WORD] [--pairs 48] [--others 16]
                                 [--sampler NAME] [--cfg 5]

Two cores are two devices. Each prompt/seed pair is sampled by KSampler (one process, one core) and
by every arm (a process on each core), one after the other: ratios are of the summed times. Rules
were chosen on pictures 0 to 15, so the ones from 16 on judge them.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

from benchmarks.two_cores import command_line, two_cores  # isort: skip

import torch
from skimage.metrics import structural_similarity

from benchmarks.report import Row, progress, publish
from demo import classifier, pictures
from demo.evaluate import prompt
from hybrid_core.comfy_bridge import demo_models
from hybrid_core.comfy_bridge.attach import attach
from hybrid_core.comfy_bridge.session import SESSION
from hybrid_core.config import Tuning
from hybrid_core.telling.report import Report, kinds
from nodes import common_ksampler

STEPS, CFGS = (20, 30, 50), (5.0, 7.5)
SAMPLERS = (
    "euler", "dpmpp_2m", "ddim", "res_multistep", "uni_pc", "heun", "dpm_2", "euler_ancestral",
    "dpmpp_2m_sde",
)  # fmt: skip
PICTURES, FIRST = 64, 16
SCHEDULER = "normal"
LENGTHS = (5, 10, 20, 30)  # k of mode paper, as published for 50 steps
TOLERANCES = (0.006, 0.01, 0.014, 0.02, 0.03)
MOST_DB = 99.0  # of images that are equal
ARMS: list[tuple[str, Row, Tuning]] = [
    ("exact", {}, Tuning()),
    *(("paper", {"k": k}, Tuning(length=k)) for k in LENGTHS),
    *(("adaptive", {"tolerance": tol}, Tuning(tolerance=tol)) for tol in TOLERANCES),
]


@dataclass
class Taken:
    """What one arm did over the pairs of a row."""

    seconds: list[float] = field(default_factory=list)
    images: list[torch.Tensor] = field(default_factory=list)
    latents: list[torch.Tensor] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)


def main() -> None:
    parser = command_line("frontier", __doc__)
    parser.add_argument("--pairs", type=int, default=48, help="for euler at cfg 5")
    parser.add_argument("--others", type=int, default=16, help="for every other row")
    parser.add_argument("--sampler", choices=SAMPLERS, help="only this one")
    parser.add_argument("--cfg", type=float, choices=CFGS, help="only this one")
    arguments = parser.parse_args()
    samplers = [arguments.sampler] if arguments.sampler else SAMPLERS
    cfgs = [arguments.cfg] if arguments.cfg else CFGS
    rows: list[Row] = []
    with two_cores():
        for kind in demo_models.KINDS:
            if arguments.model not in kind:
                continue
            model = demo_models.load_model(kind)
            with torch.inference_mode():
                if not SESSION.bring_up(model, 300):
                    raise RuntimeError(f"{kind}: the worker did not come up")
            for steps, cfg, sampler in itertools.product(STEPS, cfgs, samplers):
                usual = (sampler, cfg) == ("euler", 5.0)
                count = arguments.pairs if usual else arguments.others
                rows += measure(kind, model, steps, cfg, sampler, count)
    publish("frontier", rows)


def measure(kind: str, model: Any, steps: int, cfg: float, sampler: str, count: int) -> list[Row]:
    """All arms of one setting."""
    judge = classifier.load()
    every = pictures.random_labels(PICTURES, torch.Generator().manual_seed(11))
    labels = every[FIRST : FIRST + count]
    taken = [Taken() for _ in ARMS]
    attached = [
        attach(model, mode, progress, on_report=one.reports.append, tuning=tuning)
        for (mode, _, tuning), one in zip(ARMS, taken, strict=True)
    ]
    plain = Taken()
    for seed, row in enumerate(labels, FIRST):
        conds = demo_models.conditioning(kind, prompt(row)), demo_models.conditioning(kind, "")
        arms = [(model, plain), *zip(attached, taken, strict=True)]
        for patcher, one in arms:
            since = time.perf_counter()
            latent = sample(patcher, seed, steps, cfg, sampler, *conds)
            one.seconds.append(time.perf_counter() - since)
            one.latents.append(latent)
            one.images.append(
                torch.nn.functional.pixel_shuffle(latent, demo_models.PATCH).clamp(-1, 1)
            )
    common = {"model": f"demo {kind}", "steps": steps, "cfg": cfg, "sampler": sampler}
    common |= {"scheduler": SCHEDULER, "pairs": count}
    rows = [
        {**common, "arm": "ksampler", "ratio": 1.0, "ideal": 1.0, **accuracy(judge, plain, labels)}
    ]
    for (mode, settings, _), one in zip(ARMS, taken, strict=True):
        row = {
            **common,
            "arm": mode,
            **settings,
            **fidelity(one, plain),
            **speed(one, plain),
        }
        rows.append(row | accuracy(judge, one, labels))
        progress(" ".join(f"{key}={value}" for key, value in rows[-1].items()))
    return rows


def sample(
    model: Any, seed: int, steps: int, cfg: float, sampler: str, positive: Any, negative: Any
) -> torch.Tensor:
    """Final latent, (1, 48, 16, 16)."""
    latent = {"samples": torch.zeros(1, 4, 8, 8), "downscale_ratio_spacial": 8}
    with torch.inference_mode():
        (out,) = common_ksampler(
            model, seed, steps, cfg, sampler, SCHEDULER, positive, negative, latent
        )
    return out["samples"].clone()


def fidelity(one: Taken, plain: Taken) -> Row:
    """Against KSampler's image: PSNR in dB, SSIM, relative error of the latent; means."""
    noise = [psnr(a, b) for a, b in zip(one.images, plain.images, strict=True)]
    alike = [
        structural_similarity(
            a[0].numpy(), b[0].numpy(), channel_axis=0, data_range=2.0, gaussian_weights=True,
            sigma=1.5, use_sample_covariance=False,
        )
        for a, b in zip(one.images, plain.images, strict=True)
    ]  # fmt: skip
    error = [
        float((a - b).norm() / b.norm()) for a, b in zip(one.latents, plain.latents, strict=True)
    ]
    return {
        "psnr_db": round(statistics.mean(noise), 2),
        "psnr_min_db": round(min(noise), 2),
        "ssim": round(statistics.mean(map(float, alike)), 5),
        "latent_error": float(f"{statistics.mean(error):.3g}"),
    }


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """In dB, of images in -1..1."""
    error = float((a - b).double().pow(2).mean())
    return MOST_DB if error == 0 else min(MOST_DB, 10 * math.log10(4 / error))


def speed(one: Taken, plain: Taken) -> Row:
    """Ratio of the summed times, step arithmetic, and what the steps were."""
    reports = one.reports
    if any(report.local or len(report.reasons) for report in reports):
        words = next(r.line() for r in reports if r.local or r.reasons)
        progress(f"note: {words}")
    by_pair = [a / b for a, b in zip(plain.seconds, one.seconds, strict=True)]
    return {
        "ratio": round(sum(plain.seconds) / sum(one.seconds), 3),
        "ratio_min": round(min(by_pair), 3),
        "ratio_max": round(max(by_pair), 3),
        "ideal": round(statistics.harmonic_mean(report.ideal for report in reports), 3),
        "pipelined": round(statistics.mean(report.pipelined for report in reports), 2),
        "forecast": round(statistics.mean(report.forecast for report in reports), 2),
        "shared": sum(report.local == 0 for report in reports),
        "first": kinds(reports[0].steps),
    }


def accuracy(judge: classifier.Classifier, one: Taken, labels: torch.Tensor) -> Row:
    """Share of the prompt's words that the pictures show, in percent."""
    with torch.no_grad():
        seen = judge.accuracy(torch.cat(one.images), labels)
    return {"accuracy": round(100 * statistics.mean(seen.values()), 2)}


if __name__ == "__main__":
    main()

"""How near a picture is to KSampler's, and whether it shows what was asked for."""

from __future__ import annotations

import math
import statistics

import torch
from skimage.metrics import structural_similarity

from benchmarks.report import Row
from demo.training.judge import Judge
from hybrid_core.comfy_bridge.demo_latents import PATCH
from hybrid_core.comfy_bridge.demo_words import ATTRIBUTES

MOST_DB = 99.0  # of images that are equal
GOOD_DB = 40.0


def image(latent: torch.Tensor) -> torch.Tensor:
    """A demo model's latent, (1, 48, 16, 16), as (1, 3, 64, 64) in -1..1."""
    return torch.nn.functional.pixel_shuffle(latent, PATCH).clamp(-1, 1)


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """In dB, of images in -1..1."""
    error = float((a - b).double().pow(2).mean())
    return MOST_DB if error == 0 else min(MOST_DB, 10 * math.log10(4 / error))


def fidelity(latent: torch.Tensor, plain: torch.Tensor) -> Row:
    """Against KSampler's latent: PSNR in dB, SSIM, relative error of the latent."""
    a, b = image(latent), image(plain)
    alike = structural_similarity(
        a[0].numpy(), b[0].numpy(), channel_axis=0, data_range=2.0, gaussian_weights=True,
        sigma=1.5, use_sample_covariance=False,
    )  # fmt: skip
    return {
        "psnr_db": round(psnr(a, b), 2),
        "ssim": round(float(alike), 5),
        "latent_error": float(f"{float((latent - plain).norm() / plain.norm()):.3g}"),
    }


def accuracy(judge: Judge, latent: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of the prompt's words, (4,), that the picture shows, in percent."""
    seen = judge.shares(image(latent), labels[None])
    return round(100 * statistics.mean(seen[name] for name in ATTRIBUTES), 2)


def mean(pictures: list[Row]) -> Row:
    """One row of several pictures': means, the worst, how many are under 40 dB."""
    row: Row = {"pairs": len(pictures)}
    if "psnr_db" in pictures[0]:
        noise = [one["psnr_db"] for one in pictures]
        row |= {
            "psnr_db": round(statistics.mean(noise), 2),
            "psnr_min_db": min(noise),
            "under_40_db": sum(one < GOOD_DB for one in noise),
            "ssim": round(statistics.mean(one["ssim"] for one in pictures), 5),
            "latent_error": float(
                f"{statistics.mean(one['latent_error'] for one in pictures):.3g}"
            ),
        }
    row["ideal"] = round(statistics.harmonic_mean(one["ideal"] for one in pictures), 3)
    if "kinds" in pictures[0]:
        row |= {
            name: round(statistics.mean(one["kinds"].count(letter) for one in pictures), 2)
            for name, letter in (("exact", "E"), ("pipelined", "p"), ("forecast", "F"))
        }
        row["first"] = pictures[0]["kinds"]
    row["accuracy"] = round(statistics.mean(one["accuracy"] for one in pictures), 2)
    return row

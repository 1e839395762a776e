"""Speed against fidelity on the demo models: modes adaptive and paper, and ComfyUI's step caches.

    python dev.py bench frontier [--json] [--model WORD] [--pairs 48] [--others 16]
                                 [--sampler NAME] [--cfg 5] [--steps 20] [--keep FOLDER]

Kinds of steps, images and the ideal ratio (by counting forwards) are those of two devices. They are
computed in one process (benchmarks/together.py), so a busy machine does not matter; wall clock is
`bench hybrid`'s. The caches, and mode adaptive beside them, have one device. Rules were chosen on
pictures 0 to 15, so the ones from 16 on judge them. With --keep a run that was ended goes on.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.two_cores import command_line, one_core  # isort: skip

import torch
from skimage.metrics import structural_similarity

from benchmarks.caches import NODES, THRESHOLDS, cached
from benchmarks.report import Row, progress, publish
from benchmarks.together import SCHEDULER, Network, Setting, together
from demo import classifier, pictures
from demo.evaluate import prompt
from hybrid_core.comfy_bridge import demo_models
from hybrid_core.config import Tuning
from hybrid_core.telling.report import Report, kinds

STEPS, CFGS = (20, 30, 50), (5.0, 7.5)
SAMPLERS = (
    "euler", "dpmpp_2m", "heun", "dpm_2", "ddim", "res_multistep", "uni_pc", "euler_ancestral",
    "dpmpp_2m_sde",
)  # fmt: skip
PICTURES, FIRST = 64, 16
LENGTHS = (5, 20)  # k of mode paper, as published for 50 steps
TOLERANCES = (0.006, 0.01, 0.011, 0.012, 0.014, 0.02, 0.03)  # of euler at cfg 5
ONE_DEVICE_TOLERANCES = (0.01, 0.02, 0.05, 0.1, 0.2)
FEW_TOLERANCES = (0.01, 0.011, 0.012, 0.02)
MOST_DB = 99.0  # of images that are equal


Picture = tuple[int, tuple[str, str]]  # seed, prompt and negative prompt
Seen = tuple[list[torch.Tensor], Row]  # final latents, and how fast


class Arm(NamedTuple):
    name: str
    settings: Row
    take: Callable[[Setting, list[Picture]], Seen]


def of_mode(mode: str, settings: Row, tuning: Tuning, devices: int = 2) -> Arm:
    def take(setting: Setting, taken: list[Picture]) -> Seen:
        runs = [lambda one=one: setting.shortened(*one, mode, tuning) for one in taken]
        found = together(setting.network, runs)
        return [latent for latent, _ in found], speed([report for _, report in found], devices)

    return Arm(mode, settings, take)


def of_cache(node: str, threshold: float) -> Arm:
    def take(setting: Setting, taken: list[Picture]) -> Seen:
        found = [cached(setting, *one, node, threshold) for one in taken]
        ratio = statistics.harmonic_mean(ratio for _, ratio in found)
        return [latent for latent, _ in found], {"ideal": round(ratio, 3)}

    return Arm(node, {"threshold": threshold, "devices": 1}, take)


def adaptive(tolerances: tuple[float, ...]) -> list[Arm]:
    return [of_mode("adaptive", {"tolerance": t}, Tuning(tolerance=t)) for t in tolerances]


FORECAST = frozenset(("forecast",))
PAPER = [of_mode("paper", {"k": k}, Tuning(length=k)) for k in LENGTHS]
ONE_DEVICE = [
    *(
        of_mode("adaptive", {"tolerance": t, "devices": 1}, Tuning(tolerance=t, kinds=FORECAST), 1)
        for t in ONE_DEVICE_TOLERANCES
    ),
    *(of_cache(*one) for one in itertools.product(NODES, THRESHOLDS)),
]


def main() -> None:
    parser = command_line("frontier", __doc__)
    parser.add_argument("--pairs", type=int, default=48, help="for euler at cfg 5")
    parser.add_argument("--others", type=int, default=16, help="for every other row")
    parser.add_argument("--sampler", choices=SAMPLERS, help="only this one")
    parser.add_argument("--cfg", type=float, choices=CFGS, help="only this one")
    parser.add_argument("--steps", type=int, choices=STEPS, help="only this many")
    parser.add_argument("--keep", type=Path, help="for what is measured, row by row")
    arguments = parser.parse_args()
    kept = Kept(arguments.keep)
    samplers = [arguments.sampler] if arguments.sampler else SAMPLERS
    cfgs = [arguments.cfg] if arguments.cfg else CFGS
    steps = [arguments.steps] if arguments.steps else STEPS
    rows: list[Row] = []
    with one_core():
        for kind in demo_models.KINDS:
            if arguments.model not in kind:
                continue
            network = Network(kind)
            for cfg, sampler, count in itertools.product(cfgs, samplers, steps):
                usual = (sampler, cfg) == ("euler", 5.0)
                setting = Setting(network, count, cfg, sampler)
                if usual:
                    arms = adaptive(TOLERANCES) + PAPER
                    rows += measured(setting, arms, arguments.pairs, kept)
                    rows += measured(setting, ONE_DEVICE, arguments.others, kept)
                else:
                    rows += measured(setting, adaptive(FEW_TOLERANCES), arguments.others, kept)
    publish("frontier", rows)


class Kept:
    """Rows and KSampler's latents in a folder, or nowhere."""

    def __init__(self, folder: Path | None):
        self._folder = folder
        self.rows: dict[str, Row] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for file in sorted(folder.glob("*.jsonl")):
                lines = [json.loads(line) for line in file.read_text().splitlines()]
                self.rows |= {line["key"]: line["row"] for line in lines}

    def add(self, key: str, row: Row) -> None:
        self.rows[key] = row
        if self._folder is not None:
            file = self._folder / f"{row['model'].replace(' ', '_')}.jsonl"
            with file.open("a") as out:
                out.write(json.dumps({"key": key, "row": row}) + "\n")

    def latents(self, name: str) -> list[torch.Tensor] | None:
        file = None if self._folder is None else self._folder / f"{name}.pt"
        return torch.load(file) if file is not None and file.exists() else None

    def keep(self, name: str, latents: list[torch.Tensor]) -> None:
        if self._folder is not None:
            torch.save(latents, self._folder / f"{name}.pt")


def measured(setting: Setting, arms: list[Arm], count: int, kept: Kept) -> list[Row]:
    """KSampler's row and one for each arm; those that are not kept yet are measured."""
    network = setting.network
    name = f"{network.kind}_{setting.sampler}_{setting.steps}_{setting.cfg}_{count}"
    common: Row = {
        "model": f"demo {network.kind}", "steps": setting.steps, "cfg": setting.cfg,
        "sampler": setting.sampler, "scheduler": SCHEDULER, "pairs": count,
    }  # fmt: skip
    keys = [f"{name}_{arm.name}_{arm.settings}" for arm in arms]
    if not all(key in kept.rows for key in [name, *keys]):
        judge = classifier.load()
        labels = pictures.random_labels(PICTURES, torch.Generator().manual_seed(11))
        labels = labels[FIRST : FIRST + count]
        taken = [(seed, (prompt(row), "")) for seed, row in enumerate(labels, FIRST)]
        plain = kept.latents(name)
        if plain is None:
            plain = together(network, [lambda p=p: setting.plain(*p) for p in taken])
            kept.keep(name, plain)
        seen = accuracy(judge, plain, labels)
        kept.add(name, {**common, "arm": "ksampler", "ideal": 1.0, "accuracy": seen})
        for key, arm in zip(keys, arms, strict=True):
            if key in kept.rows:
                continue
            latents, fast = arm.take(setting, taken)
            row = {
                **common, "arm": arm.name, **arm.settings, **fidelity(latents, plain), **fast,
                "accuracy": accuracy(judge, latents, labels),
            }  # fmt: skip
            kept.add(key, row)
            progress(" ".join(f"{key}={value}" for key, value in row.items()))
        network.forget()
    return [kept.rows[key] for key in [name, *keys]]


def images(latents: list[torch.Tensor]) -> list[torch.Tensor]:
    return [
        torch.nn.functional.pixel_shuffle(latent, demo_models.PATCH).clamp(-1, 1)
        for latent in latents
    ]


def fidelity(latents: list[torch.Tensor], plain: list[torch.Tensor]) -> Row:
    """Against KSampler's image: PSNR in dB, SSIM, relative error of the latent; means."""
    pairs = list(zip(images(latents), images(plain), strict=True))
    noise = [psnr(a, b) for a, b in pairs]
    alike = [
        structural_similarity(
            a[0].numpy(), b[0].numpy(), channel_axis=0, data_range=2.0, gaussian_weights=True,
            sigma=1.5, use_sample_covariance=False,
        )
        for a, b in pairs
    ]  # fmt: skip
    error = [float((a - b).norm() / b.norm()) for a, b in zip(latents, plain, strict=True)]
    return {
        "psnr_db": round(statistics.mean(noise), 2),
        "psnr_min_db": round(min(noise), 2),
        "under_40_db": sum(one < 40 for one in noise),
        "ssim": round(statistics.mean(map(float, alike)), 5),
        "latent_error": float(f"{statistics.mean(error):.3g}"),
    }


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """In dB, of images in -1..1."""
    error = float((a - b).double().pow(2).mean())
    return MOST_DB if error == 0 else min(MOST_DB, 10 * math.log10(4 / error))


def speed(reports: list[Report], devices: int) -> Row:
    """Step arithmetic, and what the steps were. One device evaluates both branches."""
    counted = [Counter(step.kind for step in report.steps) for report in reports]
    return {
        "ideal": round(
            devices / 2 * statistics.harmonic_mean(report.ideal for report in reports), 3
        ),
        **{
            kind: round(statistics.mean(one[kind] for one in counted), 2)
            for kind in ("exact", "pipelined", "forecast")
        },
        "first": kinds(reports[0].steps),
    }


def accuracy(
    judge: classifier.Classifier, latents: list[torch.Tensor], labels: torch.Tensor
) -> float:
    """Share of the prompt's words that the pictures show, in percent."""
    with torch.no_grad():
        seen = judge.accuracy(torch.cat(images(latents)), labels)
    return round(100 * statistics.mean(seen.values()), 2)


if __name__ == "__main__":
    main()

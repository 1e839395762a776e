"""Speed against fidelity on the demo models: modes adaptive and paper, and ComfyUI's step caches.

    python dev.py bench frontier [--json] [--model WORD] [--pairs 48] [--others 16]
                                 [--sampler NAME] [--cfg 5] [--steps 20] [--keep FOLDER]

Kinds of steps, images and the ideal ratio (by counting forwards) are those of two devices. They
are computed in one process (benchmarks/together.py), so a busy machine does not matter; wall clock
is `bench hybrid`'s. At cfg 1 each device evaluates a half of the one prompt, as when tokens are
divided. The caches, and mode adaptive beside them, have one device. Rules were chosen on pictures 0
to 15, so the ones from 16 on judge them. With --keep a run that was ended goes on, and all that the
folder holds is told.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.two_cores import command_line, one_core  # isort: skip

import torch

from benchmarks.caches import NODES, THRESHOLDS, cached
from benchmarks.fidelity import accuracy, fidelity, mean
from benchmarks.kept import Kept
from benchmarks.report import Row, progress, publish
from benchmarks.together import SCHEDULER, Network, Setting, together
from demo.training import judge
from demo.training.words import caption, random_labels
from hybrid_core.comfy_bridge import demo_models
from hybrid_core.config import Tuning
from hybrid_core.telling.report import kinds

STEPS, CFGS = (20, 30, 50), (5.0, 7.5, 1.0)
SAMPLERS = (
    "euler", "dpmpp_2m", "heun", "dpm_2", "ddim", "res_multistep", "uni_pc", "euler_ancestral",
    "dpmpp_2m_sde",
)  # fmt: skip
PICTURES, FIRST = 64, 16
AT_ONCE = 8  # pictures that go on side by side
LENGTHS = (5, 20)  # k of mode paper, as published for 50 steps
TOLERANCES = (0.0125, 0.02, 0.03, 0.05)  # of euler at cfg 5
FEW_TOLERANCES = (0.0125, 0.03)
ONE_DEVICE_TOLERANCES = (0.0125, 0.03, 0.05, 0.1, 0.2)


Picture = tuple[int, tuple[str, str]]  # seed, prompt and negative prompt
Seen = tuple[torch.Tensor, Row]  # final latent, and how fast


class Arm(NamedTuple):
    name: str
    settings: Row
    take: Callable[[Setting, list[Picture]], list[Seen]]


def of_mode(mode: str, settings: Row, tuning: Tuning, devices: int = 2) -> Arm:
    def take(setting: Setting, taken: list[Picture]) -> list[Seen]:
        runs = [lambda one=one: setting.shortened(*one, mode, tuning) for one in taken]
        return [
            (latent, {"ideal": devices / 2 * report.ideal, "kinds": kinds(report.steps)})
            for latent, report in together(setting.network, runs)
        ]

    return Arm(mode, settings, take)


def of_cache(node: str, threshold: float) -> Arm:
    def take(setting: Setting, taken: list[Picture]) -> list[Seen]:
        found = (cached(setting, *one, node, threshold) for one in taken)
        return [(latent, {"ideal": ratio}) for latent, ratio in found]

    return Arm(node, {"threshold": threshold, "devices": 1}, take)


def adaptive(tolerances: tuple[float, ...], **tuning: Any) -> list[Arm]:
    return [
        of_mode("adaptive", {"tolerance": t}, Tuning(tolerance=t, **tuning)) for t in tolerances
    ]


FORECAST = frozenset(("forecast",))
DIVIDED = adaptive(FEW_TOLERANCES, kinds=FORECAST)
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
    parser.add_argument("--keep", type=Path, help="for what is measured, picture by picture")
    arguments = parser.parse_args()
    kept = Kept(arguments.keep)
    samplers = [arguments.sampler] if arguments.sampler else SAMPLERS
    cfgs = [arguments.cfg] if arguments.cfg else CFGS
    steps = [arguments.steps] if arguments.steps else STEPS
    with one_core():
        for kind in demo_models.KINDS:
            if arguments.model not in kind:
                continue
            network = Network(kind)
            for cfg, sampler, count in itertools.product(cfgs, samplers, steps):
                setting = Setting(network, count, cfg, sampler)
                if (sampler, cfg) == ("euler", 5.0):
                    measure(setting, adaptive(TOLERANCES) + PAPER, arguments.pairs, kept)
                    measure(setting, ONE_DEVICE, arguments.others, kept)
                else:
                    arms = DIVIDED if cfg == 1.0 else adaptive(FEW_TOLERANCES)
                    measure(setting, arms, arguments.others, kept)
    rows = [settings | mean(found) for settings, found in kept.everything()]
    publish("frontier", sorted(rows, key=place))


def place(row: Row) -> tuple[str, float, int, int]:
    """Where the row stands in the table."""
    return row["model"], row["cfg"], SAMPLERS.index(row["sampler"]), row["steps"]


def measure(setting: Setting, arms: list[Arm], count: int, kept: Kept) -> None:
    """`count` pictures of KSampler's and of each arm, if they are not kept yet."""
    judged = judge.load()
    labels = random_labels(PICTURES, torch.Generator().manual_seed(11))
    common: Row = {
        "model": f"demo {setting.network.kind}", "steps": setting.steps, "cfg": setting.cfg,
        "sampler": setting.sampler, "scheduler": SCHEDULER,
    }  # fmt: skip
    settings = [common | {"arm": arm.name} | arm.settings for arm in arms]
    exact = common | {"arm": "ksampler"}
    numbers = list(range(FIRST, FIRST + count))
    for start in range(0, count, AT_ONCE):
        wanted = numbers[start : start + AT_ONCE]
        if all(kept.has(one, wanted) for one in [exact, *settings]):
            continue
        taken = [(number, (caption(labels[number]), "")) for number in wanted]
        plain = together(setting.network, [lambda one=one: setting.plain(*one) for one in taken])
        for number, latent in zip(wanted, plain, strict=True):
            seen = {"ideal": 1.0, "accuracy": accuracy(judged, latent, labels[number])}
            kept.add(exact, number, seen)
        for arm, one in zip(arms, settings, strict=True):
            if kept.has(one, wanted):
                continue
            found = arm.take(setting, taken)
            for number, (latent, fast), true in zip(wanted, found, plain, strict=True):
                seen = accuracy(judged, latent, labels[number])
                kept.add(one, number, {**fidelity(latent, true), **fast, "accuracy": seen})
        setting.network.forget()
        progress(f"{common} pictures {wanted[0]} to {wanted[-1]}")


if __name__ == "__main__":
    main()

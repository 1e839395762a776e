"""Fidelity of mode adaptive where a picture is changed a little: detailers, upscalers.

    python dev.py bench low-denoise [--json] [--model WORD] [--pictures 16] [--sampler euler]

Pictures of KSampler's are denoised again towards another prompt, by KSampler and by mode adaptive
at its default tolerance. As in `bench frontier`, in one process, with two devices' kinds of steps.
"""

from __future__ import annotations

import itertools

from benchmarks.two_cores import command_line, one_core  # isort: skip

import torch

from benchmarks.fidelity import accuracy, fidelity, mean
from benchmarks.report import Row, progress, publish
from benchmarks.together import Network, Setting, together
from demo.training import judge
from demo.training.words import caption, random_labels
from hybrid_core.comfy_bridge import demo_models
from hybrid_core.config import Tuning
from hybrid_core.telling.report import kinds

DENOISE, STEPS, CFG = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6), (10, 20, 30), 5.0
FIRST_STEPS = 16  # of the pictures that are denoised again
MOST = 64  # pictures


def main() -> None:
    parser = command_line("low-denoise", __doc__)
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--sampler", default="euler")
    arguments = parser.parse_args()
    rows: list[Row] = []
    with one_core():
        for kind in demo_models.KINDS:
            if arguments.model in kind:
                rows += measure(Network(kind), arguments.sampler, arguments.pictures)
    publish("low-denoise", rows)


def measure(network: Network, sampler: str, count: int) -> list[Row]:
    """A row for each number of steps and denoise, over all pictures."""
    judged = judge.load()
    labels = random_labels(MOST, torch.Generator().manual_seed(12))
    words = [(caption(row), "") for row in labels]
    first = Setting(network, FIRST_STEPS, CFG, sampler)
    drawn = together(network, [lambda n=n: first.plain(n, words[n]) for n in range(count)])
    rows: list[Row] = []
    for steps, denoise in itertools.product(STEPS, DENOISE):
        settings = [Setting(network, steps, CFG, sampler, denoise, one) for one in drawn]
        taken = [  # towards the prompt of the picture before
            (setting, 1000 + number, words[number - 1]) for number, setting in enumerate(settings)
        ]
        network.forget()
        plain = together(network, [lambda s=s, n=n, w=w: s.plain(n, w) for s, n, w in taken])
        runs = [lambda s=s, n=n, w=w: s.shortened(n, w, "adaptive", Tuning()) for s, n, w in taken]
        found = [
            {
                **fidelity(latent, true), "ideal": report.ideal, "kinds": kinds(report.steps),
                "accuracy": accuracy(judged, latent, labels[number - 1]),
            }
            for number, ((latent, report), true) in enumerate(
                zip(together(network, runs), plain, strict=True)
            )
        ]  # fmt: skip
        common: Row = {"model": f"demo {network.kind}", "sampler": sampler, "steps": steps}
        rows.append(common | {"denoise": denoise, "tolerance": Tuning.tolerance} | mean(found))
        progress(" ".join(f"{key}={value}" for key, value in rows[-1].items()))
    return rows


if __name__ == "__main__":
    main()

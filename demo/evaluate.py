"""How often the demo models draw what was asked for, through ComfyUI's own sampler.

    python -m demo.evaluate [mmdit|unet]      COMFYUI_DIR must be set

Writes demo/weights/evaluation.json and a sheet of pictures beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, os.environ["COMFYUI_DIR"])
sys.path.append(str(Path(__file__).resolve().parents[1]))

import torch
from comfy.cli_args import args

args.cpu = True

from torchvision.utils import save_image

from demo import classifier, pictures
from demo.networks import WEIGHTS
from hybrid_core.comfy_bridge import demo_models
from hybrid_core.comfy_bridge.demo_words import ATTRIBUTES
from nodes import common_ksampler

SETTINGS = {"steps": 30, "cfg": 5.0, "sampler_name": "euler", "scheduler": "normal"}
BATCH = 16


def evaluate(kind: str, count: int) -> tuple[dict[str, float], torch.Tensor]:
    """Accuracy by attribute over `count` random full prompts; the first pictures."""
    model, judge = demo_models.load_model(kind), classifier.load()
    generator = torch.Generator().manual_seed(7)
    labels = pictures.random_labels(count, generator)
    drawn = []
    for start in range(0, count, BATCH):
        wanted = labels[start : start + BATCH]
        vectors = [demo_models.conditioning(kind, prompt(row))[0] for row in wanted]
        positive = [
            [
                torch.cat([v for v, _ in vectors]),
                {"pooled_output": torch.cat([extra["pooled_output"] for _, extra in vectors])},
            ]
        ]
        latent: dict[str, Any] = {
            "samples": torch.zeros(len(wanted), 4, 8, 8),
            "downscale_ratio_spacial": 8,
        }
        with torch.inference_mode():
            (out,) = common_ksampler(
                model,
                seed=start,
                positive=positive,
                negative=demo_models.conditioning(kind, ""),
                latent=latent,
                **SETTINGS,
            )
        drawn.append(torch.nn.functional.pixel_shuffle(out["samples"], demo_models.PATCH))
    images = torch.cat(drawn).clamp(-1, 1).clone()
    return judge.accuracy(images, labels), images


def prompt(row: torch.Tensor) -> str:
    return " ".join(words[int(i)] for i, words in zip(row, ATTRIBUTES.values(), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", default=list(demo_models.KINDS))
    parser.add_argument("--count", type=int, default=256)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    path = WEIGHTS / "evaluation.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    for kind in arguments.kinds:
        accuracy, images = evaluate(kind, arguments.count)
        results[kind] = {"pictures": arguments.count, **SETTINGS, "accuracy": accuracy}
        path.write_text(json.dumps(results, indent=1) + "\n")
        save_image(images[:32] * 0.5 + 0.5, WEIGHTS / f"{kind}.png", nrow=8)
        print(kind, accuracy)  # noqa: T201  a command-line tool


if __name__ == "__main__":
    main()

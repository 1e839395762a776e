"""A small network that names what a 64x64 picture shows: the judge of the demo models."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from demo import pictures
from hybrid_core.comfy_bridge.demo_words import ATTRIBUTES

PATH = Path(__file__).parent / "weights" / "classifier.safetensors"
log = logging.getLogger("demo.classifier")


class Classifier(nn.Module):
    """Pictures (B, 3, 64, 64) in -1..1 to one row of scores for each attribute."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 24, 48, 64, 64)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.GroupNorm(8, b), nn.SiLU())
                for a, b in zip(widths, widths[1:], strict=False)
            )
        )
        self.heads = nn.ModuleList(
            nn.Linear(widths[-1] * 16, len(words)) for words in ATTRIBUTES.values()
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        features = self.blocks(x).flatten(1)
        return [head(features) for head in self.heads]

    @torch.no_grad()
    def accuracy(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
        """Share of pictures that show what `labels`, (B, 6), asked for, by attribute."""
        right = {}
        for (name, _), scores, asked in zip(
            ATTRIBUTES.items(), self(x), labels.unbind(1), strict=True
        ):
            right[name] = float((scores.argmax(1) == asked).float().mean())
        return right


def load() -> Classifier:
    made = Classifier()
    made.load_state_dict({key: value.float() for key, value in load_file(PATH).items()})
    return made.eval()


def train(steps: int, seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    made = Classifier()
    optimizer = torch.optim.AdamW(made.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for step in range(steps):
        labels = pictures.random_labels(64, generator)
        x = pictures.draw(labels, generator)
        x = x + torch.randn(x.shape, generator=generator) * 0.05  # generated pictures are not clean
        losses = [
            F.cross_entropy(scores, asked)
            for scores, asked in zip(made(x), labels.unbind(1), strict=True)
        ]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
        schedule.step()
        if step % 200 == 0:
            log.info("step %d loss %.3f", step, sum(loss.item() for loss in losses))
    return made.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1500)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    made = train(arguments.steps)
    state = {key: value.half().contiguous() for key, value in made.state_dict().items()}
    save_file(state, PATH)
    generator = torch.Generator().manual_seed(1)
    labels = pictures.random_labels(1024, generator)
    log.info("on drawn pictures: %s", load().accuracy(pictures.draw(labels, generator), labels))


if __name__ == "__main__":
    main()

"""A small network that names what a picture shows, and what it says about a model's pictures."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.utils import save_image

from demo import networks
from demo.networks import Conditional
from demo.training import emoji, objectives, words
from demo.training.pictures import Album
from hybrid_core.comfy_bridge.demo_latents import Latents
from hybrid_core.comfy_bridge.demo_words import ATTRIBUTES

log = logging.getLogger("demo.training")
STEPS, BATCH, PEAK = 2500, 48, 2e-3
BLUR = 0.08  # noise on the judge's own pictures: generated ones are not clean
STEPS_DRAWN, CFG = 25, 3.0
GROUPS = sorted(set(words.GROUP.values()))
GROUP_OF = torch.tensor([GROUPS.index(words.GROUP[name]) for name in words.EMOJI])


class Judge(nn.Module):
    """Pictures (B, 3, 64, 64) in -1..1 to one row of scores for each attribute."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 96, 128)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.GroupNorm(8, b), nn.SiLU())
                for a, b in zip(widths, widths[1:], strict=False)
            )
        )
        self.heads = nn.ModuleList(nn.Linear(widths[-1] * 16, count) for count in words.COUNTS)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        features = self.blocks(x).flatten(1)
        return [head(features) for head in self.heads]

    @torch.no_grad()
    def shares(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
        """Share of pictures that show what `labels`, (B, 4), ask for: each attribute, the group."""
        named = [scores.argmax(1) for scores in self(x)]
        right = {
            name: float((seen == asked).float().mean())
            for name, seen, asked in zip(ATTRIBUTES, named, labels.unbind(1), strict=True)
        }
        group = GROUP_OF[named[0]] == GROUP_OF[labels[:, 0]]
        return {**right, "group": float(group.float().mean())}


def train(album: Album, steps: int, seed: int = 0) -> Judge:
    """A judge that has seen `steps` batches, the held-out pairs of words among them."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    judge = Judge()
    optimizer = torch.optim.AdamW(judge.parameters(), lr=PEAK)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK, total_steps=steps)
    for step in range(steps):
        seen = words.random_labels(BATCH * 3 // 4, generator)
        unseen = words.random_labels(BATCH - len(seen), generator, tinted=1.0, unseen=True)
        labels = torch.cat([seen, unseen])
        x = album.draw(labels, generator)
        x = x + torch.randn(x.shape, generator=generator) * BLUR
        loss = torch.stack(
            [F.cross_entropy(s, asked) for s, asked in zip(judge(x), labels.unbind(1), strict=True)]
        ).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % 250 == 0:
            log.info("judge: step %d loss %.3f", step + 1, loss.item())
    return judge.eval()


def load(path: Path = networks.WEIGHTS / "judge.safetensors") -> Judge:
    """The judge of a file, by default the one that comes with the pack."""
    judge = Judge()
    judge.load_state_dict({key: value.float() for key, value in load_file(path).items()})
    return judge.eval()


def ready(folder: Path) -> Judge:
    """The judge in `folder`, trained first where it is missing."""
    path = folder / "judge.safetensors"
    if path.is_file():
        return load(path)
    judge = train(Album(emoji.load(emoji.fetch(folder))), STEPS)
    save_file({key: value.half() for key, value in judge.state_dict().items()}, path)
    return judge


def pictures(network: Conditional, latents: Latents, labels: torch.Tensor) -> torch.Tensor:
    """What `network` draws for word indices, (B, 4): pixels in -1..1, (B, 3, 64, 64)."""
    drawn = [
        latents.decode(objectives.sample(network, some, seed, STEPS_DRAWN, CFG))
        for seed, some in enumerate(labels.split(16))
    ]
    return torch.cat(drawn).clamp(-1, 1)


def evaluate(kind: str, folder: Path, count: int) -> dict[str, dict[str, float]]:
    """Shares of right pictures: drawn ones for comparison, the model's, and of unseen pairs.

    Adds them to evaluation.json and writes the first 64 pictures, eight a row.
    """
    judge, album = ready(folder), Album(emoji.load(emoji.fetch(folder)))
    path = folder / f"{kind}.safetensors"
    network, latents = networks.load(path), networks.latents(path)
    generator = torch.Generator().manual_seed(7)
    seen = words.random_labels(count, generator)
    unseen = words.random_labels(count, generator, tinted=1.0, unseen=True)
    made = pictures(network, latents, seen)
    result = {
        "drawn": judge.shares(album.draw(seen, generator), seen),
        "model": judge.shares(made, seen),
        "unseen": judge.shares(pictures(network, latents, unseen), unseen),
    }
    kept = folder / "evaluation.json"
    every = json.loads(kept.read_text()) if kept.is_file() else {}
    step = int(networks.described(path)["step"])
    every[kind] = {"step": step, "pictures": count, "cfg": CFG, **result}
    kept.write_text(json.dumps(every, indent=1) + "\n")
    save_image(made[:64] * 0.5 + 0.5, folder / f"{kind}-8x8.png", nrow=8)
    for label in seen[:64]:
        log.info("%s", words.caption(label))
    return result

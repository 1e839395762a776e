"""Train an emoji model, resumable at any step: see README.md in this folder.

Everything random in a step comes from the seed and the step's number, so a run that was cut and
went on is the same run.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.utils import save_image

from demo.networks import Conditional, save
from demo.training import emoji, objectives, words
from demo.training.pictures import Album
from hybrid_core.comfy_bridge.demo_latents import Latents
from hybrid_core.comfy_bridge.demo_words import ATTRIBUTES

log = logging.getLogger("demo.training")
# batch, peak learning rate, steps of the whole schedule
SETTINGS = {"mmdit": (32, 6e-4, 12_000), "unet": (24, 6e-4, 9_600)}
VOCABULARY_RATE = 4.0  # times the rate of the network: a word is seen in few of the pictures
WHOLE_PROMPT_DROPPED, WORD_DROPPED = 0.1, 0.03
EMA_DECAY = 0.9995
WARM_UP, COOL_DOWN = 200, 0.45  # steps; share of the schedule in which the rate falls
SAVE_SECONDS, SHEET_STEPS = 180.0, 1000


def rate(step: int, steps: int, peak: float) -> float:
    """Learning rate: linear rise, plateau, linear fall to 2 % of the peak in `steps`."""
    fall = min(1.0, max(0.02, (1 - step / steps) / COOL_DOWN))
    return peak * min(1.0, (step + 1) / WARM_UP) * fall


class Training:
    """A network, its average and its optimizer at some step."""

    def __init__(
        self, kind: str, album: Album, latents: Latents, network: Conditional, seed: int = 0
    ) -> None:
        self.kind, self.album, self.latents, self.network = kind, album, latents, network
        self.seed, self.step, self.loss = seed, 0, 0.0
        self.average = copy.deepcopy(network).requires_grad_(False).eval()
        self.batch, self.peak, self.steps = SETTINGS[kind]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": list(network.model.parameters()), "scale": 1.0},
                {"params": list(network.vocabulary.parameters()), "scale": VOCABULARY_RATE},
            ],
            betas=(0.9, 0.99),
            weight_decay=1e-3,
            fused=True,  # a third of the time of the usual way, on CPU
        )

    def advance(self) -> None:
        """One step of the optimizer."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
        labels = words.random_labels(self.batch, generator)
        x = self.latents.encode(self.album.draw(labels, generator))
        tokens = words.tokens(words.drop(labels, WHOLE_PROMPT_DROPPED, WORD_DROPPED, generator))
        x, t, target, weight = objectives.draw(self.kind, x, generator)
        error = (self.network(x, t, tokens) - target).pow(2) * self.latents.weights()
        loss = (error.mean((1, 2, 3)) * weight).mean()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = group["scale"] * rate(self.step, self.steps, self.peak)
        self.optimizer.step()
        decay = min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        ours, theirs = list(self.average.parameters()), list(self.network.parameters())
        torch._foreach_lerp_(ours, theirs, 1 - decay)
        now = loss.item()
        self.loss = now if self.step == 0 else 0.99 * self.loss + 0.01 * now
        self.step += 1

    def state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "seed": self.seed,
            "loss": self.loss,
            "scales": self.latents.scales,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.step, self.seed, self.loss = state["step"], state["seed"], state["loss"]
        self.latents = Latents(state["scales"])
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])


def quietened(network: Conditional) -> Conditional:
    """Fresh weights under which every block passes its input on, and the output is zero.

    "adaLN-zero" (Peebles & Xie 2023, section 3.2) and its like for the U-Net (Ho et al. 2020).
    """
    last = ("proj_out", "norm1.linear", "norm1_context.linear", "norm_out.linear")
    if network.kind == "unet":
        last = ("conv_out", "conv2", "proj_out")
    for name, module in network.model.named_modules():
        if name.endswith(last):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return network


def begin(kind: str, folder: Path, seed: int = 0) -> Training:
    """The training in `folder` where it was left, or a new one."""
    album = Album(emoji.load(emoji.fetch(folder)))
    torch.manual_seed(seed)
    network = quietened(Conditional(kind))
    path = folder / f"{kind}.pt"
    generator = torch.Generator().manual_seed(seed)
    some = album.draw(words.random_labels(1024, generator), generator)
    training = Training(kind, album, Latents.fitted(some), network, seed)
    if path.is_file():
        training.restore(torch.load(path, weights_only=True))
    return training


def keep(training: Training, folder: Path) -> None:
    """Write all that a later day needs, and the averaged weights in half precision."""
    path = folder / f"{training.kind}.pt"
    torch.save(training.state(), path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)
    scales = json.dumps(training.latents.scales.tolist())
    named = json.dumps(ATTRIBUTES)
    weights = path.with_suffix(".safetensors")
    save(training.average, weights, scales=scales, words=named, step=str(training.step))


def sheet(training: Training, path: Path) -> None:
    """32 pictures for fixed prompts and noise, eight a row."""
    labels = words.random_labels(32, torch.Generator().manual_seed(1), tinted=0.25)
    pictures = training.latents.decode(objectives.sample(training.average, labels, seed=1))
    save_image(pictures.clamp(-1, 1) * 0.5 + 0.5, path, nrow=8)


def train(kind: str, folder: Path, minutes: float, asked_to_stop: Callable[[], bool]) -> None:
    """Go on for `minutes`, to the end of the schedule or until asked; what is reached is kept."""
    training = begin(kind, folder)
    parameters = sum(p.numel() for p in training.network.parameters()) / 1e6
    log.info("%s: %.2f M parameters, from step %d", kind, parameters, training.step)
    start = kept = time.monotonic()
    first, cpu = training.step, time.process_time()
    end = start + minutes * 60
    while training.step < training.steps and time.monotonic() < end and not asked_to_stop():
        training.advance()
        if training.step % 100 == 0:
            done = training.step - first
            log.info(
                "step %d loss %.4f, %.2f s a step, %.2f s of processor",
                training.step,
                training.loss,
                (time.monotonic() - start) / done,
                (time.process_time() - cpu) / done,
            )
        if training.step % SHEET_STEPS == 0:
            sheet(training, folder / f"{kind}-{training.step}.png")
        if time.monotonic() - kept > SAVE_SECONDS:
            keep(training, folder)
            kept = time.monotonic()
    keep(training, folder)
    log.info("kept at step %d, loss %.4f", training.step, training.loss)

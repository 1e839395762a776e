"""Random prompts, and what their images must be."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from demo.server import Server

LORAS = {  # a few weights of each demo model: outputs, inputs
    "mmdit": {f"joint_blocks.{i}.x_block.attn.proj": (256, 256) for i in range(4)},
    "unet": {
        f"middle_block.1.transformer_blocks.0.attn1.{name}": (128, 128)
        for name in ("to_q", "to_k", "to_v")
    },
}
SAMPLERS = (
    "euler", "euler", "dpmpp_2m", "heun", "euler_ancestral", "dpmpp_2s_ancestral", "lcm", "ddim",
)  # fmt: skip
SCHEDULERS = ("normal", "simple", "sgm_uniform")
IMAGES = 24
MODES = ("exact", "exact", "adaptive", "paper")
EXACT = 1e-4  # relative
LEAST_PSNR = {"adaptive": 25.0, "paper": 12.0}  # dB; a picture of another seed has 5 to 9
PUBLISHED = ("euler", "ddim")  # in 8 steps of dpmpp_2m mode paper leaves 2 to 9 dB, undisturbed
OPTIONS = {  # Hybrid Options' inputs: a worker that is stopped is given up soon
    "L": 0, "g": 0.0, "k": 5, "tau_cap": 0, "largest_gap": 12, "look_ahead": True,
    "step_timeout": 3.0, "load_timeout": 30.0,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One image, whoever makes it."""

    model: str
    sampler: str
    scheduler: str
    steps: int
    size: int
    batch: int
    cfg: float
    seed: int
    lora: bool
    mode: str

    def graph(self, node: str = "Hybrid_KSampler", number: int = 0) -> dict[str, Any]:
        """The prompt in API format; node: of the sampler.

        number: with another one the sampler runs again, though the image is to be the same.
        """
        model = ["model", 0]
        prompt: dict[str, Any] = {
            "model": {"class_type": "Hybrid_DemoModel", "inputs": {"name": self.model}},
            "empty": {
                "class_type": "EmptyLatentImage",
                "inputs": {"width": self.size, "height": self.size, "batch_size": self.batch},
            },
        }
        for name, text in (("positive", "red heart"), ("negative", "")):
            prompt[name] = {
                "class_type": "Hybrid_DemoPrompt",
                "inputs": {"model": ["model", 0], "text": text},
            }
        if self.lora:
            prompt["lora"] = {
                "class_type": "LoraLoaderModelOnly",
                "inputs": {
                    "model": model, "lora_name": f"{self.model}.safetensors", "strength_model": 1.0,
                },
            }  # fmt: skip
            model = ["lora", 0]
        prompt["sampler"] = {
            "class_type": node,
            "inputs": {
                "model": model, "positive": ["positive", 0], "negative": ["negative", 0],
                "latent_image": ["empty", 0], "steps": self.steps, "cfg": self.cfg,
                "seed": self.seed, "sampler_name": self.sampler, "scheduler": self.scheduler,
                "denoise": 1.0,
            },
        }  # fmt: skip
        if node != "KSampler":
            prompt["options"] = {"class_type": "Hybrid_Options", "inputs": OPTIONS}
            prompt["sampler"]["inputs"] |= {
                "mode": self.mode, "tolerance": 0.01 - number * 1e-9, "options": ["options", 0],
            }  # fmt: skip
        prompt["save"] = {
            "class_type": "SaveLatent",
            "inputs": {"samples": ["sampler", 0], "filename_prefix": "latents/soak"},
        }
        return prompt


def images(chance: random.Random) -> list[Case]:
    """Some of all that there could be: KSampler makes each once, the soak many times."""
    found = []
    for _ in range(IMAGES):
        size, batch = chance.choice(((64, 1), (64, 1), (64, 1), (64, 1), (64, 2), (96, 1)))
        case = Case(
            model=chance.choice(("mmdit", "mmdit", "unet")),
            sampler=chance.choice(SAMPLERS),
            scheduler=chance.choice(SCHEDULERS),
            steps=chance.choice((8, 12, 12, 20)),
            size=size,
            batch=batch,
            cfg=chance.choice((5.0, 5.0, 5.0, 5.0, 1.0)),
            seed=chance.randrange(1000),
            lora=chance.random() < 0.25,
            mode="",
        )
        found.append(case)
    return found


def drawn(chance: random.Random, known: list[Case]) -> Case:
    """One of the images, in some mode."""
    return replace(chance.choice(known), mode=chance.choice(MODES))


def write_loras(folder: Path) -> None:
    """LoRA files for both demo models, into a server's folder."""
    target = folder / "models" / "loras"
    target.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(1)
    for model, shapes in LORAS.items():
        state = {}
        for name, (outputs, inputs) in shapes.items():
            for part, shape in (("up", (outputs, 4)), ("down", (4, inputs))):
                weight = torch.randn(shape, generator=generator) * 0.1
                state[f"diffusion_model.{name}.lora_{part}.weight"] = weight
        save_file(state, target / f"{model}.safetensors")


class References:
    """KSampler's own images, each made once by the same server."""

    def __init__(self, server: Server):
        self._server, self._known = server, {}

    def __len__(self) -> int:
        return len(self._known)

    def of(self, case: Case) -> torch.Tensor:
        key = replace(case, mode="")
        if key not in self._known:
            self._known[key] = latents(self._server, self._server.run(case.graph("KSampler")))
        return self._known[key]


def latents(server: Server, entry: dict[str, Any]) -> torch.Tensor:
    """Of a finished prompt; its file is removed."""
    (saved,) = entry["outputs"]["save"]["latents"]
    path = server.folder / "output" / saved["subfolder"] / saved["filename"]
    tensor = load_file(path)["latent_tensor"].clone()
    path.unlink()
    return tensor


def fault(case: Case, seen: torch.Tensor, expected: torch.Tensor) -> str | None:
    """What is wrong with the image, None when nothing is."""
    if seen.shape != expected.shape or not bool(torch.isfinite(seen).all()):
        return f"shape {list(seen.shape)}, finite {bool(torch.isfinite(seen).all())}"
    if case.mode == "exact":
        error = float((seen - expected).norm() / expected.norm())
        return None if error <= EXACT else f"differs from KSampler's by {error:.1e}"
    if case.mode == "paper" and case.sampler not in PUBLISHED:
        return None
    mean_square = float((seen - expected).square().mean())
    decibels = 10 * math.log10(4 / mean_square) if mean_square else math.inf
    return None if decibels >= LEAST_PSNR[case.mode] else f"{decibels:.1f} dB from KSampler's"

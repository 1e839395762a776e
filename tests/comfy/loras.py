"""Random LoRAs for any network."""

from __future__ import annotations

import comfy.sd
import torch


def lora(model, scale=0.05, seed=0, rank=4):
    """A LoRA file's contents for every attention and feed-forward weight of the network."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, weight in model.model.diffusion_model.state_dict().items():
        if weight.ndim == 2 and name.endswith(".weight") and min(weight.shape) >= rank:
            key = "diffusion_model." + name.removesuffix(".weight")
            up = torch.randn(weight.shape[0], rank, generator=generator) * scale
            state[f"{key}.lora_up.weight"] = up
            state[f"{key}.lora_down.weight"] = (
                torch.randn(rank, weight.shape[1], generator=generator) * scale
            )
    return state


def with_lora(model, **how):
    (patched, _) = comfy.sd.load_lora_for_models(model, None, lora(model, **how), 1.0, 0.0)
    assert patched.patches
    return patched

"""A network's weights without and with their patches, wherever the patcher keeps them.

ComfyUI's plain patcher holds weights in the model's dtype, on the device, with patches in place or
put in at use. The dynamic one (dynamic VRAM) leaves the file's own tensors in the model, mapped
from disk, and casts and patches at use. Nothing here changes what either of them holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import comfy.float
import comfy.lora
import comfy.model_management
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from torch import nn

PREFIX = "diffusion_model."


class Weight(NamedTuple):
    """One weight or buffer of a network."""

    name: str
    held: torch.Tensor  # by the model
    base: torch.Tensor  # without patches, as the file has it
    dtype: torch.dtype  # the model's
    in_place: bool  # held is cast and has its patches

    def plain(self) -> torch.Tensor:
        """Without patches, in the model's dtype."""
        if self.base.is_meta:  # ComfyUI takes a weight that its file lacks for zero
            return torch.zeros(self.base.shape, dtype=self.dtype)
        return self.base if self.base.dtype == self.dtype else self.base.to(self.dtype)

    def patched(self, patcher: ModelPatcher) -> torch.Tensor | None:
        """With its patches, None when it has none."""
        if PREFIX + self.name not in patcher.patches:
            return None
        if self.in_place:
            if getattr(patcher.model, "current_weight_patches_uuid", None) == patcher.patches_uuid:
                return self.held
            return self._patched_anew(patcher)
        return patcher.patch_weight_to_device(PREFIX + self.name, return_weight=True)

    def _patched_anew(self, patcher: ModelPatcher) -> torch.Tensor:
        """While another clone's patches are in the weight: what ComfyUI makes of this one's."""
        key = PREFIX + self.name
        computed = self.base.to(comfy.model_management.lora_compute_dtype(None), copy=True)
        computed = comfy.lora.calculate_weight(patcher.patches[key], computed, key)
        seed = comfy.utils.string_to_seed(key)
        return comfy.float.stochastic_rounding(computed, self.base.dtype, seed=seed)


def weights(patcher: ModelPatcher) -> Iterator[Weight]:
    """Every weight of the patcher's network."""
    network = patcher.model.diffusion_model
    modules = dict(network.named_modules())
    for name, held in network.state_dict().items():
        key = PREFIX + name
        if key in patcher.hook_backup:  # a hook's patches are in the weight, for this evaluation
            held = patcher.hook_backup[key][0]
        base = held
        if key in patcher.backup:
            base = patcher.backup[key].weight
        elif key in patcher.backup_buffers:
            base = patcher.backup_buffers[key]
        dtype = _model_dtype(modules, name, base)
        yield Weight(name, held, base, dtype, key in patcher.backup)


def total_bytes(patcher: ModelPatcher) -> int:
    """Memory of the whole network in the model's dtype."""
    return sum(weight.base.numel() * weight.dtype.itemsize for weight in weights(patcher))


def _model_dtype(modules: Mapping[str, nn.Module], name: str, weight: torch.Tensor) -> torch.dtype:
    """What ComfyUI casts this weight to: its own, unless it is as it came from the file."""
    path, _, attribute = name.rpartition(".")
    module = modules.get(path)
    dtype = getattr(module, f"{attribute}_comfy_model_dtype", None)
    plain = type(getattr(module, attribute, None)) in (torch.Tensor, nn.Parameter)
    if plain and dtype is not None and dtype.is_floating_point and weight.is_floating_point():
        return dtype
    return weight.dtype

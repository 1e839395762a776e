"""ControlNets with random weights for SDXL's, SD3's and Flux's shapes, as files of ComfyUI's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import comfy.cldm.cldm
import comfy.cldm.mmdit
import comfy.ldm.flux.controlnet
import comfy.ops
import comfy.utils
import folder_paths
import torch
from comfy_execution.graph import DynamicPrompt

import nodes
from hybrid_core.comfy_bridge.graph_path import Graph

MAKING = {"dtype": torch.float32, "operations": comfy.ops.disable_weight_init}
State = dict[str, torch.Tensor]


def of_unet(config: Mapping[str, Any]) -> State:
    """The encoder again, as SD1.5's and SDXL's have it."""
    left_out = ("out_channels", "transformer_depth_output", "use_temporal_attention")
    own = {k: v for k, v in config.items() if k not in (*left_out, "use_temporal_resblock")}
    return _filled(comfy.cldm.cldm.ControlNet(**own, hint_channels=3, **MAKING).state_dict())


def of_mmdit(config: Mapping[str, Any], blocks: int) -> State:
    """The first blocks again, in the names of SD3's ControlNets."""
    own = {**config, "num_blocks": blocks}
    state = comfy.cldm.mmdit.ControlNet(**own, **MAKING).state_dict()
    theirs: State = {}
    for name, ours in comfy.utils.mmdit_to_diffusers(own).items():
        key, place = (ours, None) if isinstance(ours, str) else ours[:2]
        if key in state:
            theirs[name] = state[key] if place is None else state[key].narrow(*place)
    added = ("controlnet_blocks", "pos_embed_input")
    return _filled(theirs | {k: v for k, v in state.items() if k.startswith(added)})


def of_flux(config: Mapping[str, Any]) -> State:
    """Its first two blocks again, in the names of Flux's files."""
    own = {**config, "depth": 2, "depth_single_blocks": 0}
    state = comfy.ldm.flux.controlnet.ControlNetFlux(**own, **MAKING).state_dict()
    return _filled({k.replace("_norm.weight", "_norm.scale"): v for k, v in state.items()})


def _filled(state: State) -> State:
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(weight.shape, generator=generator) * 0.02
        for name, weight in state.items()
    }


class PlainVAE:
    """A VAE without weights, for ControlNets that take a latent: places of 8 x 8 pixels."""

    def __init__(self, channels: int):
        self.channels = channels

    def spacial_compression_encode(self) -> int:
        return 8

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, H, W, 3) to (B, channels, H / 8, W / 8)."""
        small = torch.nn.functional.avg_pool2d(pixels[..., :3].movedim(-1, 1), 8)
        return small.repeat(1, self.channels // 3 + 1, 1, 1)[:, : self.channels]


def loaded(state: State, folder: Path, pixels: tuple[int, int]) -> tuple[Any, Graph]:
    """A control with a hint (H, W), from a file in `folder`, and the graph that loads it."""
    comfy.utils.save_torch_file(state, str(folder / "net.safetensors"))
    folder_paths.add_model_folder_path("controlnet", str(folder), is_default=True)
    loader = {
        "class_type": "ControlNetLoader",
        "inputs": {"control_net_name": "net.safetensors"},
    }
    graph = Graph(
        DynamicPrompt({"net": loader, "sampler": {"class_type": "", "inputs": {}}}), "sampler"
    )
    (control,) = nodes.ControlNetLoader().load_controlnet("net.safetensors")
    hint = torch.rand(1, 3, *pixels, generator=torch.Generator().manual_seed(2))
    vae = None if control.latent_format is None else PlainVAE(control.latent_format.latent_channels)
    return control.copy().set_cond_hint(hint, 0.9, (0.0, 1.0), vae=vae), graph

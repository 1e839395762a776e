"""Writes ControlNets, GLIGEN and a LoRA with random weights for the demo U-Net to a models folder.

A program of its own, because it needs ComfyUI's modules: the tests run it beside the server.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path[:0] = [os.environ["COMFYUI_DIR"]]
sys.path.append(str(Path(__file__).resolve().parents[2]))

from comfy.cli_args import args  # noqa: E402

args.cpu = True

import comfy.cldm.cldm  # noqa: E402
import comfy.gligen  # noqa: E402
import comfy.ops  # noqa: E402
import torch  # noqa: E402
from comfy.utils import save_torch_file  # noqa: E402

from hybrid_core.comfy_bridge import demo_models  # noqa: E402

SHAPE = {
    "image_size": 32, "in_channels": 48, "model_channels": 128, "channel_mult": [1, 1],
    "num_res_blocks": [1, 1], "transformer_depth": [0, 1], "transformer_depth_middle": 1,
    "use_spatial_transformer": True, "use_linear_in_transformer": False, "context_dim": 64,
    "num_head_channels": 64, "legacy": False, "adm_in_channels": None,
}  # fmt: skip
WITH_TRANSFORMERS = ("input_blocks.3.1", "middle_block.1", "output_blocks.0.1", "output_blocks.1.1")


def filled(state, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(value.shape, generator=generator) * scale for name, value in state.items()
    }


def controlnet(seed):
    net = comfy.cldm.cldm.ControlNet(
        **SHAPE, hint_channels=3, dtype=torch.float32, operations=comfy.ops.disable_weight_init
    )
    return filled(net.state_dict(), 0.05, seed)


def gligen():
    """A layer for each transformer block of the demo U-Net, and what places the boxes."""
    made = [comfy.gligen.GatedSelfAttentionDense(128, 64, 2, 64) for _ in WITH_TRANSFORMERS]
    state = {
        f"{place}.transformer_blocks.0.fuser.{name}": weight
        for place, block in zip(WITH_TRANSFORMERS, made, strict=True)
        for name, weight in block.state_dict().items()
    }
    position = comfy.gligen.PositionNet(64, 64).state_dict()
    return filled(state | {f"position_net.{k}": v for k, v in position.items()}, 0.1, 6)


def lora():
    state = {}
    weights = demo_models.load_model("unet").model.diffusion_model.state_dict()
    for name, weight in weights.items():
        if weight.ndim == 2 and name.endswith(".weight") and min(weight.shape) >= 4:
            key = "diffusion_model." + name.removesuffix(".weight")
            shapes = {"up": (weight.shape[0], 4), "down": (4, weight.shape[1])}
            made = {part: torch.empty(shape) for part, shape in shapes.items()}
            for part, value in filled(made, 0.1, 5).items():
                state[f"{key}.lora_{part}.weight"] = value
    return state


if __name__ == "__main__":
    models = Path(sys.argv[1])
    for name, state in (
        ("controlnet/one", controlnet(1)), ("controlnet/two", controlnet(2)),
        ("gligen/boxes", gligen()), ("loras/some", lora()),
    ):  # fmt: skip
        path = models / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_torch_file(state, str(path))

"""Models of the benchmarks: the demo models, and random weights in the shapes of SD3 and SDXL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import torch
from comfy.samplers import CFGGuider, KSampler, sampler_object

from hybrid_core.comfy_bridge import demo_models

SD3_CONFIG = {
    "in_channels": 16, "patch_size": 2, "depth": 9, "num_blocks": 9, "input_size": None,
    "adm_in_channels": 2048, "pos_embed_max_size": 192, "pos_embed_scaling_factor": None,
    "context_embedder_config": {
        "target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 576}
    },
}  # fmt: skip
SDXL_CONFIG = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 160,
    "channel_mult": [1, 2, 4], "num_res_blocks": [2, 2, 2], "use_spatial_transformer": True,
    "transformer_depth": [0, 0, 1, 1, 2, 2], "transformer_depth_middle": 2,
    "transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2], "context_dim": 2048,
    "num_classes": "sequential", "adm_in_channels": 2816, "use_linear_in_transformer": True,
    "num_head_channels": 64, "num_heads": -1, "legacy": False,
    "use_temporal_attention": False, "use_temporal_resblock": False,
}  # fmt: skip
FLUX_CONFIG = {
    "image_model": "flux", "in_channels": 16, "out_channels": 16, "patch_size": 2,
    "vec_in_dim": 768, "context_in_dim": 1024, "hidden_size": 768, "mlp_ratio": 4.0,
    "num_heads": 6, "depth": 2, "depth_single_blocks": 4, "axes_dim": [16, 56, 56],
    "theta": 10000, "qkv_bias": True, "guidance_embed": True, "txt_ids_dims": [],
}  # fmt: skip
WAN_CONFIG = {
    "image_model": "wan2.1", "model_type": "t2v", "dim": 768, "out_dim": 16, "in_dim": 16,
    "num_heads": 6, "ffn_dim": 3072, "num_layers": 6, "patch_size": (1, 2, 2), "freq_dim": 256,
    "text_dim": 1024, "window_size": (-1, -1), "qk_norm": True, "cross_attn_norm": True,
    "eps": 1e-6,
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """A model, its latents and its conditioning."""

    load: Callable[[], comfy.model_patcher.ModelPatcher]
    latent: tuple[int, ...]  # (B, C, H, W)
    context: tuple[int, int]  # tokens, width
    pooled: int
    steps: int  # of one timed run


def random_model(
    config_class: type,
    config: dict[str, Any],
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> comfy.model_patcher.ModelPatcher:
    """A model of ComfyUI's with random weights, the same at every call on this `device`."""
    made = config_class(dict(config))
    made.set_inference_dtype(dtype, None)
    model = made.get_model({}, "", device=torch.device(device))
    generator = torch.Generator(device).manual_seed(0)

    def drawn(like: torch.Tensor, scale: float) -> torch.Tensor:
        out = torch.empty(like.shape, device=device)  # in fp32: alike, rounded, in every dtype
        return out.normal_(0, scale, generator=generator)

    with torch.no_grad():
        for name, weight in model.diffusion_model.named_parameters():
            if weight.ndim > 1:
                weight.copy_(drawn(weight, 0.6 / weight[0].numel() ** 0.5))
            else:
                weight.fill_(float(name.endswith("weight")))
        for buffer in model.diffusion_model.buffers():
            buffer.copy_(drawn(buffer, 1.0))
    patcher = comfy.model_patcher.CoreModelPatcher(
        model,
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )
    patcher.cached_patcher_init = (random_model, (config_class, config, dtype, device))
    return patcher


SHAPES = {
    "demo mmdit, 4 pictures": Shape(
        lambda: demo_models.load_model("mmdit"), (4, 48, 16, 16), (6, 64), 64, 20
    ),
    "demo unet, 4 pictures": Shape(
        lambda: demo_models.load_model("unet"), (4, 48, 16, 16), (6, 64), 64, 20
    ),
    "SD3 shape, 9 blocks": Shape(
        lambda: random_model(comfy.supported_models.SD3, SD3_CONFIG),
        (1, 16, 32, 32),
        (77, 4096),
        2048,
        6,
    ),
    "SDXL shape, half width": Shape(
        lambda: random_model(comfy.supported_models.SDXL, SDXL_CONFIG),
        (1, 4, 32, 32),
        (77, 2048),
        1280,
        6,
    ),
}
SHAPES["SD3 shape, four times the places"] = replace(
    SHAPES["SD3 shape, 9 blocks"], latent=(1, 16, 64, 64), steps=3
)


def one_branch_shapes() -> dict[str, Shape]:
    """What `bench single` runs at cfg 1: transformers with one picture, and a U-Net's batch."""

    def flux() -> Any:
        return random_model(comfy.supported_models.Flux, FLUX_CONFIG)

    def wan() -> Any:
        return random_model(comfy.supported_models.WAN21_T2V, WAN_CONFIG)

    sd3, sdxl = SHAPES["SD3 shape, 9 blocks"], SHAPES["SDXL shape, half width"]
    return {
        "Flux shape": Shape(flux, (1, 16, 32, 32), (64, 1024), 768, 4),
        "Wan shape, 5 frames": Shape(wan, (1, 16, 5, 16, 16), (64, 1024), 0, 4),
        "SD3 shape, 9 blocks": sd3,
        "SDXL shape, half width, 2 pictures": replace(sdxl, latent=(2, *sdxl.latent[1:])),
        "Flux shape, four times the places": Shape(flux, (1, 16, 64, 64), (64, 1024), 768, 4),
        "SD3 shape, four times the places": SHAPES["SD3 shape, four times the places"],
        "demo mmdit, 4 pictures": SHAPES["demo mmdit, 4 pictures"],
    }


FULL_SD3 = SD3_CONFIG | {
    "depth": 24, "num_blocks": 24,
    "context_embedder_config": {
        "target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 1536}
    },
}  # fmt: skip
FULL_SDXL = SDXL_CONFIG | {
    "model_channels": 320, "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_middle": 10, "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
}  # fmt: skip


def full_shapes() -> dict[str, Shape]:
    """1024x1024 in fp16 on the GPU."""

    def load(config_class: type, config: dict[str, Any]) -> Callable[[], Any]:
        return lambda: random_model(config_class, config, torch.float16, "cuda")

    sdxl = load(comfy.supported_models.SDXL, FULL_SDXL)
    sd3 = load(comfy.supported_models.SD3, FULL_SD3)
    return {
        "SDXL": Shape(sdxl, (1, 4, 128, 128), (77, 2048), 1280, 20),
        "SD3-medium": Shape(sd3, (1, 16, 128, 128), (154, 4096), 2048, 20),
    }


def conditioning(shape: Shape, seed: int) -> list[Any]:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(1, *shape.context, generator=generator)
    return [[vectors, {"pooled_output": torch.randn(1, shape.pooled, generator=generator)}]]


def inputs(
    model: Any, shape: Shape, seed: int, batch: int
) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    """What `model.apply_model` takes for `batch` latents: x, sigma and keywords."""
    device = next(model.diffusion_model.parameters()).device
    ((vectors, extra),) = conditioning(shape, seed)
    x = torch.randn(batch, *shape.latent[1:]).to(device)
    sigma = torch.full((batch,), 0.5, device=device)
    keywords: dict[str, Any] = {"c_crossattn": vectors.repeat(batch, 1, 1).to(device)}
    width = model.adm_channels
    if width:
        pooled = extra["pooled_output"].repeat(batch, 1)
        padded = torch.nn.functional.pad(pooled, (0, width - pooled.shape[1]))
        keywords["y"] = padded.to(device)
    return x, sigma, keywords


def core_split(model: Any, devices: tuple[str, str]) -> Any:
    """`model` with ComfyUI's MultiGPU CFG Split over `devices`, None where it has none."""
    if not hasattr(model, "deepclone_multigpu"):
        return None
    model = model.clone()
    model.load_device = torch.device(devices[0])
    twin = model.deepclone_multigpu(new_load_device=torch.device(devices[1]))
    twin.is_multigpu_base_clone = True
    model.set_additional_models("multigpu", [twin])
    model.match_multigpu_clones()
    return model


def sample(
    model: Any, shape: Shape, steps: int, cfg: float = 5.0, control: Any = None
) -> torch.Tensor:
    """`steps` Euler steps from fixed noise. control: a ControlNet with its hint."""
    guider = CFGGuider(model)
    prompts = conditioning(shape, 1), conditioning(shape, 2)
    if control is not None:
        for ((_, extra),) in prompts:
            extra |= {"control": control, "control_apply_to_uncond": False}
    guider.set_conds(*prompts)
    guider.set_cfg(cfg)
    sigmas = KSampler(model, steps, model.load_device, scheduler="normal").sigmas
    noise = torch.randn(shape.latent, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        return guider.sample(
            noise, torch.zeros(shape.latent), sampler_object("euler"), sigmas,
            disable_pbar=True, seed=4,
        )  # fmt: skip

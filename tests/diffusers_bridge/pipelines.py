"""Pipelines for the tests, each with the arguments of a call: two tiny ones and the demo models."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)

from demo import networks
from hybrid_core.comfy_bridge import demo_words
from hybrid_core.diffusers_bridge.attach import hybrid
from hybrid_core.telling.report import Report

STEPS = 50
POSITIVE = "cat, noto, sky background"
NEGATIVE = "blue, sand"
NOISES = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
ENCODERS = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
UNSEEN = {"height": 128, "width": 128, "num_inference_steps": STEPS, "output_type": "latent"}
WAIT = {"wait_seconds": 120.0}
Call = tuple[Any, dict[str, Any]]


def ddim(**more: Any) -> DDIMScheduler:
    return DDIMScheduler(**NOISES, clip_sample=False, steps_offset=1, **more)


def quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def tiny_unet(**more: Any) -> UNet2DConditionModel:
    """A random U-Net of two levels."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=16,
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        cross_attention_dim=32,
        norm_num_groups=8,
        **more,
    ).eval()


def sdxl(batch: int = 1, scheduler: Any = None) -> Call:
    """StableDiffusionXLPipeline with a tiny U-Net."""
    unet = tiny_unet(
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 16,
    )
    none = dict.fromkeys(("vae", *ENCODERS))
    pipe = StableDiffusionXLPipeline(unet=unet, scheduler=scheduler or ddim(), **none)
    return quiet(pipe), {**UNSEEN, **embeddings(batch), "guidance_scale": 5.0}


def sd3(batch: int = 1) -> Call:
    """StableDiffusion3Pipeline with a random transformer of four blocks."""
    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        num_layers=4,
        attention_head_dim=16,
        num_attention_heads=4,
        joint_attention_dim=32,
        caption_projection_dim=64,
        pooled_projection_dim=16,
        pos_embed_max_size=16,
    ).eval()
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    none = dict.fromkeys(("vae", *ENCODERS, "text_encoder_3", "tokenizer_3"))
    pipe = StableDiffusion3Pipeline(transformer=transformer, scheduler=scheduler, **none)
    return quiet(pipe), {**UNSEEN, **embeddings(batch), "guidance_scale": 7.0}


TINY = {"sdxl": sdxl, "sd3": sd3}


def embeddings(batch: int) -> dict[str, torch.Tensor]:
    """Random prompts and noise, the same each time."""
    generator = torch.Generator().manual_seed(3)

    def noise(*sizes: int) -> torch.Tensor:
        return torch.randn(batch, *sizes, generator=generator)

    return {
        "prompt_embeds": noise(6, 32),
        "negative_prompt_embeds": noise(6, 32),
        "pooled_prompt_embeds": noise(16),
        "negative_pooled_prompt_embeds": noise(16),
        "latents": noise(4, 16, 16),
    }


def demo(kind: str) -> Call:
    """A demo model; the call has no latents yet."""
    loaded = networks.load(networks.WEIGHTS / f"{kind}.safetensors")
    vectors = {
        name: loaded.vocabulary(torch.tensor([demo_words.encode(words)])).detach()
        for name, words in (("prompt_embeds", POSITIVE), ("negative_prompt_embeds", NEGATIVE))
    }
    arguments: dict[str, Any] = {**UNSEEN, **vectors}
    none = dict.fromkeys(("vae", *ENCODERS[:2]))
    if kind == "unet":
        pipe = StableDiffusionPipeline(
            unet=loaded.model,
            scheduler=ddim(set_alpha_to_one=True),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
            **none,
        )
        return quiet(pipe), {**arguments, "guidance_scale": 5.0}
    none.update(dict.fromkeys(("text_encoder_2", "tokenizer_2", "text_encoder_3", "tokenizer_3")))
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    pipe = StableDiffusion3Pipeline(transformer=loaded.model, scheduler=scheduler, **none)
    pooled = {
        name.replace("prompt_embeds", "pooled_prompt_embeds"): value.mean(1)
        for name, value in vectors.items()
    }
    return quiet(pipe), {**arguments, **pooled, "guidance_scale": 7.0}


def short(call: Call, steps: int) -> tuple[Call, torch.Tensor]:
    """The call with fewer steps, and what the pipeline gives by itself."""
    pipe, arguments = call[0], {**call[1], "num_inference_steps": steps}
    return (pipe, arguments), pipe(**arguments).images


def shared(call: Call, mode: str, pool: Any, **more: Any) -> tuple[torch.Tensor, Report]:
    """Latents and report of a call in which the worker takes part from the first step."""
    pipe, arguments = call
    with hybrid(pipe, mode, pool=pool, **{**WAIT, **more}) as reports:
        out = pipe(**arguments).images
    (report,) = reports
    return out, report


def network(pipe: Any) -> Any:
    return getattr(pipe, "unet", None) or pipe.transformer

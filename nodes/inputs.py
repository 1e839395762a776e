"""Inputs and outputs that several nodes have."""

from __future__ import annotations

from typing import Any

import comfy.samplers
from comfy_api.latest import io

from hybrid_core.config import MODES, Tuning

from .options import OPTIONS


def hybrid_inputs() -> list[Any]:
    """What the three nodes have beyond KSampler's inputs."""
    return [
        io.Combo.Input(
            "mode",
            options=list(MODES),
            default=MODES[0],
            optional=True,
            tooltip="adaptive: the second GPU computes the negative prompt at the same "
            "moment, and steps that the steps before foretell are left out; fastest. "
            "exact: every step in full; the image is KSampler's. paper: the "
            "published schedule, to compare. off: one GPU, as KSampler.",
        ),
        io.Float.Input(
            "tolerance",
            default=Tuning.tolerance,
            min=0.0,
            max=1.0,
            step=0.0005,
            round=0.0001,
            optional=True,
            tooltip="For mode adaptive: how much the steps left out between two full ones may "
            "change the image, as estimated. Lower is closer to KSampler's image, higher is "
            "faster, 0 is mode exact.",
        ),
        OPTIONS.Input("options", optional=True, tooltip="From Hybrid Options; rarely needed."),
    ]


def seed_input(name: str) -> Any:
    return io.Int.Input(
        name,
        default=0,
        min=0,
        max=0xFFFFFFFFFFFFFFFF,
        control_after_generate=True,
        tooltip="The random seed of the noise.",
    )


def sampler_outputs() -> list[Any]:
    return [
        io.Latent.Output(tooltip="The denoised latent."),
        io.String.Output(
            "report", tooltip="What each step was and took, as JSON; Hybrid Curve Image draws it."
        ),
    ]


def sampler_inputs() -> list[Any]:
    return [
        io.Int.Input(
            "steps", default=20, min=1, max=10000, tooltip="The number of denoising steps."
        ),
        io.Float.Input(
            "cfg",
            default=8.0,
            min=0.0,
            max=100.0,
            step=0.1,
            round=0.01,
            tooltip="How strongly the prompt guides. At 1 there is no negative prompt to "
            "compute; a batch, or one picture of a transformer (Flux, SD3, Wan), is then "
            "divided between both GPUs.",
        ),
        io.Combo.Input(
            "sampler_name",
            options=comfy.samplers.KSampler.SAMPLERS,
            tooltip="The sampling algorithm.",
        ),
        io.Combo.Input(
            "scheduler",
            options=comfy.samplers.KSampler.SCHEDULERS,
            tooltip="How noise is removed over the steps.",
        ),
        io.Conditioning.Input("positive", tooltip="What the image should show."),
        io.Conditioning.Input("negative", tooltip="What the image should not show."),
        io.Latent.Input("latent_image", tooltip="The latent to denoise."),
    ]

"""The sampler nodes: ComfyUI's own common_ksampler on an attached model."""

from __future__ import annotations

from typing import Any

import comfy.samplers
from comfy_api.latest import io

from hybrid_core.comfy_bridge.attach import attach
from hybrid_core.config import MODES
from nodes import common_ksampler

from .monitor import announcer
from .schema import schema

CATEGORY = "sampling/hybrid"
ALIASES = ["ksampler", "hybrid", "multi gpu", "two gpus", "parallel", "faster"]


def mode_input() -> Any:
    return io.Combo.Input(
        "mode",
        options=list(MODES),
        default=MODES[0],
        optional=True,
        tooltip="exact: the second GPU evaluates the negative prompt at the same time; the image "
        "is KSampler's. off: one device, exactly KSampler.",
    )


def seed_input(name: str) -> Any:
    return io.Int.Input(
        name,
        default=0,
        min=0,
        max=0xFFFFFFFFFFFFFFFF,
        control_after_generate=True,
        tooltip="The random seed of the noise.",
    )


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
            tooltip="How strongly the prompt guides. At 1 there is no negative branch, so the "
            "second GPU has nothing to do.",
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


class HybridKSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="Hybrid_KSampler",
            display_name="Hybrid KSampler",
            category=CATEGORY,
            description="KSampler on two GPUs: the negative prompt is evaluated on the second one "
            "at the same moment. Same inputs, same image.",
            search_aliases=ALIASES,
            inputs=[
                io.Model.Input("model", tooltip="The model that denoises the latent."),
                seed_input("seed"),
                *sampler_inputs(),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How much of the latent is denoised; below 1 keeps its structure.",
                ),
                mode_input(),
            ],
            outputs=[io.Latent.Output(tooltip="The denoised latent.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        positive: Any,
        negative: Any,
        latent_image: Any,
        denoise: float = 1.0,
        mode: str = MODES[0],
    ) -> io.NodeOutput:
        attached = attach(model, mode, announcer(cls.hidden.unique_id))
        (latent,) = common_ksampler(
            attached,
            seed,
            steps,
            cfg,
            sampler_name,
            scheduler,
            positive,
            negative,
            latent_image,
            denoise=denoise,
        )
        return io.NodeOutput(latent)


class HybridKSamplerAdvanced(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="Hybrid_KSamplerAdvanced",
            display_name="Hybrid KSampler (Advanced)",
            category=CATEGORY,
            description="KSampler (Advanced) on two GPUs: the negative prompt is evaluated on the "
            "second one at the same moment. Same inputs, same image.",
            search_aliases=ALIASES,
            inputs=[
                io.Model.Input("model", tooltip="The model that denoises the latent."),
                io.Combo.Input(
                    "add_noise",
                    options=["enable", "disable"],
                    tooltip="Whether noise is added before the first step.",
                ),
                seed_input("noise_seed"),
                *sampler_inputs(),
                io.Int.Input(
                    "start_at_step", default=0, min=0, max=10000, tooltip="The first step to run."
                ),
                io.Int.Input(
                    "end_at_step",
                    default=10000,
                    min=0,
                    max=10000,
                    tooltip="The step to end before.",
                ),
                io.Combo.Input(
                    "return_with_leftover_noise",
                    options=["disable", "enable"],
                    tooltip="enable: keep the noise that is left, for another sampler.",
                ),
                mode_input(),
            ],
            outputs=[io.Latent.Output(tooltip="The denoised latent.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        add_noise: str,
        noise_seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        positive: Any,
        negative: Any,
        latent_image: Any,
        start_at_step: int,
        end_at_step: int,
        return_with_leftover_noise: str,
        mode: str = MODES[0],
    ) -> io.NodeOutput:
        attached = attach(model, mode, announcer(cls.hidden.unique_id))
        (latent,) = common_ksampler(
            attached,
            noise_seed,
            steps,
            cfg,
            sampler_name,
            scheduler,
            positive,
            negative,
            latent_image,
            disable_noise=add_noise == "disable",
            start_step=start_at_step,
            last_step=end_at_step,
            force_full_denoise=return_with_leftover_noise == "disable",
        )
        return io.NodeOutput(latent)


class HybridAttachModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="Hybrid_AttachModel",
            display_name="Hybrid Attach Model",
            category=CATEGORY,
            description="Lets any sampler node use the second GPU: put it between the model and "
            "the guider or sampler, after LoRAs and other model nodes.",
            search_aliases=ALIASES,
            inputs=[
                io.Model.Input("model", tooltip="The model to sample with."),
                mode_input(),
            ],
            outputs=[io.Model.Output(tooltip="The model, for any sampler node.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model: Any, mode: str = MODES[0]) -> io.NodeOutput:
        return io.NodeOutput(attach(model, mode, announcer(cls.hidden.unique_id)))

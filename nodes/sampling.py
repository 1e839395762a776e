"""The sampler nodes: ComfyUI's own common_ksampler on an attached model."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import comfy.samplers
from comfy_api.latest import io

from hybrid_core.comfy_bridge.attach import attach, log_report
from hybrid_core.config import MODES, Settings, Tuning
from hybrid_core.report import Report
from nodes import common_ksampler

from .monitor import announcer
from .schema import schema

CATEGORY = "sampling/hybrid"
OPTIONS = io.Custom("HYBRID_OPTIONS")
ALIASES = ["ksampler", "hybrid", "multi gpu", "two gpus", "parallel", "faster"]


def hybrid_inputs() -> list[Any]:
    """What the three nodes have beyond KSampler's inputs."""
    return [
        io.Combo.Input(
            "mode",
            options=list(MODES),
            default=MODES[0],
            optional=True,
            tooltip="adaptive: the second GPU evaluates the negative prompt at the same time, and "
            "where both prompts agree, half of the network; fastest. paper: Hybridiff's published "
            "schedule. exact: the negative prompt only; the image is KSampler's. off: one device.",
        ),
        io.Float.Input(
            "tolerance",
            default=Tuning.tolerance,
            min=0.0,
            max=1.0,
            step=0.0005,
            round=0.0001,
            optional=True,
            tooltip="Of mode adaptive: how much a shortened step may change the latent. Lower is "
            "closer to KSampler's image, higher is faster, 0 is mode exact.",
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
        io.String.Output("report", tooltip="What each step was and took, as JSON."),
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
            tooltip="How strongly the prompt guides. At 1 there is no negative branch; mode "
            "adaptive then gives the second GPU half of the network.",
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
                *hybrid_inputs(),
            ],
            outputs=sampler_outputs(),
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
        tolerance: float = Tuning.tolerance,
        options: Tuning | None = None,
    ) -> io.NodeOutput:
        reports: list[Report] = []
        attached = attach(
            model,
            mode,
            announcer(cls.hidden.unique_id),
            on_report=reports.append,
            tuning=tuned(options, tolerance),
        )
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
        return io.NodeOutput(latent, told(reports, mode))


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
                *hybrid_inputs(),
            ],
            outputs=sampler_outputs(),
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
        tolerance: float = Tuning.tolerance,
        options: Tuning | None = None,
    ) -> io.NodeOutput:
        reports: list[Report] = []
        attached = attach(
            model,
            mode,
            announcer(cls.hidden.unique_id),
            on_report=reports.append,
            tuning=tuned(options, tolerance),
        )
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
        return io.NodeOutput(latent, told(reports, mode))


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
                *hybrid_inputs(),
            ],
            outputs=[io.Model.Output(tooltip="The model, for any sampler node.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        mode: str = MODES[0],
        tolerance: float = Tuning.tolerance,
        options: Tuning | None = None,
    ) -> io.NodeOutput:
        announce = announcer(cls.hidden.unique_id)
        return io.NodeOutput(attach(model, mode, announce, tuning=tuned(options, tolerance)))


class HybridOptions(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="Hybrid_Options",
            display_name="Hybrid Options",
            category=CATEGORY,
            description="Settings of the Hybrid nodes that are rarely needed. L, g, k and tau_cap "
            "are mode paper's, for 50 steps; they are scaled to the run's.",
            search_aliases=ALIASES,
            inputs=[
                io.Int.Input(
                    "L", default=0, min=0, max=1000,
                    tooltip="Steps over which the discrepancy must be flat. 0: as published.",
                ),
                io.Float.Input(
                    "g", default=0.0, min=0.0, max=1.0, step=0.0001, round=0.00001,
                    tooltip="Largest fall of the discrepancy a step that counts as flat. 0: as "
                    "published.",
                ),
                io.Int.Input(
                    "k", default=5, min=0, max=1000,
                    tooltip="Steps of the Parallelism stage. Published: 5.",
                ),
                io.Int.Input(
                    "tau_cap", default=0, min=0, max=1000,
                    tooltip="Step at which it starts at the latest. 0: as published.",
                ),
                io.Int.Input(
                    "largest_gap", default=Tuning.largest_gap, min=0, max=1000,
                    tooltip="Most shortened steps in a row, mode adaptive.",
                ),
                io.Boolean.Input(
                    "look_ahead", default=Tuning.look_ahead,
                    tooltip="Evaluate the first half of the network at the latent that the next "
                    "step is expected to have, mode adaptive.",
                ),
                io.Float.Input(
                    "step_timeout", default=Settings.step_seconds, min=1.0, max=86400.0,
                    tooltip="Seconds after which the second process counts as hung in a step.",
                ),
                io.Float.Input(
                    "load_timeout", default=Settings.load_seconds, min=1.0, max=86400.0,
                    tooltip="Seconds that the second process may take to load the model.",
                ),
            ],
            outputs=[OPTIONS.Output(tooltip="For the options input of a Hybrid node.")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        L: int,
        g: float,
        k: int,
        tau_cap: int,
        largest_gap: int,
        look_ahead: bool,
        step_timeout: float,
        load_timeout: float,
    ) -> io.NodeOutput:
        return io.NodeOutput(
            Tuning(
                window=L,
                slope=g,
                length=k,
                cap=tau_cap,
                largest_gap=largest_gap,
                look_ahead=look_ahead,
                step_seconds=step_timeout,
                load_seconds=load_timeout,
            )
        )


def tuned(options: Tuning | None, tolerance: float) -> Tuning:
    return dataclasses.replace(options or Tuning(), tolerance=tolerance)


def told(reports: list[Report], mode: str) -> str:
    """The run's report as JSON, in the log too."""
    for report in reports:
        log_report(report)
    return json.dumps(reports[-1].data() if reports else {"mode": mode})

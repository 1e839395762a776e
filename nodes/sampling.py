"""The sampler nodes: ComfyUI's own common_ksampler on an attached model."""

from __future__ import annotations

import json
from typing import Any

from comfy.patcher_extension import CallbacksMP
from comfy_api.latest import io

from hybrid_core.comfy_bridge.attach import attach, log_report
from hybrid_core.config import MODES, Tuning
from hybrid_core.telling.report import Report
from nodes import common_ksampler

from .inputs import hybrid_inputs, sampler_inputs, sampler_outputs, seed_input
from .monitor import UI_KEY, announcer, graph_of, watcher
from .options import tuned
from .schema import ALIASES, CATEGORY, HIDDEN, schema


class HybridKSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="Hybrid_KSampler",
            display_name="Hybrid KSampler",
            category=CATEGORY,
            description="KSampler on two GPUs: the negative prompt is evaluated on the second one "
            "at the same moment. Same inputs; in mode exact the same image.",
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
            hidden=HIDDEN,
            has_intermediate_output=True,
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
        return sampled(
            cls.hidden,
            model,
            mode,
            tuned(options, tolerance),
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


class HybridKSamplerAdvanced(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="Hybrid_KSamplerAdvanced",
            display_name="Hybrid KSampler (Advanced)",
            category=CATEGORY,
            description="KSampler (Advanced) on two GPUs: the negative prompt is evaluated on the "
            "second one at the same moment. Same inputs; in mode exact the same image.",
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
            hidden=HIDDEN,
            has_intermediate_output=True,
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
        return sampled(
            cls.hidden,
            model,
            mode,
            tuned(options, tolerance),
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


def sampled(
    hidden: Any, model: Any, mode: str, tuning: Tuning, *arguments: Any, **keywords: Any
) -> io.NodeOutput:
    """common_ksampler with these arguments on `model` attached; the node's outputs."""
    reports: list[Report] = []
    live = watcher(hidden.unique_id)
    attached = attach(
        model,
        mode,
        announcer(hidden.unique_id, shows_runs=True),
        on_report=reports.append,
        tuning=tuning,
        watcher=live,
        graph=graph_of(hidden),
    )
    if mode == "off":
        attached.add_callback(CallbacksMP.ON_PRE_RUN, live.loaded)
    (latent,) = common_ksampler(attached, *arguments, **keywords)
    for report in reports:
        log_report(report)
    if not reports:
        reports.append(Report(mode, status="done"))
        live.did_not_share(reports[-1])
    return io.NodeOutput(latent, json.dumps(reports[-1].data()), ui={UI_KEY: [live.shown]})

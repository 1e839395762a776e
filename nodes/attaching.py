"""Nodes for graphs with other sampler nodes: attach a MODEL, watch an attached one."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from hybrid_core.comfy_bridge.attach import attach, watched
from hybrid_core.config import MODES, Tuning
from hybrid_core.telling.report import Report

from .inputs import hybrid_inputs
from .monitor import UI_KEY, announcer, graph_of, watcher
from .options import tuned
from .schema import ALIASES, CATEGORY, HIDDEN, schema

NOT_ATTACHED = (
    "the MODEL that came in has nothing attached: expected one of Hybrid Attach Model in a mode "
    "other than off. The run is KSampler's own"
)


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
            hidden=HIDDEN,
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        mode: str = MODES[0],
        tolerance: float = Tuning.tolerance,
        options: Tuning | None = None,
    ) -> io.NodeOutput:
        announce = announcer(cls.hidden.unique_id, shows_runs=False)
        tuning = tuned(options, tolerance)
        return io.NodeOutput(
            attach(model, mode, announce, tuning=tuning, graph=graph_of(cls.hidden))
        )


class HybridMonitor(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="Hybrid_Monitor",
            display_name="Hybrid Monitor",
            category=CATEGORY,
            description="Shows the live curve of a model attached with Hybrid Attach Model. Put it "
            "between Hybrid Attach Model and the guider or sampler.",
            search_aliases=ALIASES,
            inputs=[io.Model.Input("model", tooltip="The model of Hybrid Attach Model.")],
            outputs=[io.Model.Output(tooltip="The same model, watched.")],
            hidden=[io.Hidden.unique_id],
            has_intermediate_output=True,
        )

    @classmethod
    def execute(cls, model: Any) -> io.NodeOutput:
        live = watcher(cls.hidden.unique_id)
        followed = watched(model, live)
        if followed is None:
            live.did_not_share(Report("off", status="done", reasons=[NOT_ATTACHED]))
            followed = model
        return io.NodeOutput(followed, ui={UI_KEY: [live.shown]})

"""Settings that are rarely needed, as a node whose output the others take."""

from __future__ import annotations

import dataclasses

from comfy_api.latest import io

from hybrid_core.config import DATA_PLANES, Settings, Tuning

from .schema import ALIASES, CATEGORY, schema

OPTIONS = io.Custom("HYBRID_OPTIONS")


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
                io.Combo.Input(
                    "data_plane", options=list(DATA_PLANES), default=Tuning.data_plane,
                    optional=True,  # older workflows do not have it
                    tooltip="How tensors travel to the second process. auto: the fastest that "
                    "passes its self-test. cuda_ipc: memory on the second GPU. host_pinned: pinned "
                    "memory of the computer. host: as that, not pinned.",
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
        data_plane: str = Tuning.data_plane,
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
                data_plane=data_plane,
            )
        )


def tuned(options: Tuning | None, tolerance: float) -> Tuning:
    return dataclasses.replace(options or Tuning(), tolerance=tolerance)

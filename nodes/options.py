"""Settings that are rarely needed, as a node whose output the others take."""

from __future__ import annotations

import dataclasses

from comfy_api.latest import io

from hybrid_core.config import DATA_PLANES, Settings, Tuning
from hybrid_core.errors import ConfigError
from hybrid_core.transport.wire import shown

from .schema import ALIASES, CATEGORY, schema

OPTIONS = io.Custom("HYBRID_OPTIONS")
SHORTENED = {
    "all": Tuning.kinds,
    "forecast": frozenset(("forecast",)),
    "pipelined": frozenset(("pipelined",)),
}


class HybridOptions(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="Hybrid_Options",
            display_name="Hybrid Options",
            category=CATEGORY,
            description="Settings of the Hybrid nodes that are rarely needed. Those of mode "
            "paper are for 50 steps; they are scaled to the run's.",
            search_aliases=ALIASES,
            inputs=[
                io.Int.Input(
                    "L",
                    display_name="paper: steady steps",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip="Mode paper: over how many steps the difference of the prompts "
                    "must be steady. 0: as published.",
                ),
                io.Float.Input(
                    "g",
                    display_name="paper: steady means below",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.0001,
                    round=0.00001,
                    tooltip="Mode paper: the largest fall of the difference a step that "
                    "counts as steady. 0: as published.",
                ),
                io.Int.Input(
                    "k",
                    display_name="paper: short steps",
                    default=5,
                    min=0,
                    max=1000,
                    tooltip="Mode paper: how many steps are shortened. Published: 5.",
                ),
                io.Int.Input(
                    "tau_cap",
                    display_name="paper: latest start",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip="Mode paper: the step at which the short ones begin at the "
                    "latest. 0: as published.",
                ),
                io.Int.Input(
                    "largest_gap",
                    display_name="most short steps in a row",
                    default=Tuning.largest_gap,
                    min=0,
                    max=1000,
                    tooltip="Mode adaptive: the most steps in a row that are not full.",
                ),
                io.Boolean.Input(
                    "look_ahead",
                    display_name="look ahead",
                    default=Tuning.look_ahead,
                    tooltip="Mode adaptive: the second GPU begins a short step early, at the "
                    "latent that it is expected to have.",
                ),
                io.Float.Input(
                    "step_timeout",
                    display_name="give up a step after (s)",
                    default=Settings.step_seconds,
                    min=1.0,
                    max=86400.0,
                    tooltip="Seconds, beyond twenty times what the first GPU takes, after which "
                    "the second GPU counts as stuck in a step; the image is then made on one.",
                ),
                io.Float.Input(
                    "load_timeout",
                    display_name="give up loading after (s)",
                    default=Settings.load_seconds,
                    min=1.0,
                    max=86400.0,
                    tooltip="Seconds that the second GPU may take to load the model.",
                ),
                io.Combo.Input(
                    "data_plane",
                    display_name="exchange between the GPUs",
                    options=list(DATA_PLANES),
                    default=Tuning.data_plane,
                    optional=True,  # older workflows do not have it
                    tooltip="How data travels between the GPUs. auto: the fastest way that "
                    "passes its test. cuda_ipc: directly. host_pinned and host: "
                    "through the computer's memory.",
                ),
                io.Combo.Input(
                    "shortened",
                    display_name="which steps are short",
                    options=list(SHORTENED),
                    default="all",
                    optional=True,
                    tooltip="Mode adaptive: which steps may be short. forecast: nothing is "
                    "computed, the steps before show where it leads. pipelined: one prompt, half "
                    "of the model on each GPU.",
                ),
                io.Int.Input(
                    "most_gpus",
                    display_name="use at most (GPUs)",
                    default=Tuning.most_devices,
                    min=0,
                    max=64,
                    optional=True,
                    tooltip="How many GPUs may work on an image, the first one among them. "
                    "0: all that are of use.",
                ),
            ],
            outputs=[OPTIONS.Output(tooltip="For the options input of a Hybrid node.")],
        )

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
        shortened: str = "all",
        most_gpus: int = Tuning.most_devices,
    ) -> io.NodeOutput:
        if shortened not in SHORTENED:
            raise ConfigError(
                f"shortened is {shown(shortened)}, expected one of {', '.join(SHORTENED)}"
            )
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
                kinds=SHORTENED[shortened],
                most_devices=most_gpus,
            )
        )


def tuned(options: Tuning | None, tolerance: float) -> Tuning:
    """Raises ConfigError."""
    if not isinstance(options, Tuning | None):
        raise ConfigError(
            f"options is {shown(options)}, expected the output of Hybrid Options; "
            "connect that node or nothing"
        )
    return dataclasses.replace(options or Tuning(), tolerance=tolerance)

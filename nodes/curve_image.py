"""The finished curve of a run as a picture, for contact sheets and reports."""

from __future__ import annotations

import json
import textwrap
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image, ImageDraw

from hybrid_core.comfy_bridge.attach import latest_report
from hybrid_core.telling import curve, curve_figure

from .schema import schema


class HybridCurveImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        (least_width, least_height), (most_width, most_height) = (
            curve_figure.SMALLEST,
            curve_figure.LARGEST,
        )
        return schema(
            node_id="Hybrid_CurveImage",
            display_name="Hybrid Curve Image",
            category="image/hybrid",
            description="Draws the curve of a finished run as a picture, from the report of a "
            "Hybrid sampler.",
            search_aliases=["hybrid", "curve", "plot", "chart", "report", "discrepancy"],
            inputs=[
                io.String.Input(
                    "report",
                    force_input=True,
                    optional=True,
                    tooltip="The report output of Hybrid KSampler or Hybrid KSampler (Advanced).",
                ),
                io.Int.Input(
                    "width",
                    default=curve_figure.WIDTH,
                    min=least_width,
                    max=most_width,
                    tooltip="Width of the picture in pixels.",
                ),
                io.Int.Input(
                    "height",
                    default=curve_figure.HEIGHT,
                    min=least_height,
                    max=most_height,
                    tooltip="Height of the picture in pixels.",
                ),
                io.Boolean.Input(
                    "log",
                    default=True,
                    tooltip="Show small values larger, as the node does.",
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="Instead of a report, with other samplers: the model of Hybrid Attach "
                    "Model or Hybrid Monitor that was sampled with.",
                ),
                io.Latent.Input(
                    "latent",
                    optional=True,
                    tooltip="With model: the latent that its sampler made. The picture waits for "
                    "it.",
                ),
            ],
            outputs=[io.Image.Output(tooltip="The curve as a picture.")],
        )

    @classmethod
    def execute(
        cls,
        width: int,
        height: int,
        log: bool,
        report: str | None = None,
        model: Any = None,
        latent: Any = None,
    ) -> io.NodeOutput:
        told = report if report is not None else report_of(model, latent)
        read = curve.read(told)
        try:
            drawn = curve_figure.pixels(read, width, height, log)
        except curve_figure.NoMatplotlib as error:  # what else the graph makes is not lost
            drawn = written(str(error), width, height)
        return io.NodeOutput(torch.from_numpy(drawn).float().div(255)[None])


def written(text: str, width: int, height: int) -> np.ndarray[Any, Any]:
    """A picture of this text, (height, width, 3) uint8."""
    picture = Image.new("RGB", (width, height), "white")
    lines = "\n".join(textwrap.wrap(text, max(20, width // 8)))
    ImageDraw.Draw(picture).multiline_text((16, 16), lines, fill="black")
    return np.array(picture)


def report_of(model: Any, latent: Any) -> str:
    """The report of the latest run of an attached model. Raises UnreadableReport."""
    given = [name for name, value in (("model", model), ("latent", latent)) if value is not None]
    if len(given) < 2:
        raise curve.UnreadableReport(
            f"Hybrid Curve Image is connected to {' and '.join(given) or 'nothing'}. "
            "Expected: the report of a Hybrid KSampler; or, with other samplers, the model of "
            "Hybrid Attach Model and the latent that was sampled with it. Connect one of the two."
        )
    found = latest_report(model)
    if found is None:
        raise curve.UnreadableReport(
            "Hybrid Curve Image got a model that made no run with anything attached. Expected: "
            "the very model that went into the sampler, from Hybrid Attach Model (not in mode off) "
            "or Hybrid Monitor. Connect that output."
        )
    return json.dumps(found.data())

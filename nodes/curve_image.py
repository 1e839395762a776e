"""The finished curve of a run as a picture, for contact sheets and reports."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from hybrid_core import curve, curve_figure

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
                    default=False,
                    tooltip="Logarithmic scales: shows small values better.",
                ),
            ],
            outputs=[io.Image.Output(tooltip="The curve as a picture.")],
        )

    @classmethod
    def execute(cls, report: str, width: int, height: int, log: bool) -> io.NodeOutput:
        drawn = curve_figure.pixels(curve.read(report), width, height, log)
        return io.NodeOutput(torch.from_numpy(drawn).float().div(255)[None])

"""Mode exact with a ControlNet, beside the same run without: how much of the gain is left.

    python dev.py bench controlnet [--json] [--rounds 3] [--model WORD]

Two cores are two devices, as in `bench exact`. `kept` is the ratio with a ControlNet as a share of
the ratio without.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.two_cores import command_line, milliseconds, two_cores  # isort: skip

from benchmarks import controlnets
from benchmarks.models import SD3_CONFIG, SDXL_CONFIG, SHAPES, Shape, sample
from benchmarks.report import Row, progress, publish, ratios
from hybrid_core.comfy_bridge.attach import attach
from hybrid_core.comfy_bridge.graph_path import Graph
from hybrid_core.telling.report import Report

STEPS = 4
NETS = {
    "SD3 shape, 9 blocks": lambda: controlnets.of_mmdit(SD3_CONFIG, 3),
    "SDXL shape, half width": lambda: controlnets.of_unet(SDXL_CONFIG),
}
MOST_SECONDS = 120.0


def main() -> None:
    parser = command_line("controlnet", __doc__)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    made: list[Row] = []
    with two_cores(), tempfile.TemporaryDirectory() as folder:
        for name, net in NETS.items():
            if arguments.model not in name:
                continue
            progress(f"{name}: loading")
            shape, rows = SHAPES[name], []
            model, sides = shape.load(), [side * 8 for side in shape.latent[-2:]]
            with_net = controlnets.loaded(net(), Path(folder), (sides[0], sides[1]))
            for control, graph in ((None, None), with_net):
                row = measure(model, shape, control, graph, arguments.rounds)
                rows.append({"model": name, "control": control is not None, **row})
                progress(f"{name}: {rows[-1]}")
            rows[-1]["kept"] = round(rows[-1]["ratio"] / rows[0]["ratio"], 3)
            made += rows
    publish("controlnet", made)


def measure(model: Any, shape: Shape, control: Any, graph: Graph | None, rounds: int) -> Row:
    """KSampler and mode exact by turns, after the worker takes part in every step."""
    reports: list[Report] = []
    attached = attach(model, "exact", progress, on_report=reports.append, graph=graph)
    deadline = time.monotonic() + MOST_SECONDS
    while not reports or reports[-1].partitioned < STEPS:
        if time.monotonic() > deadline or (reports and reports[-1].reasons):
            raise RuntimeError(f"not every step was shared: {reports[-1].line()}")
        sample(attached, shape, STEPS, control=control)
    times: dict[str, list[float]] = {"ksampler": [], "exact": []}
    for _ in range(rounds):
        for arm, one in (("ksampler", model), ("exact", attached)):
            since = time.perf_counter()
            sample(one, shape, STEPS, control=control)
            times[arm].append(time.perf_counter() - since)
    if any(report.partitioned < STEPS for report in reports[-rounds:]):
        raise RuntimeError(f"not every step was shared: {reports[-1].line()}")
    return {
        "steps": STEPS,
        "rounds": rounds,
        "ksampler_step_ms": milliseconds(times["ksampler"], STEPS),
        **ratios(times["ksampler"], times["exact"]),
    }


if __name__ == "__main__":
    main()

"""SDXL and SD3-medium on a GPU: the parts of a step, and what two GPUs would make of them.

    python dev.py bench gpu [--json] [--rounds 3] [--model WORD]

Full size, random weights, 1024x1024, fp16. With one GPU, both processes share it: exchanges are
measured, and ratios are computed from measured parts. With two, ratios are measured too, beside
KSampler and ComfyUI's own split.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from dataclasses import asdict
from typing import Any

sys.path.insert(0, os.environ["COMFYUI_DIR"])
sys.path.append(os.path.abspath("."))

import torch

from benchmarks.expectations import Parts, ideal, overhead, ratio
from benchmarks.report import ROOT, Row, progress, publish
from hybrid_core.config import DEVICE_VARIABLE, Tuning

STEPS = 50
COMPUTED = "computed from measured parts"
PLANES = ("cuda_ipc", "host_pinned")
TARGETS = {"latents": 0.3, "boundary": 1.0}  # milliseconds, SDXL's


def main() -> None:
    parser = argparse.ArgumentParser(prog="dev.py bench gpu", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--model", default="", help="only models with this word in their name")
    parser.add_argument("--rounds", type=int, default=3, help="of each measured arm")
    parser.add_argument("--repeats", type=int, default=20, help="of each part")
    parser.add_argument("--small", action="store_true", help=argparse.SUPPRESS)  # a CPU will do
    arguments = parser.parse_args()
    if not (torch.cuda.is_available() or arguments.small):
        progress("dev.py bench gpu: this machine has no GPU that torch can use")
        sys.exit(2)
    publish("gpu", measured(arguments))


def measured(arguments: argparse.Namespace) -> list[Row]:
    """Imports ComfyUI, which reads its arguments then."""
    from comfy.cli_args import args

    on_gpu = torch.cuda.is_available()
    args.cpu = not on_gpu
    if not on_gpu:
        os.environ.setdefault(DEVICE_VARIABLE, "cpu:1")
    elif torch.cuda.device_count() == 1:
        from hybrid_core.machine.devices import own_gpu

        os.environ.setdefault(DEVICE_VARIABLE, own_gpu(torch.device("cuda", 0)).uuid)
    from benchmarks import gpu_arms, gpu_gathers, models

    shapes = models.SHAPES if arguments.small else models.full_shapes()
    device = torch.device("cuda", 0) if on_gpu else torch.device("cpu")
    rows = []
    for plane in PLANES if not arguments.small else ("host",):
        rows += gpu_gathers.rows(plane, device)
    gathers = {(row["model"].partition(",")[0], row["wanted"]): row for row in rows}
    for name, shape in shapes.items():
        if arguments.model in name and not name.startswith("demo"):
            progress(f"{name}: making it")
            patcher = shape.load()
            with torch.inference_mode():
                rows += of_model(name, patcher, shape, arguments)
    branch = {row["model"]: row["branch_ms"] for row in rows if row["row"] == "parts"}
    for (name, plane), row in gathers.items():
        if name in branch:
            ratio_by_tokens = gpu_gathers.expected(branch[name], row["forward_ms"])
            rows.append(
                {"model": name, "row": "expected by tokens", "how": COMPUTED, "plane": plane,
                 "ratio": round(ratio_by_tokens, 3)}
            )  # fmt: skip
    gpu_arms.SESSION.stop()
    return rows


def of_model(name: str, patcher: Any, shape: Any, arguments: argparse.Namespace) -> list[Row]:
    from benchmarks import gpu_arms
    from benchmarks.gpu_parts import Forwards

    forwards = Forwards(patcher, shape, arguments.repeats)
    both, branch, staged = forwards.full(2), forwards.full(1), forwards.staged()
    measures = forwards.measures(staged)
    common = {"model": name, "latent": list(shape.latent), "dtype": str(patcher.model.get_dtype())}
    row: Row = {
        **common,
        "row": "parts",
        "both_ms": round(both.device, 3),
        "branch_ms": round(branch.device, 3),
        "stage_a_ms": round(staged.stage_a.device, 3),
        "stage_b_ms": round(staged.stage_b.device, 3),
        "both_launch_ms": round(both.host, 3),
        "branch_launch_ms": round(branch.host, 3),
        "branch_launch_bound": branch.launch_bound,
        "measures_ms": round(measures, 3),
        "cut": staged.name,
        "boundary_bytes": staged.boundary_bytes,
    }
    progress(json.dumps(row))
    rows = [row]
    for plane in PLANES if not arguments.small else ("host",):
        ways = exchanges(shape, staged.boundary_bytes, plane, forwards.device, common)
        rows.append(ways)
        parts = Parts(
            both.device, branch.device, staged.stage_a.device, staged.stage_b.device,
            ways["latents_ms"], ways["boundary_ms"], measures,
        )  # fmt: skip
        rows += [{**common, **ways_of(ways), **row} for row in expected(parts, name)]
    return rows + gpu_arms.rows(name, patcher, shape, arguments.rounds, common)


def exchanges(
    shape: Any, size: int, plane: str, device: torch.device, common: dict[str, Any]
) -> Row:
    """An exchange of latents and one of boundary tensors over `plane`, with an idle worker."""
    from benchmarks.echo import echoing, exchange
    from hybrid_core.comfy_bridge.session import Session

    latent = torch.randn(shape.latent).to(device)
    sent = [latent, torch.ones(shape.latent[0], device=device)]
    with echoing(Session.devices().chosen[0], plane) as host:
        used, why = host.data_plane, host.data_plane_reason
        ways = {
            "latents": exchange(host, sent, latent.numel() * latent.element_size(), 200),
            "boundary": exchange(host, sent, size, 200),
        }
    row: Row = {**common, "row": "exchange", "wanted": plane, "plane": used, "why": why}
    row["one_gpu"] = torch.cuda.device_count() == 1
    for way, taken in ways.items():
        row[f"{way}_ms"] = round(statistics.median(taken), 4)
        row[f"{way}_p95_ms"] = round(sorted(taken)[int(0.95 * len(taken))], 4)
        row[f"{way}_in_target"] = row[f"{way}_ms"] < TARGETS[way]
    progress(json.dumps(row))
    return row


def ways_of(row: Row) -> Row:
    return {"plane": row["plane"], "one_gpu": row["one_gpu"]}


def expected(parts: Parts, name: str) -> list[Row]:
    """Ratios on two such devices for each mode's schedule."""
    made = []
    for mode, pipelined, schedule in schedules(name):
        made.append(
            {
                "row": "expected",
                "how": COMPUTED,
                "mode": mode,
                "steps": STEPS,
                "pipelined": pipelined,
                "schedule": schedule,
                "ratio": round(ratio(parts, STEPS, pipelined), 3),
                "ideal": round(ideal(STEPS, pipelined), 3),
                "overhead_of_exact": round(overhead(parts), 4),
                "parts": {key: round(value, 4) for key, value in asdict(parts).items()},
            }
        )
    return made


def schedules(name: str) -> list[tuple[str, float, str]]:
    """Mode, pipelined steps of 50, and where that number is from."""
    demo = "demo unet" if "SDXL" in name else "demo mmdit"
    rows = json.loads((ROOT / "benchmarks" / "frontier.json").read_text())["rows"]
    like = {"model": demo, "steps": STEPS, "cfg": 5.0, "sampler": "euler", "scheduler": "normal"}
    wanted = {"paper": {"k": 5}, "adaptive": {"tolerance": Tuning().tolerance}}
    found = [("exact", 0.0, "every step in full")]
    for mode, how in wanted.items():
        fits = {**like, "arm": mode, **how}
        row = next(r for r in rows if all(r.get(key) == value for key, value in fits.items()))
        found.append((mode, row["pipelined"], f"as the {demo} had it, benchmarks/frontier.json"))
    return found


if __name__ == "__main__":
    main()

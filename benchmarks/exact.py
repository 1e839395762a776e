"""Mode exact beside KSampler, ComfyUI's own CFG split, and what the machine allows.

    python dev.py bench exact [--json] [--rounds 7] [--model WORD]

Two cores are two devices: KSampler has one process on one core with one thread; the CFG split has
one process with a thread on each core; mode exact has a process on each core. All in one run, arm
after arm in each round, so that the ratios hold when the machine's speed drifts.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks.two_cores import command_line, milliseconds, on_cores, two_cores  # isort: skip

import psutil
import torch

from benchmarks.bare import BarePair
from benchmarks.models import SHAPES, Shape, core_split, sample
from benchmarks.report import Row, progress, publish, ratios
from hybrid_core.comfy_bridge.attach import attach
from hybrid_core.comfy_bridge.session import SESSION
from hybrid_core.telling.report import Report


def main() -> None:
    parser = command_line("exact", __doc__)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    rows = []
    with two_cores():
        for name, shape in SHAPES.items():
            if arguments.model in name:
                rows += measure(name, shape, arguments.rounds)
    publish("exact", rows)


def measure(name: str, shape: Shape, rounds: int) -> list[Row]:
    steps = shape.steps
    progress(f"{name}: loading")
    model = shape.load()
    sample(model, shape, 1)
    reports: list[Report] = []
    attached = attach(model, "exact", progress, on_report=reports.append)
    split = core_split(model, ("cpu:0", "cpu:1"))
    with torch.inference_mode():
        if not SESSION.bring_up(model, 300):
            raise RuntimeError(f"{name}: the worker did not come up")
    bare = BarePair(name)
    arms: dict[str, Callable[[], Any]] = {
        "ksampler": lambda: sample(model, shape, steps),
        "exact": lambda: sample(attached, shape, steps),
        "core_split": lambda: split_sample(split, shape, steps),
    }
    times: dict[str, list[float]] = {arm: [] for arm in (*arms, "bare", "alone")}
    for count in range(rounds + 1):  # the first round warms up
        for arm, call in arms.items():
            since = time.perf_counter()
            call()
            times[arm].append(time.perf_counter() - since)
        times["bare"].append(bare.seconds(steps))
        times["alone"].append(bare.alone(steps))
        progress(f"{name}: round {count} " + str({a: round(t[-1], 3) for a, t in times.items()}))
    bare.close()
    times = {arm: taken[1:] for arm, taken in times.items()}
    shared = reports[-rounds:]
    if any(r.local or r.partitioned != steps for r in shared):
        raise RuntimeError(f"{name}: not every step was shared: {shared[-1].line()}")
    return rows(name, times, shared, steps)


def rows(name: str, times: dict[str, list[float]], reports: list[Report], steps: int) -> list[Row]:
    limit = ratios(times["ksampler"], times["bare"])
    common = {
        "model": name,
        "steps": steps,
        "rounds": len(reports),
        "branch_forward_ms": milliseconds(times["alone"], steps),
        "limit": limit["ratio"],
        "limit_min": limit["ratio_min"],
        "limit_max": limit["ratio_max"],
    }
    made = []
    for arm, ideal in (("ksampler", 1.0), ("core_split", 2.0), ("exact", 2.0)):
        row = {**common, "arm": arm, **ratios(times["ksampler"], times[arm]), "ideal": ideal}
        row["step_ms"] = milliseconds(times[arm], steps)
        row["of_limit"] = round(row["ratio"] / row["limit"], 3)
        made.append(row)
    holdings = SESSION.holdings()
    overhead = [r.milliseconds["exact_added"] for r in reports]
    made[-1] |= {
        "overhead_ms": round(statistics.median(overhead), 3),
        "worker_start_s": round(holdings.worker.start_seconds or 0.0, 2),
        "replica_load_s": round(holdings.load_seconds or 0.0, 2),
        "parent_mb": psutil.Process().memory_info().rss >> 20,
        "worker_mb": psutil.Process(holdings.worker.pid).memory_info().rss >> 20,
    }
    return made


def split_sample(split: Any, shape: Shape, steps: int) -> None:
    """Its threads are made for each run and inherit this thread's cores."""
    on_cores({0, 1})
    try:
        sample(split, shape, steps)
    finally:
        on_cores({0})


if __name__ == "__main__":
    main()

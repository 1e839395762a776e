"""The Parallelism stage on models whose forward is long: wall clock beside what the machine allows.

    python dev.py bench hybrid [--json] [--rounds 5] [--model WORD] [--one-device]

A fixed schedule: mode adaptive with boundless tolerance and gaps of at most four. The limit is the
same parts, full forwards and both stages, timed in two bare processes at once. On one device there
are forecast steps only, and the limit is the ideal ratio: what was evaluated, by counting.
"""

from __future__ import annotations

import os
import time
from typing import Any

from benchmarks.two_cores import command_line, milliseconds, on_cores, one_core, two_cores  # isort: skip

import psutil
import torch

from benchmarks.bare import BarePair
from benchmarks.models import SHAPES, Shape, sample
from benchmarks.report import Row, progress, publish, ratios
from hybrid_core.comfy_bridge.attach import attach
from hybrid_core.comfy_bridge.session import SESSION
from hybrid_core.config import DEVICE_VARIABLE, Tuning
from hybrid_core.telling.report import Report, kinds

MODELS = ("SD3 shape, 9 blocks", "SDXL shape, half width")
STEPS = 18
FREE = {"tolerance": 1e9, "largest_gap": 4}  # a fixed schedule
ARMS = {
    "exact": ("exact", Tuning()),
    "pipelined": ("adaptive", Tuning(**FREE, kinds=frozenset(("pipelined",)))),
    "forecast": ("adaptive", Tuning(**FREE, kinds=frozenset(("forecast",)))),
}


def main() -> None:
    parser = command_line("hybrid", __doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one-device", action="store_true", help="no second process")
    arguments = parser.parse_args()
    rows = []
    one = arguments.one_device
    with one_core() if one else two_cores():
        for name in MODELS:
            if arguments.model in name:
                rows += (alone if one else measure)(name, SHAPES[name], arguments.rounds)
    publish("hybrid", rows)


def alone(name: str, shape: Shape, rounds: int) -> list[Row]:
    os.environ.pop(DEVICE_VARIABLE, None)
    on_cores({0})
    model, reports = shape.load(), list[Report]()
    mode, tuning = ARMS["forecast"]
    shortened = attach(model, mode, progress, on_report=reports.append, tuning=tuning)
    times: list[list[float]] = [[], []]
    for count in range(rounds + 1):  # the first round warms up
        for patcher, taken in zip((model, shortened), times, strict=True):
            since = time.perf_counter()
            sample(patcher, shape, STEPS)
            taken.append(time.perf_counter() - since)
        progress(f"{name}: round {count} {[round(taken[-1], 3) for taken in times]}")
    plain, short = (taken[1:] for taken in times)
    last, found = reports[-1], ratios(plain, short)
    return [
        {
            "model": name,
            "arm": "forecast, one device",
            "steps": STEPS,
            "rounds": rounds,
            "step_ms": milliseconds(short, STEPS),
            "forward_ms": milliseconds(plain, STEPS),
            **found,
            "ideal": round(last.ideal, 3),
            "of_ideal": round(found["ratio"] / last.ideal, 3),
            "kinds": kinds(last.steps),
        }
    ]


def measure(name: str, shape: Shape, rounds: int) -> list[Row]:
    progress(f"{name}: loading")
    model = shape.load()
    sample(model, shape, 1)
    with torch.inference_mode():
        if not SESSION.bring_up(model, 300):
            raise RuntimeError(f"{name}: the worker did not come up")
    before = memory()
    bare = BarePair(name)
    reports: dict[str, list[Report]] = {arm: [] for arm in ARMS}
    arms: dict[str, Any] = {"ksampler": model}
    for arm, (mode, tuning) in ARMS.items():
        arms[arm] = attach(model, mode, progress, on_report=reports[arm].append, tuning=tuning)
    times: dict[str, list[float]] = {arm: [] for arm in (*arms, "bare full", "bare stage", "alone")}
    for count in range(rounds + 1):  # the first round warms up
        for arm, patcher in arms.items():
            since = time.perf_counter()
            sample(patcher, shape, STEPS)
            times[arm].append(time.perf_counter() - since)
        (cut,) = SESSION.cuts[model.model].values()
        times["bare full"].append(bare.seconds(STEPS // 2) / (STEPS // 2))
        times["bare stage"].append(bare.seconds(STEPS // 2, cut) / (STEPS // 2))
        times["alone"].append(bare.alone(STEPS // 2) / (STEPS // 2))
        progress(f"{name}: round {count} " + str({a: round(t[-1], 3) for a, t in times.items()}))
    bare.close()
    times = {arm: taken[1:] for arm, taken in times.items()}
    rows = [row_of(name, arm, times, reports.get(arm, [])[1:]) for arm in arms]
    for row in rows:
        row |= memory_growth(before)
    return rows


def row_of(name: str, arm: str, times: dict[str, list[float]], reports: list[Report]) -> Row:
    row: Row = {
        "model": name,
        "arm": arm,
        "steps": STEPS,
        "rounds": len(times["ksampler"]),
        "branch_forward_ms": milliseconds(times["alone"], 1),
        **ratios(times["ksampler"], times[arm]),
        "step_ms": milliseconds(times[arm], STEPS),
    }
    if not reports:
        return {**row, "ideal": 1.0}
    if any(r.local or r.shared + r.forecast != STEPS for r in reports):
        raise RuntimeError(f"{name}: not every step was shared: {reports[-1].line()}")
    last = reports[-1]
    bare = [
        full * last.partitioned + stage * last.pipelined
        for full, stage in zip(times["bare full"], times["bare stage"], strict=True)
    ]
    limit = ratios(times["ksampler"], bare)["ratio"]
    return {
        **row,
        "ideal": round(last.ideal, 3),
        "limit": limit,
        "of_limit": round(row["ratio"] / limit, 3),
        "kinds": kinds(last.steps) if last.steps else "E" * STEPS,
        "cut": last.cut,
        "bare_full_ms": milliseconds(times["bare full"], 1),
        "bare_stage_ms": milliseconds(times["bare stage"], 1),
        "milliseconds": last.data()["ms"],
        "bytes_moved": last.bytes_sent + last.bytes_received,
    }


def memory() -> tuple[int, int]:
    """Resident bytes of the parent and of the worker."""
    worker = psutil.Process(SESSION.holdings().worker.pid)
    return psutil.Process().memory_info().rss, worker.memory_info().rss


def memory_growth(before: tuple[int, int]) -> Row:
    """What the runs added since the worker had its replica, in MiB."""
    now = memory()
    return {
        "parent_extra_mb": round((now[0] - before[0]) / 2**20, 1),
        "worker_extra_mb": round((now[1] - before[1]) / 2**20, 1),
    }


if __name__ == "__main__":
    main()

"""Whole runs: KSampler, the modes, and with two GPUs ComfyUI's own split."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.models import Shape, core_split, sample
from benchmarks.report import Row, progress, ratios
from hybrid_core.comfy_bridge.attach import attach
from hybrid_core.comfy_bridge.session import SESSION
from hybrid_core.config import Tuning
from hybrid_core.telling.report import Report, kinds

STEPS = 20
FIXED = {  # schedules that do not depend on what random weights make of an image
    "exact": Tuning(),
    "adaptive": Tuning(tolerance=1e9, largest_gap=2, kinds=frozenset(("pipelined",))),
    "paper": Tuning(window=9, slope=1e9, length=30),
}
SHARED = "both processes on one GPU: no ratio can be had, the step shows the overhead"


def rows(name: str, model: Any, shape: Shape, rounds: int, common: Row) -> list[Row]:
    SESSION.busy = lambda: True  # the worker is kept
    since = time.perf_counter()
    if not SESSION.bring_up(model, 300):
        raise RuntimeError(
            f"{name}: the worker did not come up: {SESSION.holdings().worker.last_error}"
        )
    progress(f"{name}: the worker has its replica after {time.perf_counter() - since:.1f} s")
    reports: dict[str, list[Report]] = {mode: [] for mode in FIXED}
    arms: dict[str, Callable[[], Any]] = {"ksampler": lambda: sample(model, shape, STEPS)}
    for mode, tuning in FIXED.items():
        attached = attach(model, mode, progress, on_report=reports[mode].append, tuning=tuning)
        arms[mode] = lambda attached=attached: sample(attached, shape, STEPS)
    if torch.cuda.device_count() > 1:
        split = core_split(model, ("cuda:0", "cuda:1"))
        if split is not None:
            arms["core_split"] = lambda: sample(split, shape, STEPS)
    times: dict[str, list[float]] = {arm: [] for arm in arms}
    for count in range(rounds + 1):  # the first round warms up
        for arm, call in arms.items():
            since = time.perf_counter()
            call()
            times[arm].append(time.perf_counter() - since)
        progress(f"{name}: round {count} " + str({a: round(t[-1], 3) for a, t in times.items()}))
    times = {arm: taken[1:] for arm, taken in times.items()}
    return [row(arm, times, reports.get(arm, []), common) for arm in arms]


def row(arm: str, times: dict[str, list[float]], reports: list[Report], common: Row) -> Row:
    made = {**common, "row": "run", "arm": arm, "steps": STEPS, "how": "measured"}
    made["step_ms"] = round(sorted(times[arm])[len(times[arm]) // 2] / STEPS * 1000, 3)
    if torch.cuda.device_count() == 1:
        made["note"] = SHARED
    else:
        made |= ratios(times["ksampler"], times[arm])
    if reports:
        last = reports[-1]
        made |= {
            "kinds": kinds(last.steps),
            "ideal": round(last.ideal, 3),
            "plane": last.data_plane,
            "local": last.local,
            "reasons": last.reasons,
            "milliseconds": last.data()["ms"],
        }
    return made

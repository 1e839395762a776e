"""One branch (cfg 1) on two devices, beside KSampler and what the machine allows.

    python dev.py bench single [--json] [--rounds 5] [--model WORD] [--steps 4 20]

Pictures of four times the places have the least number of steps only. Two cores are two devices.
The limit is the same halves in two bare processes at once, their exchanges as copies in memory. All
in one run, arm after arm in each round.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks.two_cores import command_line, milliseconds, two_cores  # isort: skip

import torch

from benchmarks.halves import Halves
from benchmarks.models import Shape, one_branch_shapes, sample
from benchmarks.report import Row, progress, publish, ratios
from hybrid_core.comfy_bridge.attach import attach
from hybrid_core.comfy_bridge.session import SESSION
from hybrid_core.telling.report import Report, kinds

ARMS = ("exact", "adaptive")
LARGE = "four times"


def main() -> None:
    parser = command_line("single", __doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 20])
    arguments = parser.parse_args()
    rows = []
    with two_cores():
        for name, shape in one_branch_shapes().items():
            if arguments.model in name:
                numbers = sorted(arguments.steps)[: 1 if LARGE in name else None]
                rows += measure(name, shape, arguments.rounds, numbers)
    publish("single", rows)


def measure(name: str, shape: Shape, rounds: int, numbers: list[int]) -> list[Row]:
    progress(f"{name}: loading")
    model = shape.load()
    expected = {steps: sample(model, shape, steps, cfg=1.0) for steps in numbers}
    reports: dict[str, list[Report]] = {arm: [] for arm in ARMS}
    attached = {arm: attach(model, arm, progress, on_report=reports[arm].append) for arm in ARMS}
    with torch.inference_mode():
        if not SESSION.bring_up(model, 300):
            raise RuntimeError(f"{name}: the worker did not come up")
    halves, made = Halves(name), []
    for steps in numbers:
        arms: dict[str, Callable[[], Any]] = {
            "ksampler": lambda steps=steps: sample(model, shape, steps, cfg=1.0),
            **{
                arm: lambda arm=arm, steps=steps: sample(attached[arm], shape, steps, cfg=1.0)
                for arm in ARMS
            },
        }
        times: dict[str, list[float]] = {arm: [] for arm in (*arms, "limit")}
        errors = {arm: 0.0 for arm in ARMS}
        warm = steps == numbers[0]  # by a round before
        for count in range(rounds + warm):
            for arm, call in arms.items():
                since = time.perf_counter()
                out = call()
                times[arm].append(time.perf_counter() - since)
                if arm in errors:
                    away = (out - expected[steps]).norm() / expected[steps].norm()
                    errors[arm] = max(errors[arm], float(away))
            times["limit"].append(halves.seconds(steps))
            latest = {arm: round(taken[-1], 3) for arm, taken in times.items()}
            progress(f"{name}, {steps} steps: round {count} {latest}")
        times = {arm: taken[warm:] for arm, taken in times.items()}
        made += rows(name, steps, times, {arm: reports[arm][-1] for arm in ARMS}, errors)
    halves.close()
    return made


def rows(
    name: str,
    steps: int,
    times: dict[str, list[float]],
    reports: dict[str, Report],
    errors: dict[str, float],
) -> list[Row]:
    """One for each arm; `limit` and what it is a share of are ratios to KSampler."""
    limit = ratios(times["ksampler"], times["limit"])["ratio"]
    common = {
        "model": name, "steps": steps, "rounds": len(times["limit"]),
        "forward_ms": milliseconds(times["ksampler"], steps), "limit": limit,
    }  # fmt: skip
    made: list[Row] = [{**common, "arm": "ksampler", "ratio": 1.0}]
    for arm, report in reports.items():
        row = {**common, "arm": arm, **ratios(times["ksampler"], times[arm])}
        row |= {
            "of_limit": round(row["ratio"] / limit, 3), "ideal": round(report.ideal, 3),
            "relative_error": float(f"{errors[arm]:.2g}"), "kinds": kinds(report.steps),
            "gather": report.gather, "reasons": list(report.reasons),
        }  # fmt: skip
        made.append(row)
    return made


if __name__ == "__main__":
    main()

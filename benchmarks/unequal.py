"""A worker at half speed: shares by speed beside equal ones, and what the plan computes.

    python dev.py bench unequal [--json] [--rounds 3]

Two cores are two devices. The worker's process is stopped for half of every 4 ms (POSIX), and it
counts as a device of another kind, as a 3060 beside a 4090 does: two of one kind are divided
equally until every recent step says otherwise. Mode exact, a batch of 4 with two branches, and one
picture at cfg 1 by tokens, small and with four times the places: a process that is stopped answers
up to 2 ms late at each exchange, which weighs less the longer a forward is. Arm after arm in each
round.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from benchmarks.two_cores import command_line, milliseconds, two_cores  # isort: skip

import torch

from benchmarks.models import SHAPES, Shape, sample
from benchmarks.report import Row, progress, publish, ratios
from benchmarks.slowed import half_speed
from hybrid_core.comfy_bridge.attach import attach
from hybrid_core.comfy_bridge.session import SESSION
from hybrid_core.driver import crew, tokens
from hybrid_core.driver.division import bounds
from hybrid_core.planning.whole import Pace, divided, makespan
from hybrid_core.telling.report import Report

PACES = Pace(1.0), Pace(2.0)  # of this process and of the worker
EQUAL = Pace(1.0), Pace(1.0)
NAME = "SD3 shape, 9 blocks"
PICTURES = replace(SHAPES[NAME], latent=(4, 16, 24, 24), steps=4)
ONE = replace(SHAPES[NAME], steps=6)
LARGE = "SD3 shape, four times the places"  # the same model


def main() -> None:
    parser = command_line("unequal", __doc__)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    tokens.TRIES = 10**6  # equal shares do not pay here, and are to be seen all the same
    with two_cores():
        progress("loading")
        model = SHAPES[NAME].load()
        with torch.inference_mode():
            if not SESSION.bring_up(model, 300):
                raise RuntimeError("the worker did not come up")
        worker = SESSION.holdings().worker
        worker.device = replace(worker.device, differs="half as fast")
        with half_speed(worker.pid):
            rows = measure(f"{NAME}, 4 pictures", model, PICTURES, 5.0, arguments.rounds)
            rows += measure(f"{NAME}, tokens", model, ONE, 1.0, 2 * arguments.rounds - 1)
            rows += measure(f"{LARGE}, tokens", model, SHAPES[LARGE], 1.0, arguments.rounds)
    publish("unequal", rows)


def measure(name: str, model: Any, shape: Shape, cfg: float, rounds: int) -> list[Row]:
    reports: list[Report] = []
    attached = attach(model, "exact", progress, on_report=reports.append)
    by_speed = crew.pace
    arms: dict[str, Callable[[], Any]] = {
        "ksampler": lambda: sample(model, shape, shape.steps, cfg=cfg),
        "equal": lambda: sample(attached, shape, shape.steps, cfg=cfg),
        "by speed": lambda: sample(attached, shape, shape.steps, cfg=cfg),
    }
    times: dict[str, list[float]] = {arm: [] for arm in arms}
    made: dict[str, Report] = {}
    for count in range(rounds + 1):  # the first round warms up, and the worker's speed is learned
        for arm, call in arms.items():
            crew.pace = by_speed if arm == "by speed" else lambda _: 1.0
            since = time.perf_counter()
            call()
            times[arm].append(time.perf_counter() - since)
            if arm != "ksampler":
                made[arm] = reports[-1]
        latest = {arm: round(taken[-1], 2) for arm, taken in times.items()}
        progress(f"{name}: round {count} {latest}")
    crew.pace = by_speed
    times = {arm: taken[1:] for arm, taken in times.items()}
    return [row(name, arm, times, made.get(arm), shape, cfg) for arm in arms]


def row(
    name: str, arm: str, times: dict[str, list[float]], report: Report | None, shape: Shape,
    cfg: float,
) -> Row:  # fmt: skip
    """limit: what the plan computes for these paces, by shares by speed and by equal ones."""
    made: Row = {"model": name, "arm": arm, "steps": shape.steps, "rounds": len(times[arm])}
    made |= ratios(times["ksampler"], times[arm])
    made["step_ms"] = milliseconds(times[arm], shape.steps)
    if report is not None:
        bound = limit(PACES if arm == "by speed" else EQUAL, shape.latent[0], cfg)
        made |= {"limit": round(bound, 3), "of_limit": round(made["ratio"] / bound, 3)}
        made |= {"to_equal": ratios(times["equal"], times[arm])["ratio"], "who": report.who}
        made["paces"] = [round(pace, 2) for pace in SESSION.holdings().paces]
        made["reasons"] = report.reasons
    return made


def limit(planned: tuple[Pace, Pace], pictures: int, cfg: float) -> float:
    """How many times as fast as one device the plan for these paces is on those that there are."""
    if cfg == 1.0:
        middle = bounds(planned)[1] / 1000
        return 1 / max(PACES[0].seconds(middle), PACES[1].seconds(1 - middle))
    return 2 * pictures / makespan(PACES, divided(planned, 2, pictures))


if __name__ == "__main__":
    main()

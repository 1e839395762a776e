"""A worker at half speed: shares by speed beside equal ones, and what the plan computes.

    python dev.py bench unequal [--json] [--rounds 5] [--model WORD]

Two cores are two devices. The worker's process is stopped for half of every 40 ms (POSIX), which
halves its speed. Mode exact with a batch of 4 and two branches, in one run arm after arm.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.two_cores import command_line, milliseconds, two_cores  # isort: skip

import torch

from benchmarks.models import SHAPES, Shape, sample
from benchmarks.report import Row, progress, publish, ratios
from hybrid_core.comfy_bridge.attach import attach
from hybrid_core.comfy_bridge.session import SESSION
from hybrid_core.driver import crew
from hybrid_core.planning.whole import Pace, divided, makespan
from hybrid_core.telling.report import Report

HALF = 0.02  # seconds
SLOW = 2.0  # the worker's pace beside this process's
STEPS, WARM_UP = 8, 2  # runs until the worker's speed is known
BATCH = ", 4 pictures"


def main() -> None:
    parser = command_line("unequal", __doc__)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    rows: list[Row] = []
    with two_cores():
        for name, shape in SHAPES.items():
            if name.endswith(BATCH) and arguments.model in name:
                rows += measure(name, shape, arguments.rounds)
    publish("unequal", rows)


def measure(name: str, shape: Shape, rounds: int) -> list[Row]:
    model = shape.load()
    with torch.inference_mode():
        if not SESSION.bring_up(model, 300):
            raise RuntimeError(f"{name}: the worker did not come up")
    reports: list[Report] = []
    attached = attach(model, "exact", progress, on_report=reports.append)
    holdings = SESSION.holdings()
    by_speed = crew.pace
    arms: dict[str, Callable[[], Any]] = {
        "ksampler": lambda: sample(model, shape, STEPS),
        "equal": lambda: sample(attached, shape, STEPS),
        "by speed": lambda: sample(attached, shape, STEPS),
    }
    times: dict[str, list[float]] = {arm: [] for arm in arms}
    shares: dict[str, list[Any]] = {}
    with slowed(holdings.worker.pid):
        for count in range(-WARM_UP, rounds):
            for arm, call in arms.items():
                crew.pace = by_speed if arm == "by speed" else lambda _: 1.0
                since = time.perf_counter()
                call()
                if count >= 0:
                    times[arm].append(time.perf_counter() - since)
                if arm != "ksampler":
                    shares[arm] = reports[-1].who
            progress(f"{name}: round {count}")
    crew.pace = by_speed
    return [row(name, arm, times, shares.get(arm, []), shape.latent[0]) for arm in arms]


def row(name: str, arm: str, times: dict[str, list[float]], who: list[Any], batch: int) -> Row:
    """limit: what the plan computes for these paces, by shares by speed and by equal ones."""
    paces = Pace(1.0), Pace(SLOW)
    planned = paces if arm == "by speed" else (Pace(1.0), Pace(1.0))
    limit = 2 * batch / makespan(paces, divided(planned, 2, batch))
    made = {"model": name, "arm": arm, "steps": STEPS, "rounds": len(times[arm]), "who": who}
    made |= ratios(times["ksampler"], times[arm])
    made["step_ms"] = milliseconds(times[arm], STEPS)
    if arm != "ksampler":
        made |= {"limit": round(limit, 3), "of_limit": round(made["ratio"] / limit, 3)}
    return made


@contextmanager
def slowed(pid: int | None) -> Iterator[None]:
    """A process that runs half of the time."""
    if pid is None:
        raise RuntimeError("there is no worker to slow down")
    over = threading.Event()

    def beat() -> None:
        while not over.is_set():
            os.kill(pid, signal.SIGSTOP)
            over.wait(HALF)
            os.kill(pid, signal.SIGCONT)
            over.wait(HALF)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


if __name__ == "__main__":
    main()

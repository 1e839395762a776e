"""What a worker on another computer costs beside one in this computer: a step's overhead.

    python dev.py bench elsewhere [--json] [--rounds 5]

A Ray cluster of two nodes on this machine (loopback): ComfyUI and the head on core 0, the other
node on core 1. The same runs with a worker's process on core 1, arm after arm; the network of two
real computers comes on top.
"""

from __future__ import annotations

import os
import statistics
import time

from benchmarks.two_cores import command_line, milliseconds, two_cores  # isort: skip

import psutil
import torch

from benchmarks.models import SHAPES, sample
from benchmarks.report import Row, progress, publish
from hybrid_core.comfy_bridge import elsewhere
from hybrid_core.comfy_bridge.attach import attach
from hybrid_core.comfy_bridge.session import SESSION, Session
from hybrid_core.config import DEVICE_VARIABLE, Settings
from hybrid_core.driver import crew
from tooling.cluster import Cluster

NAME = "demo mmdit, 4 pictures"  # short forwards: what is added is seen best
STEPS = 10


def main() -> None:
    parser = command_line("elsewhere", __doc__)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    cluster = Cluster(os.environ["COMFYUI_DIR"])
    crew.pace = lambda _: 1.0  # both workers get the same share
    with two_cores():
        try:
            cluster.start()
            for part in cluster.other.parts():
                psutil.Process(part.pid).cpu_affinity([1])
            publish("elsewhere", [measure(NAME, cluster, arguments.rounds)])
        finally:
            cluster.stop()


def measure(name: str, cluster: Cluster, rounds: int) -> Row:
    """overhead_ms: a step by the other node, less a step by a process of this one."""
    shape = SHAPES[name]
    model = shape.load()
    os.environ[DEVICE_VARIABLE] = "none"
    other = Session(Settings())
    other.look_elsewhere(elsewhere.chosen(cluster.address))
    with torch.inference_mode():
        if not other.bring_up(model, 300):
            raise RuntimeError(f"the other node's worker did not come up: {other.made}")
        os.environ[DEVICE_VARIABLE] = "cpu:1"
        if not SESSION.bring_up(model, 300):
            raise RuntimeError(f"{name}: the worker did not come up")
    arms = {"process": SESSION, "other node": other}
    attached = {arm: attach(model, "exact", progress, session) for arm, session in arms.items()}
    times: dict[str, list[float]] = {arm: [] for arm in arms}
    for count in range(rounds + 1):  # the first round warms up
        for arm in arms:
            since = time.perf_counter()
            sample(attached[arm], shape, STEPS)
            times[arm].append(time.perf_counter() - since)
        progress(f"{name}: round {count} { {arm: round(t[-1], 3) for arm, t in times.items()} }")
    worker, before = other.holdings().worker, other.holdings().worker.bytes_sent
    sample(attached["other node"], shape, STEPS)
    other.stop()
    pairs = zip(times["process"][1:], times["other node"][1:], strict=True)
    overhead = [(there - here) / STEPS * 1000 for here, there in pairs]
    return {
        "model": name,
        "arm": "exact",
        "steps": STEPS,
        "rounds": rounds,
        "process_step_ms": milliseconds(times["process"][1:], STEPS),
        "other_node_step_ms": milliseconds(times["other node"][1:], STEPS),
        "overhead_ms": round(statistics.median(overhead), 1),
        "overhead_ms_min": round(min(overhead), 1),
        "overhead_ms_max": round(max(overhead), 1),
        "sent_kb_a_step": round((worker.bytes_sent - before) / STEPS / 1000, 1),
    }


if __name__ == "__main__":
    main()

"""What it costs a run to see whether another node has changed the network: processor time in ms.

    python dev.py bench fingerprint [--json]

A network of SDXL's modules, narrow: a look compares addresses, attributes and code, whatever the
size of a weight. A run looks twice, at its first shared evaluation and at its last; weights that
torch does not count the writes of are sampled the first time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks.two_cores import command_line  # isort: skip

import comfy.supported_models
import torch

from benchmarks.models import FULL_SDXL, random_model
from benchmarks.report import publish
from hybrid_core.comfy_bridge.fingerprint import fingerprint

LOOKS = 300
NARROW = FULL_SDXL | {"model_channels": 64, "context_dim": 64}


def main() -> None:
    command_line("fingerprint", __doc__).parse_args()
    torch.set_num_threads(1)
    with torch.inference_mode():  # as a server loads models
        patcher = random_model(comfy.supported_models.SDXL, NARROW)
    network = patcher.model.diffusion_model
    since = time.process_time()
    fingerprint(patcher)
    size = {
        "modules": sum(1 for _ in network.modules()),
        "weights": sum(1 for _ in network.parameters()),
        "first_ms": round(1000 * (time.process_time() - since), 1),
    }
    rows = [
        {
            "look": "structure and code",
            **size,
            **timed(lambda: fingerprint(patcher, sampled=False)),
        },
        {"look": "and samples of weights", **size, **timed(lambda: fingerprint(patcher))},
    ]
    publish("fingerprint", rows)


def timed(look: Callable[[], Any]) -> dict[str, float]:
    """Of one look at a network that has not changed."""
    taken = []
    for _ in range(LOOKS):
        since = time.process_time()
        look()
        taken.append(1000 * (time.process_time() - since))
    return {"ms": round(statistics.median(taken), 2), "ms_min": round(min(taken), 2)}


if __name__ == "__main__":
    main()

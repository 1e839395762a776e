"""Two cores as two devices: ComfyUI in this process on core 0, its worker on core 1.

Import this before anything of ComfyUI, which reads its arguments when it is imported.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager

os.environ.setdefault("HYBRID_KSAMPLER_DEVICE", "cpu:1")
sys.path.insert(0, os.environ["COMFYUI_DIR"])
sys.path.append(os.path.abspath("."))

import torch
from comfy.cli_args import args

args.cpu = True

from hybrid_core.comfy_bridge.session import SESSION


def command_line(name: str, text: str | None) -> argparse.ArgumentParser:
    """What every benchmark of two cores is asked."""
    parser = argparse.ArgumentParser(prog=f"dev.py bench {name}", description=text)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--model", default="", help="only models with this word in their name")
    return parser


@contextmanager
def one_core() -> Iterator[None]:
    """This process alone, with one thread."""
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    yield


@contextmanager
def two_cores() -> Iterator[None]:
    """This process on core 0 with one thread; the worker is kept from the first arm to the last."""
    with one_core():
        on_cores({0})
        SESSION.busy = lambda: True
        try:
            yield
        finally:
            SESSION.stop()


def on_cores(cores: set[int]) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def milliseconds(taken: list[float], steps: int) -> float:
    """Median of some runs' seconds, a step."""
    return round(statistics.median(taken) / steps * 1000, 1)

"""Workers forked from a process that has imported ComfyUI, where starting them is not the point.

A worker takes seconds to import torch and ComfyUI, and these tests end dozens of them. What starts
one in a ComfyUI (workers/process/spawning.py) has tests of its own and all of tests/e2e.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import comfy

from hybrid_core.workers.process import lifeline, spawning

HERE = Path(__file__).resolve().parent
PATHS = [str(Path(folder).parent) for folder in comfy.__path__] + [str(HERE), str(HERE.parents[1])]


def start(target: Callable[..., None], arguments: tuple[Any, ...]) -> BaseProcess:
    """As spawning.start, which it is where a process cannot be forked."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return spawning.start(target, arguments)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["quick_start_imports"])
    process = context.Process(target=_begin, args=(target, arguments), daemon=True)
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([*PATHS, before])  # of the process that forks
    try:
        with spawning._childs_view():
            process.start()
    finally:
        os.environ["PYTHONPATH"] = before
    return process


def _begin(target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    lifeline.hold = lambda: None  # the parent is the process that forks; it ends with the tests
    target(*arguments)

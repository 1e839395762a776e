"""What a server holds, to compare before with after."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from demo.server import Server
from tooling.soak import harm

SHARED = Path("/dev/shm")  # noqa: S108  listed, never written to
SETTLE_SECONDS = 10.0
MORE_DESCRIPTORS, MORE_THREADS = 8, 4  # ComfyUI's own come and go
MORE_MEMORY = 300 << 20  # bytes: allocators do not give everything back
END_SECONDS = 5.0  # a worker does not outlive its server by more


@dataclass(frozen=True)
class Held:
    """By one server at rest, its worker ended."""

    descriptors: int
    threads: int
    memory: int  # bytes
    shared: frozenset[str]  # names in shared memory and temporary files of this pack
    children: int


def look(server: Server) -> Held:
    harm.ask(server, "free")
    harm.waited(lambda: not harm.workers(server), SETTLE_SECONDS)
    time.sleep(1.0)
    process = psutil.Process(server.process.pid)
    return Held(
        descriptors=process.num_fds() if hasattr(process, "num_fds") else process.num_handles(),
        threads=process.num_threads(),
        memory=process.memory_info().rss,
        shared=frozenset(_shared()),
        children=len(process.children(recursive=True)),
    )


def _shared() -> list[str]:
    names = os.listdir(tempfile.gettempdir())
    if SHARED.is_dir():
        names += os.listdir(SHARED)
    return [name for name in names if "hybrid-ksampler" in name or name.startswith("torch_")]


def grown(before: Held, after: Held) -> list[str]:
    """What leaked, in words."""
    found = []
    if after.descriptors > before.descriptors + MORE_DESCRIPTORS:
        found.append(f"{after.descriptors - before.descriptors} descriptors")
    if after.threads > before.threads + MORE_THREADS:
        found.append(f"{after.threads - before.threads} threads")
    if after.memory > before.memory + MORE_MEMORY:
        found.append(f"{(after.memory - before.memory) >> 20} MiB of memory")
    if after.shared - before.shared:
        found.append(f"shared memory {', '.join(sorted(after.shared - before.shared)[:3])}")
    if after.children > before.children:
        found.append(f"{after.children - before.children} processes")
    return found


def left_by(end: Callable[[], None], children: list[psutil.Process]) -> list[str]:
    """Processes that are there END_SECONDS after `end` has ended their server."""
    end()
    deadline = time.monotonic() + END_SECONDS
    while time.monotonic() < deadline and any(map(_lives, children)):
        time.sleep(0.1)
    return [f"process {child.pid}" for child in children if _lives(child)]


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False

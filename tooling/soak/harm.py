"""What is done to a server's worker while a prompt runs, and when."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil

from demo.server import Server
from hybrid_core.telling.kinds import is_both, is_short

PREFIX = "/hybrid_ksampler"
SIGNALS = ("SIGKILL", "SIGTERM", "SIGSTOP")
# (what, when): how often
DEEDS = {
    ("SIGKILL", "step"): 30, ("SIGTERM", "step"): 16, ("SIGSTOP", "step"): 14,
    ("SIGKILL", "start"): 4, ("SIGTERM", "start"): 3, ("SIGSTOP", "start"): 2,
    ("SIGKILL", "load"): 4, ("SIGTERM", "load"): 3, ("SIGSTOP", "load"): 3,
    ("cancel", "any"): 6, ("cancel while stopped", "step"): 3, ("/free", "any"): 4,
    ("nothing", "any"): 8,
}  # fmt: skip
READY_SECONDS = 90.0


@dataclass
class Deed:
    """One thing that is done to one prompt."""

    what: str
    when: str
    done: bool = False
    hit: bool = False  # a signal that came while a step was under way on both devices
    cancelled_at: float | None = None  # time.monotonic()

    @property
    def is_signal(self) -> bool:
        return self.what in SIGNALS or self.what == "cancel while stopped"


def drawn(chance: random.Random) -> Deed:
    ((what, when),) = chance.choices(list(DEEDS), list(DEEDS.values()))
    return Deed(what, when)


def workers(server: Server) -> list[psutil.Process]:
    """The server's processes that were spawned for this pack."""
    found = []
    with suppress(psutil.Error):
        for child in psutil.Process(server.process.pid).children(recursive=True):
            with suppress(psutil.Error):
                if "spawn_main" in " ".join(child.cmdline()):
                    found.append(child)
    return found


def state(server: Server) -> str:
    return str(server.get(f"{PREFIX}/worker")["worker"]["state"])


def ask(server: Server, what: str) -> None:
    """One of the panel's buttons; refused is as good."""
    with suppress(RuntimeError):
        server.post(f"{PREFIX}/worker/{what}", {})


def prepare(server: Server, deed: Deed) -> None:
    """Before the prompt is queued: the worker is where the deed wants it."""
    if deed.when == "start":
        ask(server, "free")
    elif deed.when in ("load", "step"):
        ask(server, "restart" if deed.when == "load" else "start")
        waited(lambda: state(server) in ("ready", "busy"), READY_SECONDS)


def do(server: Server, deed: Deed, chance: random.Random, prompt_id: str) -> None:
    """While the prompt runs; returns when it is done, or when there is nothing to do it to."""
    if deed.when == "step":
        if not waited(lambda: shared_now(server, prompt_id) or _ended(server, prompt_id), 60.0):
            return
        time.sleep(chance.uniform(0.0, 0.2))
    elif deed.when == "start":
        waited(lambda: bool(workers(server)) or _ended(server, prompt_id), 20.0)
        time.sleep(chance.uniform(0.0, 4.0))
    else:
        time.sleep(chance.uniform(0.0, 1.5))
    if deed.what == "nothing" or _ended(server, prompt_id):
        return
    if deed.is_signal:
        _signal(server, deed, chance, prompt_id)
    if deed.what == "/free":
        server.post("/free", {"unload_models": True, "free_memory": True})
        deed.done = True
    if deed.what.startswith("cancel"):
        deed.cancelled_at = time.monotonic()
        server.post("/interrupt", {})
        deed.done = True


def _signal(server: Server, deed: Deed, chance: random.Random, prompt_id: str) -> None:
    found = workers(server)
    if not found:
        return
    hit = shared_now(server, prompt_id)
    name = "SIGSTOP" if deed.what == "cancel while stopped" else deed.what
    with suppress(ProcessLookupError):
        os.kill(found[0].pid, getattr(signal, name))
        deed.done, deed.hit = True, hit
    goes_on = deed.when == "start" or chance.random() < 0.4
    if name == "SIGSTOP" and goes_on and deed.what == "SIGSTOP":
        time.sleep(chance.uniform(0.2, 3.0))
        with suppress(ProcessLookupError):
            os.kill(found[0].pid, signal.SIGCONT)


def shared_now(server: Server, prompt_id: str) -> bool:
    """Whether the prompt's run goes on, and its latest step was shared with the worker."""
    for run in server.get(f"{PREFIX}/runs")["runs"]:
        if run["prompt_id"] == prompt_id and run["status"] == "running" and run["rows"]:
            kind = run["rows"][-1]["kind"]
            return bool(is_both(kind) or is_short(kind))
    return False


def _ended(server: Server, prompt_id: str) -> bool:
    return prompt_id in server.get(f"/history/{prompt_id}")


def waited(condition: Callable[[], Any], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True

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
from tooling.soak.following import Following

PREFIX = "/hybrid_ksampler"
SIGNALS = ("SIGKILL", "SIGTERM", "SIGSTOP")
# (what, when): how often. A worker that is up
UP = {
    ("SIGKILL", "step"): 20, ("SIGTERM", "step"): 8, ("SIGSTOP", "step"): 4,
    ("cancel while stopped", "step"): 3, ("nothing", "step"): 48, ("cancel", "step"): 6,
    ("SIGKILL", "load"): 2, ("SIGTERM", "load"): 2, ("SIGSTOP", "load"): 2,
    ("/free", "any"): 2, ("restart", "any"): 1,
}  # fmt: skip
# and one that is not: it starts while prompts go on
COMING = {
    ("SIGKILL", "start"): 2, ("SIGTERM", "start"): 1, ("SIGSTOP", "start"): 2,
    ("cancel", "any"): 5, ("/free", "any"): 1, ("nothing", "any"): 80,
}  # fmt: skip
PAUSES = (1, 2, 3, 4)  # of the worker in shared steps, before what is drawn is done
PAUSE_SECONDS = (0.02, 0.6)
STEP_SECONDS = 60.0  # until a step is shared


@dataclass
class Deed:
    """One thing that is done to one prompt, after some pauses."""

    what: str
    when: str
    pauses: int = 0
    done: bool = False
    paused: int = 0
    hit: int = 0  # signals that came while a step was under way on both devices
    cancelled_at: float | None = None  # time.monotonic()

    @property
    def is_signal(self) -> bool:
        return self.what in SIGNALS or self.what == "cancel while stopped"

    @property
    def signals(self) -> int:
        """How many were sent, those that end a pause not counted."""
        return self.paused + (self.is_signal and self.done)


def drawn(chance: random.Random, up: bool) -> Deed:
    """up: whether the worker is."""
    deeds = UP if up else COMING
    ((what, when),) = chance.choices(list(deeds), list(deeds.values()))
    return Deed(what, when, chance.choice(PAUSES) if when == "step" else 0)


def workers(server: Server) -> list[psutil.Process]:
    """The server's processes that were spawned for this pack."""
    found = []
    with suppress(psutil.Error):
        for child in psutil.Process(server.process.pid).children(recursive=True):
            with suppress(psutil.Error):
                if "spawn_main" in " ".join(child.cmdline()):
                    found.append(child)
    return found


def up(server: Server) -> bool:
    """Whether the worker is, with or without a model."""
    return server.get(f"{PREFIX}/worker")["worker"]["state"] in ("ready", "busy")


def ask(server: Server, what: str) -> None:
    """One of the panel's buttons; refused is as good."""
    with suppress(RuntimeError):
        server.post(f"{PREFIX}/worker/{what}", {})


def do(server: Server, seen: Following, deed: Deed, chance: random.Random, prompt_id: str) -> None:
    """While the prompt runs; returns when it is done, or when there is nothing to do it to."""
    if deed.when == "step":
        for _ in range(deed.pauses):
            _pause(server, seen, deed, chance, prompt_id)
        if deed.what == "nothing" or not seen.until(seen.shared, prompt_id, STEP_SECONDS):
            return
        time.sleep(chance.uniform(0.0, 0.2))
    elif deed.when == "start":
        waited(lambda: bool(workers(server)) or seen.ended(prompt_id), 20.0)
        time.sleep(chance.uniform(0.0, 4.0))
    elif deed.when == "load":
        seen.until(seen.runs, prompt_id, STEP_SECONDS)
        time.sleep(chance.uniform(0.0, 0.5))
    else:
        time.sleep(chance.uniform(0.0, 1.5))
    if deed.what == "nothing" or (seen.ended(prompt_id) and deed.when != "start"):
        return
    if deed.is_signal:
        _signal(server, seen, deed, chance, prompt_id)
    elif deed.what == "/free":
        server.post("/free", {"unload_models": True, "free_memory": True})
        deed.done = True
    elif deed.what == "restart":
        ask(server, "restart")
        deed.done = True
    if deed.what.startswith("cancel"):
        deed.cancelled_at = time.monotonic()
        server.post("/interrupt", {})
        deed.done = True


def _pause(
    server: Server, seen: Following, deed: Deed, chance: random.Random, prompt_id: str
) -> None:
    """Stop the worker in a shared step and let it go on before it is given up."""
    if not seen.until(seen.shared, prompt_id, STEP_SECONDS):
        return
    time.sleep(chance.uniform(0.0, 0.05))
    stopped = _send(server, seen, deed, "SIGSTOP", prompt_id)
    if stopped is not None:
        deed.paused += 1
        time.sleep(chance.uniform(*PAUSE_SECONDS))
        with suppress(ProcessLookupError):
            os.kill(stopped, signal.SIGCONT)


def _signal(
    server: Server, seen: Following, deed: Deed, chance: random.Random, prompt_id: str
) -> None:
    name = "SIGSTOP" if deed.what == "cancel while stopped" else deed.what
    sent = _send(server, seen, deed, name, prompt_id)
    deed.done = sent is not None
    goes_on = deed.when == "start" or chance.random() < 0.4
    if sent is not None and deed.what == "SIGSTOP" and goes_on:
        time.sleep(chance.uniform(0.2, 3.0))
        with suppress(ProcessLookupError):
            os.kill(sent, signal.SIGCONT)


def _send(server: Server, seen: Following, deed: Deed, name: str, prompt_id: str) -> int | None:
    """To the worker: its process id, None when there is none."""
    found, hit = workers(server), seen.shared(prompt_id)
    if not found:
        return None
    try:
        os.kill(found[0].pid, getattr(signal, name))
    except ProcessLookupError:
        return None
    deed.hit += hit
    return found[0].pid


def waited(condition: Callable[[], Any], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True

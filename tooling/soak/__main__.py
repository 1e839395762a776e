"""Random prompts and random harm for some minutes; exit code 1 when anything is found."""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from demo.server import ROOT, Server, serving
from tooling.soak import harm, leaks, prompts
from tooling.soak.following import Following
from tooling.soak.harm import Deed
from tooling.soak.prompts import Case, References

FOLDER = ROOT / ".dev" / "soak"
HUNG_SECONDS = 150.0
CANCEL_SECONDS = 5.0  # a step or 2 seconds, whichever is longer, and what a busy machine adds
FAULTS = ("lost", "hung", "wrong", "leaked")
READY_SECONDS = 120.0
EVERY = 25  # prompts between two lines


class Soak:
    """One server and what was seen of it."""

    def __init__(self, server: Server, chance: random.Random):
        self._server, self._chance = server, chance
        self._following = Following(server)
        self._following.begin()
        self._references = References(server)
        self._images = prompts.images(chance)
        self.counts: Counter[str] = Counter()
        self.found: list[str] = []

    def warm_up(self) -> leaks.Held:
        """Every model and the worker once; what is held then is what may be held."""
        for model in ("mmdit", "unet"):
            case = Case(model, "euler", "normal", 6, 64, 1, 5.0, 0, False, "exact")
            plain = self._references.of(case)
            with_lora = Case(model, "euler", "normal", 6, 64, 1, 5.0, 0, True, "exact")
            if prompts.fault(case, self._references.of(with_lora), plain) is None:
                raise RuntimeError(f"the LoRA of {model} changes nothing")
            for made in (case, with_lora):
                self._server.run(made.graph())
        harm.waited(lambda: harm.up(self._server), READY_SECONDS)
        self._server.run(case.graph(number=1))
        return leaks.look(self._server)

    def one(self) -> None:
        """A prompt and what is done to it."""
        server, seen, case = (
            self._server,
            self._following,
            prompts.drawn(self._chance, self._images),
        )
        expected = self._references.of(case)
        deed = harm.drawn(self._chance, harm.up(server))
        prompt_id = seen.queue(case.graph(number=self.counts["prompts"] + 2))
        harm.do(server, seen, deed, self._chance, prompt_id)
        try:
            entry = server.finished(prompt_id, HUNG_SECONDS)
        except TimeoutError:
            self._note("hung", case, deed, f"ran for {HUNG_SECONDS:.0f} s")
            server.post("/interrupt", {})
            server.finished(prompt_id, HUNG_SECONDS)
        else:
            self._judge(case, deed, entry, expected)
        self._count(deed)

    def _count(self, deed: Deed) -> None:
        self.counts["prompts"] += 1
        self.counts["signals"] += deed.signals
        self.counts["signals that hit a shared step"] += deed.hit
        self.counts["SIGSTOP and SIGCONT in a step"] += deed.paused
        if deed.done:
            self.counts[f"{deed.what}, {deed.when}"] += 1

    def _judge(self, case: Case, deed: Deed, entry: dict[str, Any], expected: Any) -> None:
        names = [name for name, _ in entry["status"]["messages"]]
        if deed.cancelled_at is not None:
            taken = _ended_at(entry) - (time.time() - time.monotonic() + deed.cancelled_at)
            self.counts["slowest cancel, ms"] = max(
                self.counts["slowest cancel, ms"], int(1000 * taken)
            )
            if taken > CANCEL_SECONDS:
                self._note("hung", case, deed, f"ended {taken:.1f} s after Cancel")
            if "execution_interrupted" in names:
                return
        if entry["status"]["status_str"] != "success":
            self._note("lost", case, deed, json.dumps(entry["status"]["messages"][-1])[:400])
            return
        wrong = prompts.fault(case, prompts.latents(self._server, entry), expected)
        if wrong is not None:
            self._note("wrong", case, deed, wrong)

    def _note(self, kind: str, case: Case, deed: Deed, what: str) -> None:
        self.counts[kind] += 1
        self.found.append(f"{kind}: {what} | {deed.what} in {deed.when} | {case}")
        say(self.found[-1])

    def leaked(self, what: list[str]) -> None:
        self.counts["leaked"] += len(what)
        self.found += [f"leaked: {one}" for one in what]

    def line(self) -> str:
        shown = ("prompts", "signals", "signals that hit a shared step", *FAULTS)
        return ", ".join(f"{self.counts[name]} {name}" for name in shown)


def _ended_at(entry: dict[str, Any]) -> float:
    """time.time() by the server's clock."""
    return max(data["timestamp"] for _, data in entry["status"]["messages"]) / 1000


def soaked(minutes: float, seed: int) -> Soak:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    prompts.write_loras(FOLDER)
    deadline = time.monotonic() + minutes * 60
    context = serving(FOLDER)
    server = context.__enter__()
    try:
        soak = Soak(server, random.Random(seed))  # noqa: S311
        before = soak.warm_up()
        say("warm: prompts and harm begin")
        while time.monotonic() < deadline:
            soak.one()
            if soak.counts["prompts"] % EVERY == 0:
                say(soak.line())
        soak.leaked(leaks.grown(before, leaks.look(server)))
        harm.ask(server, "start")
        harm.waited(lambda: harm.up(server), READY_SECONDS)
        children = psutil.Process(server.process.pid).children(recursive=True)
        for worker in harm.workers(server):
            with suppress(psutil.Error):
                os.kill(worker.pid, signal.SIGSTOP)  # it must end with its server all the same
        soak.leaked(leaks.left_by(server.process.kill, children))
    finally:
        context.__exit__(None, None, None)
    soak.counts["images of KSampler"] = len(soak._references)
    return soak


def say(text: str) -> None:
    print(f"[soak] {text}", file=sys.stderr, flush=True)  # noqa: T201


def main() -> None:
    parser = argparse.ArgumentParser(prog="dev.py soak", description=__doc__)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    say(f"seed {arguments.seed}, {arguments.minutes:g} minutes; log in {Path(FOLDER)}/server.log")
    soak = soaked(arguments.minutes, arguments.seed)
    for name, count in soak.counts.items():
        print(f"{count:6d} {name}")  # noqa: T201
    for one in soak.found:
        print(one)  # noqa: T201
    sys.exit(1 if any(soak.counts[kind] for kind in FAULTS) else 0)


if __name__ == "__main__":
    main()

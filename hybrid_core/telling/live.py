"""Runs as they go on, told in small messages: what the widget in the node draws.

A message carries the rows that are new; a snapshot is a message with all of them.
"""

from __future__ import annotations

import logging
import math
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hybrid_core.telling.report import Report, StepRecord

log = logging.getLogger("hybrid_ksampler")
KEPT = 32  # runs, oldest out first
GAP_SECONDS = 1 / 15  # between two messages, of all runs together

Message = dict[str, Any]
Send = Callable[[str, Message], None]


@dataclass(frozen=True)
class Address:
    """Where a run belongs: the node's execution id, and the page that asked for it if one did."""

    node: str
    prompt_id: str | None = None
    workflow_id: str | None = None
    client_id: str | None = None

    def ids(self) -> Message:
        return {"node": self.node, "prompt_id": self.prompt_id, "workflow_id": self.workflow_id}


class Live:
    """The latest runs, and their messages no faster than one each GAP_SECONDS.

    send: called with a client's id, on the sampling thread or on a timer's.
    """

    def __init__(self, send: Send, clock: Callable[[], float] = time.monotonic):
        self._send, self._clock = send, clock
        self._lock = threading.Lock()
        self._runs: OrderedDict[str, LiveRun] = OrderedDict()
        self._waiting: OrderedDict[str, LiveRun] = OrderedDict()
        self._sent_at = -math.inf
        self._timer: threading.Timer | None = None

    def now(self) -> float:
        """Seconds."""
        return self._clock()

    def snapshots(self, workflow_id: str | None = None) -> list[Message]:
        """Of one workflow's runs, or of all; oldest first."""
        with self._lock:
            runs = list(self._runs.values())
        return [
            run.snapshot()
            for run in runs
            if workflow_id is None or run.state["workflow_id"] == workflow_id
        ]

    def changed(self, run: LiveRun, report: Report) -> None:
        """Tell of `run` now or as soon as the pace allows it. report: what it did until now."""
        with self._lock:
            run.update(report)
            name = run.state["run"]
            self._runs[name] = run
            while len(self._runs) > KEPT:
                self._runs.popitem(last=False)
            self._waiting[name] = run
            if self._timer is None:
                self._flush()

    def _flush(self) -> None:
        """Send one message and come back for the rest; the lock is held."""
        self._timer = None
        if not self._waiting:
            return
        left = self._sent_at + GAP_SECONDS - self._clock()
        if left <= 0:
            _, run = self._waiting.popitem(last=False)
            self._sent_at, left = self._clock(), GAP_SECONDS
            message = run.message()
            try:
                if run.client_id is not None:
                    self._send(run.client_id, message)
            except Exception:  # noqa: BLE001  a picture of the run must not cost the run
                log.exception("a run could not be shown")
        if self._waiting:
            self._timer = threading.Timer(left, self._later)
            self._timer.daemon = True
            self._timer.start()

    def _later(self) -> None:
        with self._lock:
            self._flush()


class LiveRun:
    """One run of one node."""

    def __init__(self, address: Address, report: Report, since: float):
        """since: when it began, on the clock that end() is told of."""
        self.client_id, self.since = address.client_id, since
        self.state: Message = {
            "run": uuid.uuid4().hex, **address.ids(), "seq": 0, "started": time.time(),
        }  # fmt: skip
        self._rows: list[Message] = []
        self._changed = 0  # the first row that is not told yet
        self._seconds: float | None = None  # once it has ended
        self.update(report)

    def update(self, report: Report) -> None:
        """Take in what the run did since."""
        # a step's discrepancy is known when the next one begins
        start = max(0, len(self._rows) - 1)
        while start and self._rows[start]["step"] is None:
            start -= 1
        self._changed = min(self._changed, start)
        self._rows = self._rows[:start] + [row(record) for record in report.steps[start:]]
        self.state = {
            **self.state,
            "total": report.total, "mode": report.mode, "tolerance": report.tolerance,
            "status": report.status, "reasons": list(report.reasons), "cut": report.cut,
            "unshortened": report.unshortened, "waiting": report.waiting,
            "ideal": number(report.ideal), "ratio": number(report.ratio), "who": report.who,
            "seconds": number(self._seconds),
        }  # fmt: skip

    def end(self, now: float) -> None:
        self._seconds = now - self.since

    def message(self) -> Message:
        """What is new since the last message."""
        self.state = {**self.state, "seq": self.state["seq"] + 1}
        rows, start = self._rows, self._changed
        self._changed = len(rows)
        return {**self.state, "start": start, "rows": rows[start:]}

    def snapshot(self) -> Message:
        return {**self.state, "start": 0, "rows": list(self._rows)}


class LiveNode:
    """A Watcher for one execution of a node, which may sample more than once."""

    def __init__(self, live: Live, address: Callable[[], Address]):
        """address: asked when a run begins."""
        self._live, self._address = live, address
        self._since = live.now()
        self._runs: list[tuple[Report, LiveRun]] = []  # a sampler inside a sampler is its own run
        waiting = Report(mode="off", status="waiting")
        # the latest run's snapshot; filled in place, as ComfyUI keeps a node's output for replay
        self.shown = LiveRun(address(), waiting, self._since).snapshot()

    def began(self, report: Report) -> None:
        self._begin(report, self._live.now())

    def _begin(self, report: Report, since: float) -> None:
        run = LiveRun(self._address(), report, since)
        self._runs.append((report, run))
        self._live.changed(run, report)

    def stepped(self, report: Report) -> None:
        run = self._of(report)
        if len(report.steps) == 1:  # before it the model was loaded, which is not the run's time
            run.since = self._live.now() - report.steps[0].seconds
        self._live.changed(run, report)

    def ended(self, report: Report) -> None:
        run = self._of(report)
        run.end(self._live.now())
        self._live.changed(run, report)
        self.shown.update(run.snapshot())
        self._runs = [(known, run) for known, run in self._runs if known is not report]

    def loaded(self, *_: Any) -> None:
        """The model is in its place: the time of an execution that shares nothing begins now."""
        self._since = self._live.now()

    def did_not_share(self, report: Report) -> None:
        """Of an execution that is KSampler's own."""
        self._begin(report, self._since)
        self.ended(report)

    def _of(self, report: Report) -> LiveRun:
        return next(run for known, run in self._runs if known is report)


def row(record: StepRecord) -> Message:
    """A step as the pages get it: a field more is a line more here."""
    return {
        "step": record.step,
        "kind": record.kind,
        "branch": record.branch,
        "sigma": number(record.sigma),
        "discrepancy": number(record.discrepancy),
        "drift": number(record.drift),
        "ms": milliseconds(record.seconds),
        "own_ms": milliseconds(record.own_seconds),
        "worker_ms": milliseconds(record.worker_seconds),
        "waited_ms": milliseconds(record.waited_seconds),
    }


def milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else number(seconds * 1000)


def number(value: float | None) -> float | None:
    """Four digits; None for what is not finite, which JSON does not have."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")

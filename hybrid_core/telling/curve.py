"""The course of a finished run, read from the report that a Hybrid sampler returns."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from hybrid_core.errors import HybridError
from hybrid_core.telling.report import LETTERS

KINDS = (*LETTERS, "refresh")


class UnreadableReport(HybridError, ValueError):
    """A text is not the report of a Hybrid sampler."""


@dataclass(frozen=True)
class Step:
    """One evaluation of the model; None where nothing was measured."""

    position: int  # on the picture's axis, from 1 up
    kind: str  # one of KINDS: refresh is an exact one inside the Parallelism stage
    discrepancy: float | None
    drift: float | None
    milliseconds: float | None


@dataclass(frozen=True)
class Curve:
    """A run as it is drawn."""

    mode: str
    steps: tuple[Step, ...] = ()
    total: int = 0  # positions that the run was to have
    on_schedule: bool = True  # positions are steps of the schedule; otherwise they count calls
    parallelism: tuple[int, int] | None = None  # positions before its first and of its last step
    tolerance: float | None = None
    ratio: float | None = None
    ideal: float | None = None
    status: str = "done"
    reasons: tuple[str, ...] = ()

    def words(self) -> str:
        """The run in one line."""
        parts = [self.mode if self.tolerance is None else f"{self.mode} {self.tolerance:g}"]
        if self.status not in ("done", "running"):
            parts.append(self.status)
        forwards = "" if self.ideal is None else f"{self.ideal:.2f}x by step count"
        if self.ratio is not None:
            counted = f" ({forwards})" if forwards else ""
            parts.append(f"{self.ratio:.2f}x as fast as one device{counted}")
        elif forwards and self.steps:
            parts.append(forwards)
        pipelined = sum(step.kind == "pipelined" for step in self.steps)
        if pipelined:
            parts.append(f"{pipelined} of {len(self.steps)} steps pipelined")
        local = sum(step.kind == "local" for step in self.steps)
        if local:
            parts.append(f"{local} of {len(self.steps)} on one device")
        return "  ·  ".join(parts)


def read(text: str) -> Curve:
    """Read a report. Raises UnreadableReport."""
    try:
        data = json.loads(text)
    except (TypeError, ValueError):
        raise _unreadable(f"the text {_short(text)}") from None
    if not isinstance(data, dict) or not isinstance(data.get("mode"), str):
        raise _unreadable(f"{_short(text)} without a mode")
    rows = data.get("steps", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise _unreadable(f"steps that are {_short(json.dumps(rows))}, not a list of objects")
    reasons = data.get("reasons", [])
    if not isinstance(reasons, list):
        raise _unreadable(f"reasons {_short(json.dumps(reasons))}, not a list")
    steps, on_schedule = _steps(rows)
    pipelined = [step.position for step in steps if step.kind == "pipelined"]
    total = _number(data, "total") or 0
    return Curve(
        mode=data["mode"],
        steps=steps,
        total=max(len(steps), int(total)),
        on_schedule=on_schedule,
        parallelism=(pipelined[0] - 1, pipelined[-1]) if pipelined else None,
        tolerance=_number(data, "tolerance"),
        ratio=_number(data, "ratio"),
        ideal=_number(data, "ideal"),
        status=str(data.get("status", "done")),
        reasons=tuple(str(reason) for reason in reasons),
    )


def _steps(rows: list[dict[str, Any]]) -> tuple[tuple[Step, ...], bool]:
    """The steps, and whether each call was the next step of the schedule."""
    kinds = [row.get("kind", "exact") for row in rows]
    unknown = [kind for kind in kinds if not isinstance(kind, str) or kind not in LETTERS]
    if unknown:
        raise _unreadable(f"a step of the kind {_short(str(unknown[0]))}, not {', '.join(LETTERS)}")
    counted = [row.get("step") for row in rows]
    on_schedule = counted == list(range(len(rows)))
    pipelined = [at for at, kind in enumerate(kinds) if kind == "pipelined"]
    inside = range(pipelined[0], pipelined[-1]) if pipelined else range(0)
    steps = tuple(
        Step(
            position=at + 1,
            kind="refresh" if kind == "exact" and at in inside else kind,
            discrepancy=_number(row, "discrepancy"),
            drift=_number(row, "drift"),
            milliseconds=_number(row, "ms"),
        )
        for at, (kind, row) in enumerate(zip(kinds, rows, strict=True))
    )
    return steps, on_schedule


def _number(row: dict[str, Any], name: str) -> float | None:
    """A finite number, None where there is none."""
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _unreadable(f"{name} {_short(json.dumps(value))}, not a number")
    return float(value) if math.isfinite(value) else None


def _unreadable(seen: str) -> UnreadableReport:
    return UnreadableReport(
        f"seen: {seen}. Expected: the report of a run, as JSON. Connect the report output of "
        "Hybrid KSampler or Hybrid KSampler (Advanced)."
    )


def _short(text: object) -> str:
    shown = text if isinstance(text, str) else type(text).__name__
    return repr(shown if len(shown) <= 60 else f"{shown[:60]}…")

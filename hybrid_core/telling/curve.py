"""The course of a finished run, read from the report that a Hybrid sampler returns."""

from __future__ import annotations

import json
import math
import reprlib
from dataclasses import dataclass
from typing import Any

from hybrid_core.errors import HybridError
from hybrid_core.telling.kinds import (
    KINDS,
    REFRESH,
    TOLD,
    counts_as,
    english,
    is_both,
    is_short,
)

_shortening = reprlib.Repr()
_shortening.maxstring = 60
FASTER = 1.05  # a ratio from which a run is called faster


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
    waiting: int = 0  # steps on one device because the second process was not ready

    def words(self) -> str:
        """The run in one line: the sentence of the node."""
        parts = [self._lead(), *self._how()]
        return " · ".join(part for part in parts if part)

    def _lead(self) -> str:
        if self.status not in ("done", "running"):
            total = "" if self.status == "failed" else f" of {self.total}"
            return f"{self.status.capitalize()} at step {len(self.steps)}{total}"
        milliseconds = sum(step.milliseconds or 0 for step in self.steps)
        return duration(milliseconds) if milliseconds else "Done"

    def _how(self) -> list[str]:
        if self.mode == "off":
            return ["mode off", *self._reasons([])]
        found = self.counts()
        kinds = [kind for kind, _ in found]
        alone = not any(is_both(kind) or is_short(kind) for kind in kinds)
        why = self._reasons(kinds)
        if self.status == "failed" or (alone and why):
            return why
        listed = ", ".join(f"{count} {english(KINDS[kind])}" for kind, count in found)
        steps = f"{listed} step{'' if found[-1][1] == 1 else 's'}" if found else ""
        return ["" if alone else self._faster(kinds), *why, steps]

    def _reasons(self, kinds: list[str]) -> list[str]:
        said = [reason.removesuffix(".") for reason in self.reasons]
        if said:
            return [f"on one GPU: {said[0]}", *said[1:]] if kinds == ["local"] else said
        joined = any(map(is_both, kinds))
        if kinds and not joined and (self.waiting or kinds == ["local"]):
            return ["run again: the second GPU was not ready"]
        if joined and (self.waiting or "local" in kinds):
            return ["the second GPU joined on the way"]
        return ["only one prompt to compute, on one GPU"] if kinds == ["single"] else []

    def _faster(self, kinds: list[str]) -> str:
        if self.ratio is None:
            return ""
        if self.ratio < FASTER:
            return "no faster than one GPU"
        than = "one GPU" if any(map(is_both, kinds)) else "with full steps only"
        return f"{self.ratio:#.2g}x faster than {than}"

    def counts(self) -> list[tuple[str, int]]:
        """How many steps are of each kind that occurs, refreshes among the full ones."""
        seen = [counts_as(step.kind) for step in self.steps]
        return [(kind, seen.count(kind)) for kind in KINDS if kind in seen]


def duration(milliseconds: float) -> str:
    """As a person says it: "8.0 ms", "1.2 s", "3 min 20 s"."""
    if milliseconds < 10:
        return f"{milliseconds:#.2g} ms"
    if milliseconds < 999.5:
        return f"{milliseconds:.0f} ms"
    if milliseconds < 99_950:
        return f"{milliseconds / 1000:.1f} s"
    minutes, seconds = divmod(round(milliseconds / 1000), 60)
    return f"{minutes} min {seconds} s"


def read(text: str) -> Curve:
    """Read a report. Raises UnreadableReport."""
    try:
        data = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        raise _unreadable(f"the text {_short(text)}") from None
    if not isinstance(data, dict) or not isinstance(data.get("mode"), str):
        raise _unreadable(f"{_short(text)} without a mode")
    rows = data.get("steps", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise _unreadable(f"steps that are {_short(rows)}, not a list of objects")
    reasons = data.get("reasons", [])
    if not isinstance(reasons, list):
        raise _unreadable(f"reasons {_short(reasons)}, not a list")
    steps, on_schedule = _steps(rows)
    short = [step.position for step in steps if is_short(step.kind)]
    total = _number(data, "total") or 0
    return Curve(
        mode=data["mode"],
        steps=steps,
        total=max(len(steps), int(total)),
        on_schedule=on_schedule,
        parallelism=(short[0] - 1, short[-1]) if short else None,
        tolerance=_number(data, "tolerance"),
        ratio=_number(data, "ratio"),
        ideal=_number(data, "ideal"),
        status=str(data.get("status", "done")),
        reasons=tuple(str(reason) for reason in reasons),
        waiting=int(_number(data, "waiting") or 0),
    )


def _steps(rows: list[dict[str, Any]]) -> tuple[tuple[Step, ...], bool]:
    """The steps, and whether each call was the next step of the schedule."""
    kinds = [row.get("kind", "exact") for row in rows]
    unknown = [kind for kind in kinds if not isinstance(kind, str) or kind not in TOLD]
    if unknown:
        raise _unreadable(f"a step of the kind {_short(unknown[0])}, not {', '.join(TOLD)}")
    counted = [row.get("step") for row in rows]
    on_schedule = counted == list(range(len(rows)))
    short = [at for at, kind in enumerate(kinds) if is_short(kind)]
    inside = range(short[0], short[-1]) if short else range(0)
    steps = tuple(
        Step(
            position=at + 1,
            kind=REFRESH if kind == "exact" and at in inside else kind,
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
        raise _unreadable(f"{name} {_short(value)}, not a number")
    return float(value) if math.isfinite(value) else None


def _unreadable(seen: str) -> UnreadableReport:
    return UnreadableReport(
        f"seen: {seen}. Expected: the report of a run, as JSON. Connect the report output of "
        "Hybrid KSampler or Hybrid KSampler (Advanced)."
    )


def _short(value: object) -> str:
    """In few words however long or deep it is."""
    return _shortening.repr(value)

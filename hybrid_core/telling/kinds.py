"""The kinds of steps as people see them, for the node and for Hybrid Curve Image: kinds.json.

A kind is one line there, in the order of legends:

letter         in a report's line of letters
mark           on the curve
dark, light    its colour on dark and on light ground
height, fill   of its cell in the strip of steps; the height is a share of a full step's
both           whether both devices work on it
short          whether it leaves something of a full step out
counts_as      the kind that it is counted with
name, says     its words in four languages

lines and stages are the plot's other colours and names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LOOKS: dict[str, Any] = json.loads(
    Path(__file__).with_suffix(".json").read_text(encoding="utf-8"),
)
KINDS: dict[str, dict[str, Any]] = LOOKS["kinds"]
REFRESH = "refresh"  # an exact step inside the shortened part: no step says it of itself
TOLD = tuple(kind for kind in KINDS if kind != REFRESH)


def is_short(kind: str) -> bool:
    return bool(KINDS[kind].get("short"))


def is_both(kind: str) -> bool:
    return bool(KINDS[kind].get("both"))


def counts_as(kind: str) -> str:
    return str(KINDS[kind].get("counts_as", kind))


def english(look: dict[str, Any]) -> str:
    return str(look["name"]["en"])

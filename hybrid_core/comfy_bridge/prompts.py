"""ComfyUI's prompts as a run has them: a list of entries for each branch, or none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

SCHEDULE = ("timestep_start", "timestep_end")  # sigmas
Entry = Mapping[str, Any]
Prompts = Iterable[Sequence[Entry] | None]


def entries(prompts: Prompts) -> Iterator[Entry]:
    """Of all prompts."""
    for branch in prompts:
        yield from branch or ()


def holds(entry: Entry, sigma: float) -> bool:
    """Whether an entry of a prompt takes part at `sigma`."""
    start, end = map(entry.get, SCHEDULE)
    return (start is None or sigma <= start) and (end is None or sigma >= end)

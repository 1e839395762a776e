"""ComfyUI's prompts as a run has them: a list of entries for each branch, or none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from hybrid_core.course.alike import same

SCHEDULE = ("timestep_start", "timestep_end")  # sigmas
NAMES = ("uuid", "model_conds")  # what an entry is called, and what is looked at by itself
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


class Content:
    """An entry as it was when it was looked at. Equal to another one that says the same.

    A guider may have several prompts, or make new ones of them, and change between two evaluations.
    """

    def __init__(self, entry: Entry):
        conds = entry.get("model_conds", {})
        self._values = {key: value for key, value in entry.items() if key not in NAMES}
        self._conds = {name: getattr(cond, "cond", cond) for name, cond in conds.items()}

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Content)
            and same(self._values, other._values)
            and same(self._conds, other._conds)
        )

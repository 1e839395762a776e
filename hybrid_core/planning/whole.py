"""Forward passes that stay whole: branches x pictures of a step over devices of unequal pace.

A step is a table, a row for each branch and a column for each picture; a device takes one rectangle
of it. All rectangles whose branches are every branch, every second one, or a single one are
searched, so the division that is found is the quickest of these, not nearly so: the least time is
one of finitely many, n forward passes of some device, and it is found by bisection over them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

Branches = tuple[int, ...]  # rows of the table, from 0
FINEST = 256  # columns; a larger batch is divided some pictures at a time


@dataclass(frozen=True)
class Pace:
    """How fast a device is, in seconds."""

    forward: float  # of one branch of one picture, its transport with it
    fixed: float = 0.0  # what taking part in a step costs, however little it does

    def seconds(self, forwards: float) -> float:
        """For so many forward passes; 0 for none."""
        return self.fixed + forwards * self.forward if forwards else 0.0

    def forwards(self, seconds: float) -> int:
        """How many are done by then."""
        return max(0, int((seconds - self.fixed) / self.forward * (1 + 1e-9)))


@dataclass(frozen=True)
class Rectangle:
    """Some pictures of some branches."""

    branches: Branches
    first: int
    end: int  # one past the last picture

    @property
    def forwards(self) -> int:
        return len(self.branches) * (self.end - self.first)

    def finer(self, grain: int, pictures: int) -> Rectangle:
        """The same where each column was `grain` of these pictures, the last one what is left."""
        return Rectangle(self.branches, self.first * grain, min(self.end * grain, pictures))


Division = tuple[Rectangle | None, ...]  # one a device; None: it is left out


@lru_cache(maxsize=256)
def divided(paces: tuple[Pace, ...], branches: int, pictures: int) -> Division:
    """The quickest division of a step; where several are, the earlier devices do more.

    Among equally quick ones a device takes whole branches sooner than pictures of all branches.
    """
    grain = -(-pictures // FINEST)
    if grain > 1:
        coarse = divided(paces, branches, -(-pictures // grain))
        return tuple(part and part.finer(grain, pictures) for part in coarse)
    total = branches * pictures
    times = sorted({pace.seconds(n) for pace in paces for n in range(1, total + 1)})
    low, high = 0, len(times) - 1  # the last one is always enough
    while low < high:
        middle = (low + high) // 2
        if _within(paces, branches, pictures, times[middle]) is None:
            low = middle + 1
        else:
            high = middle
    found = _within(paces, branches, pictures, times[low])
    assert found is not None
    return found


def makespan(paces: Sequence[Pace], division: Division) -> float:
    """Seconds until the last device is done."""
    return max(
        pace.seconds(part.forwards)
        for pace, part in zip(paces, division, strict=True)
        if part is not None
    )


def families(branches: int) -> list[Branches]:
    """Rows that a device may take, in order of preference: halves, single ones, all of them."""
    every = tuple(range(branches))
    halves = [every[::2], every[1::2]] if branches > 2 else []
    singles = [(row,) for row in every] if branches > 1 else []
    found: list[Branches] = []
    for rows in (*halves, *singles, every):
        if rows not in found:
            found.append(rows)
    return found


def _within(paces: Sequence[Pace], branches: int, pictures: int, seconds: float) -> Division | None:
    """A division that takes `seconds` at most, None where there is none."""
    most = [pace.forwards(seconds) for pace in paces]
    after = [sum(most[i:]) for i in range(len(most) + 1)]
    sets, hopeless = families(branches), set[tuple[int, tuple[int, ...]]]()

    def chosen(device: int, left: tuple[int, ...]) -> list[tuple[Branches, int]] | None:
        """Rows and a number of pictures for this and the next devices; left: pictures a row."""
        if not any(left):
            return []
        if device == len(most) or sum(left) > after[device] or (device, left) in hopeless:
            return None
        for rows in sets:
            count = min(most[device] // len(rows), max(left[row] for row in rows))
            if count:
                rest = (max(0, n - count) if row in rows else n for row, n in enumerate(left))
                others = chosen(device + 1, tuple(rest))
                if others is not None:
                    return [(rows, count), *others]
        if not most[device]:
            others = chosen(device + 1, left)
            if others is not None:
                return [((), 0), *others]
        hopeless.add((device, left))
        return None

    taken = chosen(0, (pictures,) * branches)
    if taken is None:
        return None
    taken += [((), 0)] * (len(most) - len(taken))
    return _laid_out(taken, branches, pictures)


def _laid_out(taken: list[tuple[Branches, int]], branches: int, pictures: int) -> Division:
    """Rectangles of these sizes side by side: those of more rows first, so that rows are level."""
    upto = [0] * branches
    places: list[Rectangle | None] = [None] * len(taken)
    for device in sorted(range(len(taken)), key=lambda device: -len(taken[device][0])):
        rows, count = taken[device]
        first = max((upto[row] for row in rows), default=0)
        end = min(first + count, pictures)
        if first < end:
            places[device] = Rectangle(rows, first, end)
            for row in rows:
                upto[row] = end
    return tuple(places)

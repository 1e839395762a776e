"""The quickest way to divide one step: whole forward passes, tokens, or both.

whole     each device some whole forward passes (`whole.divided`)
tokens    every forward pass over all devices, one after the other (`tokens.shared`)
groups    each branch to a group of devices, its tokens divided among them
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hybrid_core.planning import tokens, whole
from hybrid_core.planning.tokens import Gather, Member


@dataclass(frozen=True)
class Load:
    """What a step evaluates."""

    branches: int
    pictures: int
    gather: Gather | None = None  # None: tokens of this network are not divided


@dataclass(frozen=True)
class Found:
    """A way to divide a step."""

    kind: str  # alone, whole, tokens or groups
    seconds: float
    shares: tuple[float, ...]  # each device's of the step's forward passes


def alone(member: Member, load: Load) -> float:
    """Seconds of the step on one device."""
    return load.branches * load.pictures * member.pace.forward


def quickest(members: Sequence[Member], load: Load) -> Found:
    """Of everything that can be done, the first member alone included. Its fixed cost is none."""
    ways = [Found("alone", alone(members[0], load), (1.0,) + (0.0,) * (len(members) - 1))]
    ways.append(_whole(members, load))
    if load.gather is not None and len(members) > 1:
        ways.append(_tokens(members, load))
        if load.branches > 1:
            ways += [_groups(members, load, groups) for groups in _grouped(members, load.branches)]
    return min(ways, key=lambda way: way.seconds * (1 + 1e-9 * ways.index(way)))


def _whole(members: Sequence[Member], load: Load) -> Found:
    paces = tuple(member.pace for member in members)
    division = whole.divided(paces, load.branches, load.pictures)
    total = load.branches * load.pictures
    shares = tuple(0.0 if part is None else part.forwards / total for part in division)
    return Found("whole", whole.makespan(paces, division), shares)


def _tokens(members: Sequence[Member], load: Load) -> Found:
    assert load.gather is not None
    counts = tokens.shared(members, load.gather)
    seconds = tokens.slowest(members, counts, load.gather)
    shares = tuple(count / load.gather.tokens for count in counts)
    return Found("tokens", seconds * load.branches * load.pictures, shares)


def _groups(members: Sequence[Member], load: Load, groups: Sequence[Sequence[int]]) -> Found:
    """Each branch's pictures, one after the other, by one group."""
    assert load.gather is not None
    shares, seconds = [0.0] * len(members), 0.0
    for group in groups:
        some = [members[place] for place in group]
        counts = tokens.shared(some, load.gather)
        seconds = max(seconds, load.pictures * tokens.slowest(some, counts, load.gather))
        for place, count in zip(group, counts, strict=True):
            shares[place] = count / load.gather.tokens / load.branches
    return Found("groups", seconds, tuple(shares))


def _grouped(members: Sequence[Member], count: int) -> Iterator[list[list[int]]]:
    """Members in `count` groups, none empty; one of those that differ by equal members only."""
    seen: set[tuple[str, ...]] = set()

    def placed(place: int, groups: list[list[int]]) -> Iterator[list[list[int]]]:
        if place == len(members):
            kinds = [str(sorted(repr(members[i]) for i in group)) for group in groups]
            kind = tuple(sorted(kinds))
            if all(groups) and kind not in seen:
                seen.add(kind)
                yield [list(group) for group in groups]
            return
        for group in groups:
            group.append(place)
            yield from placed(place + 1, groups)
            group.pop()
            if not group:
                break  # the other empty groups are like this one

    yield from placed(0, [[] for _ in range(count)])

"""Who evaluates which part: the plan of a step, a share for each device that takes part.

This process's own share comes first. Plans are made of numbers; nothing is evaluated here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from hybrid_core.planning import tokens, whole
from hybrid_core.planning.whole import Pace, Rectangle
from hybrid_core.stages.token_streams import WHOLE
from hybrid_core.workers.contract import Part, Pictures, Tokens

HERE = -1  # this process; workers are numbered from 0


@dataclass(frozen=True)
class Share:
    """What one device does."""

    device: int
    part: Part
    early: bool = False  # of the step to come: taken in by then, not now
    compared: bool = False  # what this process does itself too, to see that both are equal


Plan = list[Share]


def alone(branches: Sequence[int]) -> Plan:
    """Everything here, in one go: what the framework does by itself."""
    return [Share(HERE, Part(tuple(branches)))]


def divided(
    branches: Sequence[int],
    paces: Mapping[int, Pace],
    pictures: int = 1,
    turned: bool = False,
    keep: int | None = None,
) -> Plan:
    """The quickest division of whole forward passes over this process and others.

    paces: of the others, this process's forward pass takes 1. pictures: 1 keeps the batch together.
    turned: of two shares, each gets the other's. keep: the unit whose output is wanted of the
    second of two shares.
    """
    own, theirs = Pace(1.0), tuple(paces.values())
    found = whole.divided((own, *theirs), len(branches), pictures)
    if found[0] is None:  # slower than the others together, but the result is wanted here
        seconds = whole.makespan((own, *theirs), found)
        found = whole.divided((Pace(seconds), *theirs), len(branches), pictures)
    plan = [
        Share(device, _part(branches, part, pictures))
        for device, part in zip((HERE, *paces), found, strict=True)
        if part is not None
    ]
    if len(plan) == 2:
        parts = [share.part for share in plan]
        own_part, other = reversed(parts) if turned else parts
        plan = [Share(HERE, own_part), Share(plan[1].device, replace(other, keep=keep))]
    return plan


def _part(branches: Sequence[int], part: Rectangle, pictures: int) -> Part:
    some = None
    if part.end - part.first < pictures:
        some = Pictures(part.first, part.end, pictures)
    return Part(tuple(branches[row] for row in part.branches), pictures=some)


def halves(branches: Sequence[int], batch: int) -> Plan:
    """Everything here, half of the batch at a time; batch: 2 pictures or more."""
    middle = math.ceil(batch / 2)
    return [
        Share(HERE, Part(tuple(branches), pictures=Pictures(*ends, batch)))
        for ends in ((0, middle), (middle, batch))
    ]


def compared(plan: Plan, devices: Iterable[int]) -> Plan:
    """`plan`, and what this process does of it by `devices` too: of pictures, a whole branch."""
    own, *others = plan
    part = own.part
    if part.pictures is not None:
        part = Part(part.branches[:1])
    return [own, *(Share(device, part, compared=True) for device in devices), *others]


def in_pictures(plan: Plan) -> bool:
    """Whether some share is a part of the batch."""
    return any(share.part.pictures is not None for share in plan)


def bounds(paces: Sequence[Pace]) -> tuple[int, ...]:
    """Of tokens, in proportion to speed, in thousandths: one at least for each device.

    paces: of every device, this process's first.
    """
    found, upto = [0], 0.0
    for after, share in enumerate(tokens.by_pace(paces)[:-1], 1):
        upto += share * WHOLE
        found.append(min(max(round(upto), found[-1] + 1), WHOLE - len(paces) + after))
    return (*found, WHOLE)


def by_tokens(branches: Sequence[int], paces: Mapping[int, Pace]) -> Plan:
    """A group of devices for each branch, whose tokens it divides; this process heads the first.

        0  branch 0, place 0      1  branch 1, place 0
        2  branch 0, place 1      3  branch 1, place 1

    paces: as in `divided`; devices beyond whole groups are left out. All groups have the same
    shares, as if each place were as slow as its slowest device.
    """
    known, count = {HERE: Pace(1.0), **paces}, len(branches)
    rows = list(zip(*[iter(known)] * count, strict=False))  # the devices of each place
    upto = bounds(
        [max((known[device] for device in row), key=lambda pace: pace.forward) for row in rows]
    )
    relayed = len(rows) * count > 2
    return [
        Share(device, Part((branch,), tokens=Tokens(place, upto, relayed)))
        for place, row in enumerate(rows)
        for branch, device in zip(branches, row, strict=True)
    ]


def seconds(plan: Plan, paces: Mapping[int, Pace]) -> float:
    """Until the last one is done, links left out; this process's forward pass takes 1."""
    return max(
        share.part.forwards * (1.0 if share.device == HERE else paces[share.device].forward)
        for share in plan
    )


def to_record(branches: Sequence[int], devices: Iterable[int]) -> Plan:
    """Everything here and the first branch on each of the devices too: compared, and looked at so
    that its tokens can be divided.
    """
    own = Share(HERE, Part(tuple(branches), recorded=True))
    part = Part(tuple(branches[:1]), recorded=True)
    return [own, *(Share(device, part, compared=True) for device in devices)]


def in_stages(branch: int, ahead: int | None, device: int, last: int) -> Plan:
    """Stage B of `branch` here, and stage A, up to unit `last`, of the next step's `ahead`."""
    own = Share(HERE, Part((branch,)))
    if ahead is None:
        return [own]
    return [own, Share(device, Part((ahead,), upto=last), early=True)]

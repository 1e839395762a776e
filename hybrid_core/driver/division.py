"""Who evaluates which part: the plan of a step, a share for each device that takes part.

This process's own share comes first. Plans are made of numbers; nothing is evaluated here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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


def by_branch(
    branches: Sequence[int], device: int, turned: bool = False, keep: int | None = None
) -> Plan:
    """Every second branch to `device`, with turned the others.

    keep: the unit whose output is wanted of the device's share.
    """
    own, others = tuple(branches[::2]), tuple(branches[1::2])
    if not others:
        return alone(branches)
    if turned:
        own, others = others, own
    return [Share(HERE, Part(own)), Share(device, Part(others, keep=keep))]


def to_compare(branches: Sequence[int], device: int, turned: bool = False) -> Plan:
    """Everything here, a branch at a time, and the first one by `device` too."""
    own, *others = by_branch(branches, HERE, turned)
    return [own, Share(device, own.part, compared=True), *others]


def pictures_pay(branches: int, batch: int) -> bool:
    """Whether the larger share of a division by picture is less than that of one by branch."""
    return branches * math.ceil(batch / 2) < math.ceil(branches / 2) * batch


def by_picture(branches: Sequence[int], device: int, batch: int) -> Plan:
    """The second half of the batch to `device`, every branch of it; batch: 2 pictures or more."""
    middle = math.ceil(batch / 2)
    own, others = Pictures(0, middle, batch), Pictures(middle, batch, batch)
    return [
        Share(HERE, Part(tuple(branches), pictures=own)),
        Share(device, Part(tuple(branches), pictures=others)),
    ]


def to_compare_pictures(branches: Sequence[int], device: int, batch: int) -> Plan:
    """Everything here, half of the batch at a time, and a branch of the whole by `device` too."""
    own, others = by_picture(branches, HERE, batch)
    return [own, Share(device, Part(tuple(branches[:1])), compared=True), others]


def by_tokens(branch: int, device: int, bounds: tuple[int, ...]) -> Plan:
    """One branch, of each forward pass some tokens here and the others on `device`."""
    return [
        Share(HERE, Part((branch,), tokens=Tokens(0, bounds))),
        Share(device, Part((branch,), tokens=Tokens(1, bounds))),
    ]


def to_record(branch: int, device: int) -> Plan:
    """One branch in full on both: compared, and looked at so that its tokens can be divided."""
    part = Part((branch,), recorded=True)
    return [Share(HERE, part), Share(device, part, compared=True)]


def in_stages(branch: int, ahead: int | None, device: int, last: int) -> Plan:
    """Stage B of `branch` here, and stage A, up to unit `last`, of the next step's `ahead`."""
    own = Share(HERE, Part((branch,)))
    if ahead is None:
        return [own]
    return [own, Share(device, Part((ahead,), upto=last), early=True)]

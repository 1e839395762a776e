"""Where a network is cut: numbers in, a cut out.

The units of a network are its blocks in the order in which they run. Stage A evaluates every unit
up to the cut's last one, on the second device; stage B the units before `first` once more and
those after `last`. For a plain chain `first` is 0. Where later units take skips of earlier ones,
first..last holds both ends of every skip that starts in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

GAIN_WORTH_A_CHANGE = 0.1
SAME_SPEED = 1.25  # devices that are closer than this are taken for equal: clocks are noisy


@dataclass(frozen=True)
class Cut:
    """The units first..last, both included, are the ones that stage B does without."""

    first: int
    last: int


def chain(count: int) -> list[Cut]:
    """Cuts of units that hand one state on: a DiT."""
    return [Cut(0, last) for last in range(count - 1)]


def mirrored(count: int) -> list[Cut]:
    """Cuts of a chain whose unit i hands a skip to unit count - 1 - i: HunyuanDiT."""
    return [Cut(first, count - 1 - first) for first in range(1, count // 2)]


def u_shaped(down: Sequence[int], middle: int, up: Sequence[int]) -> list[Cut]:
    """Cuts of a U-Net from the number of units in each block.

    Block `up[j]` takes the skip of block `down[len(down) - 1 - j]`, so an interval that starts with
    block `down[i]` ends within block `up[len(down) - 1 - i]`.
    """
    starts = [sum(down[:i]) for i in range(len(down))]
    ups = [sum(down) + middle + sum(up[:j]) for j in range(len(up))]
    total = sum(down) + middle + sum(up)
    return [
        Cut(starts[i], last)
        for i in range(1, len(down))
        for last in range(ups[len(down) - 1 - i], ups[len(down) - 1 - i] + up[len(down) - 1 - i])
        if last < total - 1
    ]


def stage_costs(cut: Cut, costs: Sequence[float]) -> tuple[float, float]:
    """Cost of stage A and of stage B, in the unit of `costs`."""
    return sum(costs[: cut.last + 1]), sum(costs[: cut.first]) + sum(costs[cut.last + 1 :])


def slower(cut: Cut, costs: Sequence[float], worker_speed: float = 1.0) -> float:
    """What a pipelined step costs; the worker is `worker_speed` times as fast as the parent."""
    a, b = stage_costs(cut, costs)
    return max(a / worker_speed, b)


def balanced(cuts: Sequence[Cut], costs: Sequence[float], worker_speed: float = 1.0) -> Cut:
    """The cut whose slower stage is the fastest."""
    return min(cuts, key=lambda cut: slower(cut, costs, worker_speed))


def rebalanced(
    cuts: Sequence[Cut], planned: Cut, seconds: Sequence[float], worker_speed: float
) -> Cut:
    """`planned`, or the best cut by measured times where that one is clearly faster.

    A cut changes an image in its last digits. One that followed every change of the clock would
    make the same workflow give another image each time.
    """
    if 1 / SAME_SPEED <= worker_speed <= SAME_SPEED:
        worker_speed = 1.0
    best = balanced(cuts, seconds, worker_speed)
    gain = slower(planned, seconds, worker_speed) / slower(best, seconds, worker_speed) - 1
    return best if gain > GAIN_WORTH_A_CHANGE else planned

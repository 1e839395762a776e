"""One forward pass whose tokens are divided over devices that gather each other's keys and values.

A device with the share f of the tokens computes f of the forward pass, sends its share of the keys
and values once and takes in the others'. Nothing is taken to overlap, so

    seconds = fixed + rounds * latency + f * forward + bytes * max(f, 1 - f) / rate

and the shares that make the slowest device's time least are a linear programme: minimise T under
both arms of the maximum for each device, shares that add up to 1 and are not negative. It is solved
by scipy, which is among ComfyUI's requirements; where there is none, shares follow the paces alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from hybrid_core.planning.whole import Pace


@dataclass(frozen=True)
class Link:
    """How a device exchanges with the others."""

    latency: float = 0.0  # seconds of one exchange, however small
    rate: float = inf  # bytes a second, each way

    def __str__(self) -> str:
        return f"{self.latency * 1e6:.0f} us and {self.rate / 1e9:.3g} GB/s"


@dataclass(frozen=True)
class Gather:
    """What one forward pass of a whole picture gathers."""

    size: float  # bytes of the keys and values of all its blocks
    rounds: int  # exchanges, one a block
    tokens: int  # of the picture: shares are whole tokens


@dataclass(frozen=True)
class Member:
    """A device that may take part."""

    pace: Pace
    link: Link

    def seconds(self, share: float, gather: Gather) -> float:
        """For this share of a forward pass; 0 for none, no gathering for all of it."""
        if share == 0:
            return 0.0
        seconds = self.pace.seconds(share)
        if share == 1:
            return seconds
        carried = gather.size * max(share, 1 - share) / self.link.rate
        return seconds + gather.rounds * self.link.latency + carried


def shared(members: Sequence[Member], gather: Gather) -> list[int]:
    """Whole tokens for each member: the least time that is found. Slow ones are left out.

    Tried are each member alone and all of them, then always without the one whose absence brings
    most.
    """
    taking = list(range(len(members)))
    least, best = min(_of_some(members, some, gather) for some in ([one] for one in taking))
    if len(taking) > 1:
        least, best = min((least, best), _of_some(members, taking, gather))
    while len(taking) > 2:
        without = [[member for member in taking if member != out] for out in taking]
        found = min((_of_some(members, some, gather), some) for some in without)
        (seconds, counts), taking = found
        if seconds < least:
            least, best = seconds, counts
    return best


def slowest(members: Sequence[Member], counts: Sequence[int], gather: Gather) -> float:
    """Seconds until the last member is done."""
    return max(
        member.seconds(count / gather.tokens, gather)
        for member, count in zip(members, counts, strict=True)
    )


def _of_some(
    members: Sequence[Member], taking: Sequence[int], gather: Gather
) -> tuple[float, list[int]]:
    """Seconds and tokens where exactly these take part, or fewer where a share comes out as 0."""
    shares = _least([members[place] for place in taking], gather)
    counts = [0] * len(members)
    for place, count in zip(taking, _whole(shares, gather.tokens), strict=True):
        counts[place] = count
    return slowest(members, counts, gather), counts


def _least(members: Sequence[Member], gather: Gather) -> list[float]:
    if len(members) == 1:
        return [1.0]
    try:
        from scipy.optimize import linprog  # 0.3 s, only where tokens are planned
    except ImportError:
        return by_pace([member.pace for member in members])
    rows, limits = [], []
    for place, member in enumerate(members):
        carried = gather.size / member.link.rate
        fixed = member.pace.fixed + gather.rounds * member.link.latency
        sending = member.pace.forward + carried, fixed
        taking = member.pace.forward - carried, fixed + carried
        for slope, at_none in (sending, taking):  # slope * f - T <= -at_none
            rows.append([slope if i == place else 0.0 for i in range(len(members))] + [-1.0])
            limits.append(-at_none)
    count = len(members)
    found = linprog(
        [0.0] * count + [1.0],
        A_ub=rows,
        b_ub=limits,
        A_eq=[[1.0] * count + [0.0]],
        b_eq=[1.0],
        bounds=[(0.0, 1.0)] * count + [(None, None)],
    )
    if not found.success:
        return by_pace([member.pace for member in members])
    return [float(share) for share in found.x[:count]]


def by_pace(paces: Sequence[Pace]) -> list[float]:
    """Shares in proportion to how fast the devices are, links left out."""
    speeds = [1 / pace.forward for pace in paces]
    return [speed / sum(speeds) for speed in speeds]


def _whole(shares: Sequence[float], tokens: int) -> list[int]:
    """Whole tokens that add up: rounded down, what is left to the largest remainders."""
    counts = [int(share * tokens) for share in shares]
    by_rest = sorted(range(len(shares)), key=lambda i: counts[i] - shares[i] * tokens)
    for place in by_rest[: tokens - sum(counts)]:
        counts[place] += 1
    return counts

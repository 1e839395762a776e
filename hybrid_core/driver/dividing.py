"""Which plan an evaluation in full has: the quickest, of what was seen to be evaluated alike."""

from __future__ import annotations

from collections.abc import Iterable

from hybrid_core.driver import division
from hybrid_core.driver.call import Call
from hybrid_core.driver.crew import INSEPARABLE, Crew
from hybrid_core.driver.division import HERE, Plan
from hybrid_core.driver.execution import Taking
from hybrid_core.driver.tokens import TokenSharing, form_of
from hybrid_core.planning.whole import Pace
from hybrid_core.telling.report import Report

EQUAL = Pace(1.0)


def worth_asking(branches: int, batch: int, other_ways: bool) -> bool:
    """Whether a worker has something to do in such an evaluation.

    other_ways: stages or tokens can be divided.
    """
    return branches > 1 or batch > 1 or other_ways


def of_use(branches: int, batch: int, pipelined: bool, by_tokens: bool, workers: int) -> int:
    """How many of so many workers have something to do: a pipeline has one, and whole batches.

    by_tokens: tokens can be divided. workers: of this machine.
    """
    if pipelined:
        return 1
    if by_tokens and batch == 1 and (branches == 1 or workers + 1 >= 2 * branches):
        return max(1, workers)
    return max(1, branches * batch - 1)


def in_full(
    call: Call,
    taking: Taking,
    crew: Crew,
    report: Report,
    keep: int | None,
    tokens: TokenSharing | None,
) -> Plan:
    """The plan of a step that is not shortened; keep: as in `division.divided`.

    A device takes part after it has evaluated a branch beside this process and came out equal;
    a batch is divided after a batch in parts came out equal to a whole one.
    """
    branches, ready, shape = call.branches, taking.leases, call.x.shape
    if not taking.apart:
        return division.alone(branches)
    in_parts = _in_parts(call, taking, crew, report)
    if in_parts is not None:
        return in_parts
    if taking.pipeline is None and tokens is not None:
        by_tokens = _in_tokens(call, taking, crew, report)
        if by_tokens is not None:
            return by_tokens
    if len(branches) == 1 and taking.pipeline is None:
        return division.alone(branches)
    turned = taking.pipeline is not None and taking.pipeline.turned(call)
    seen = {device for device, lease in ready.items() if lease.likeness.seen(shape)}
    plan = division.divided(branches, _paces(crew, seen), turned=turned, keep=keep)
    return division.compared(plan, ready.keys() - seen)


def _in_parts(call: Call, taking: Taking, crew: Crew, report: Report) -> Plan | None:
    """The batch divided; None where that does not pay or may not be."""
    branches, ready, shape = call.branches, taking.leases, call.x.shape
    if taking.pipeline is not None or call.pictures == 1:
        return None
    plan = division.divided(branches, _paces(crew, ready), call.pictures)
    if not division.in_pictures(plan):
        return None
    known = [lease.likeness for lease in crew.leases]
    if not all(likeness.separable(shape) for likeness in known):
        report.note(INSEPARABLE)
        return None
    if not any(likeness.seen(shape, by_picture=True) for likeness in known):
        if not ready:
            return None  # whole until that is seen
        return division.compared(division.halves(branches, call.pictures), ready)
    seen = {
        device
        for device, lease in ready.items()
        if any(lease.likeness.seen(shape, by_picture) for by_picture in (False, True))
    }
    if seen != ready.keys():
        plan = division.divided(branches, _paces(crew, seen), call.pictures)
    return division.compared(plan, ready.keys() - seen)


def _in_tokens(call: Call, taking: Taking, crew: Crew, report: Report) -> Plan | None:
    """Each branch by a group of devices; None where that may not be or does not pay.

    As many devices as are ready, and where that does not pay, two for each branch.
    """
    branches = call.branches
    ready = {d: lease for d, lease in taking.leases.items() if not lease.worker.device.remote}
    fewest = 2 * len(branches) - 1  # workers
    if len(ready) < fewest or (branches[1:] and not (call.even and call.pictures == 1)):
        return None
    paces = _paces(crew, ready)
    otherwise = division.seconds(division.divided(branches, paces), paces)
    for count in sorted({len(ready), fewest}, reverse=True):
        plan = division.by_tokens(branches, dict(list(paces.items())[:count]))
        if division.seconds(plan, paces) >= otherwise:
            continue
        known = [ready[share.device].likeness for share in plan[1:]]
        form = form_of(call, plan)
        obstacle = next(filter(None, (likeness.undivided(form) for likeness in known)), None)
        if obstacle is not None:
            report.note(obstacle)
        elif all(likeness.divides(form) for likeness in known):
            return plan
        else:
            return division.to_record(branches, [share.device for share in plan[1:]])
    return None


def _paces(crew: Crew, devices: Iterable[int]) -> dict[int, Pace]:
    """Of those that take part; without any, everything is here, in parts as for two."""
    return {device: crew.pace(device) for device in sorted(devices)} or {HERE: EQUAL}

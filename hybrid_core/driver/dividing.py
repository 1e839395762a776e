"""Which plan an evaluation in full has: the quickest, of what was seen to be evaluated alike."""

from __future__ import annotations

from collections.abc import Iterable

from hybrid_core.driver import division
from hybrid_core.driver.call import Call
from hybrid_core.driver.crew import INSEPARABLE, Crew
from hybrid_core.driver.division import HERE, Plan
from hybrid_core.driver.execution import Taking
from hybrid_core.driver.tokens import TokenSharing
from hybrid_core.planning.whole import Pace
from hybrid_core.telling.report import Report

EQUAL = Pace(1.0)


def worth_asking(branches: int, batch: int, other_ways: bool) -> bool:
    """Whether a worker has something to do in such an evaluation.

    other_ways: stages or tokens can be divided.
    """
    return branches > 1 or batch > 1 or other_ways


def of_use(branches: int, batch: int, pipelined: bool) -> int:
    """How many workers have something to do: a pipeline has one, and whole batches."""
    return 1 if pipelined else max(1, branches * batch - 1)


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
    if len(branches) == 1 and taking.pipeline is None:
        return (
            division.alone(branches) if tokens is None else _in_tokens(call, taking, crew, report)
        )
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


def _in_tokens(call: Call, taking: Taking, crew: Crew, report: Report) -> Plan:
    """One branch by this process and the first of the workers, where that is possible and pays."""
    here = (item for item in taking.leases.items() if not item[1].worker.device.remote)
    first = next(here, None)
    if first is None:
        return division.alone(call.branches)
    (device, lease), (branch,) = first, call.branches
    obstacle = lease.likeness.undivided(call.form)
    if obstacle is not None:
        report.note(obstacle)
        return division.alone(call.branches)
    if not lease.likeness.divides(call.form):
        return division.to_record(branch, device)
    return division.by_tokens(branch, {device: crew.pace(device)})


def _paces(crew: Crew, devices: Iterable[int]) -> dict[int, Pace]:
    """Of those that take part; without any, everything is here, in parts as for two."""
    return {device: crew.pace(device) for device in sorted(devices)} or {HERE: EQUAL}

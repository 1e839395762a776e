"""The workers of one run: who is ready, how fast each is, who has left."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence

from hybrid_core.config import WorkerDevice
from hybrid_core.planning.whole import Pace
from hybrid_core.stages.plan import SAME_SPEED
from hybrid_core.telling.report import Report
from hybrid_core.workers.holdings import PACES_KEPT, Holdings
from hybrid_core.workers.lease import Lease

INSEPARABLE = "this network's pictures of one batch depend on each other"
ENOUGH = 3  # measured steps, before they count more than a card's own figures
CALM = 1.4  # processor cores are taken for equally fast up to this
SLOWEST_CORES = 1.95  # cores are never left out: what slows them down passes
GRAIN = 1.1  # paces are rounded to its powers, so that plans do not follow every flutter


class Crew:
    """Leases by the number of their device; those that are of most use first."""

    def __init__(self, leases: Sequence[Lease] = ()):
        self.leases = tuple(leases)
        for lease in leases:
            lease.has_company = len(leases) > 1

    @property
    def gone(self) -> bool:
        """Whether the rest of the run is this process's alone."""
        return all(lease.gone for lease in self.leases)

    @property
    def near(self) -> int:
        """How many are in this machine."""
        return sum(not lease.worker.device.remote for lease in self.leases)

    def apart(self, report: Report) -> bool:
        """Whether this process evaluates as the workers would: then a run's numbers are the same,
        bit for bit, whether a worker took part from the first step, from a later one, or died on
        the way. A run that has given up before it shared anything is the framework's own.
        """
        return bool(self.leases) and (not self.gone or report.shared > 0)

    def there(self, most: int) -> dict[int, Lease]:
        """Those that have not left, the first `most` of them."""
        left = [device for device, lease in enumerate(self.leases) if not lease.gone]
        return {device: self.leases[device] for device in left[:most]}

    def prepare(self, most: int) -> None:
        """Start what takes time, of as many as are of use."""
        for lease in self.there(most).values():
            lease.prepare()

    def ready(self, most: int, wait_seconds: float = 0.0) -> dict[int, Lease]:
        """Those that take part now, moving on the others' start; waiting is for the first."""
        deadline = time.monotonic() + wait_seconds
        found: dict[int, Lease] = {}
        for device, lease in enumerate(self.leases):  # one may leave meanwhile
            if len(found) < most and device in self.there(most):
                wait = 0.0 if found else max(0.0, deadline - time.monotonic())
                if lease.ready(wait):
                    found[device] = lease
        return found

    def give_up(self, error: Exception) -> None:
        for lease in self.leases:
            if not lease.gone:
                lease.give_up(error)

    def cancel(self) -> None:
        for lease in self.leases:
            lease.cancel()

    def check_unchanged(self) -> None:
        for lease in self.leases:
            lease.check_unchanged()

    def keep_together(self, shape: Sequence[int], report: Report) -> None:
        """Batches like this one are not divided any more."""
        for lease in self.leases:
            lease.likeness.keep_together(shape)
        report.note(INSEPARABLE)

    def pace(self, device: int) -> Pace:
        return Pace(pace(self.leases[device].holdings))


def pace(holdings: Holdings) -> float:
    """Seconds of a forward pass there, this process's are 1: measured, by the card's figures first.

    A card of the same kind counts as equal, whatever the clock says; processor cores, which have no
    figures, unless every recent step says otherwise.
    """
    device, known = holdings.worker.device, holdings.paces
    if equal_card(device):
        return 1.0
    if device.differs is None and device.pace == 1.0:
        if len(known) < PACES_KEPT or min(known) <= CALM and max(known) >= 1 / CALM:
            return 1.0
        measured = min(min(known), SLOWEST_CORES) if min(known) > CALM else max(known)
    elif len(known) < ENOUGH:
        measured = device.pace
    else:
        measured = statistics.median(known)
    return float(GRAIN ** round(math.log(measured, GRAIN)))


def equal_card(device: WorkerDevice) -> bool:
    """Whether it is a GPU of the parent's kind, by name, capability, cores and clock."""
    alike = device.uuid is not None and device.differs is None
    return alike and 1 / SAME_SPEED <= device.pace <= SAME_SPEED

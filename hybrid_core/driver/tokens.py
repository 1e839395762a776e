"""The tokens of one run's forward passes, divided with a worker: whether, how, and what it brings."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from torch import nn

from hybrid_core.driver.call import Call
from hybrid_core.errors import NotSplittable
from hybrid_core.stages.plan import SAME_SPEED
from hybrid_core.stages.token_streams import WHOLE
from hybrid_core.stages.tokens import Plans, TokenDivider
from hybrid_core.telling.report import StepRecord
from hybrid_core.workers.contract import Tokens
from hybrid_core.workers.lease import Lease

log = logging.getLogger("hybrid_ksampler")
TRIES = 2  # steps that do not pay before the run goes on alone
STEPS_OF_BOUNDS = 50  # thousandths


@dataclass(frozen=True)
class Times:
    """Seconds of one divided evaluation."""

    own: float  # this process's computing
    worker: float
    gathered: float  # in exchanges here, waiting for the worker included
    waited: float  # for the worker after that

    @property
    def whole(self) -> float:
        return self.own + self.gathered + self.waited


class TokenSharing:
    """Of one run; what is found out is kept in the lease's holdings for the next ones."""

    def __init__(self, possible: bool):
        """possible: whether the network is made of blocks that hand tokens on."""
        self.possible = possible
        self._divider: TokenDivider | None = None
        self._alone: float | None = None  # seconds of an evaluation by this device
        self._unpaid = 0  # divided evaluations that took longer than that

    def obstacle(self, lease: Lease, call: Call) -> str | None:
        """Why these tokens stay together, as far as is known."""
        return lease.likeness.undivided(call.form)

    def bounds(self, lease: Lease) -> tuple[int, ...]:
        return lease.holdings.bounds

    def divider(self, lease: Lease, call: Call) -> TokenDivider:
        """Raises NotSplittable."""
        if self._divider is None:
            plans = lease.holdings.plans.setdefault(call.network, Plans())
            self._divider = TokenDivider(call.network, plans, call.attention)
        return self._divider

    def took_alone(self, seconds: float) -> None:
        """An evaluation in full by this process."""
        self._alone = seconds if self._alone is None else min(self._alone, seconds)

    def learn(self, lease: Lease, call: Call, tokens: Tokens, times: Times) -> None:
        """After a divided evaluation: whether it pays, and who gets how much from now on."""
        alone = times.own / max(tokens.share, 1e-6)
        alone = alone if self._alone is None else min(alone, self._alone)
        self._unpaid = self._unpaid + 1 if times.whole > alone else 0
        if self._unpaid >= TRIES:
            lease.likeness.keep_tokens_together(
                call.form,
                f"dividing this picture's tokens does not pay here: {times.whole * 1000:.0f} ms a "
                f"step, {times.gathered * 1000:.0f} ms of it in exchanges, and about "
                f"{alone * 1000:.0f} ms on one device",
            )
        lease.holdings.bounds = fair(tokens.bounds, times.own, times.worker)

    @staticmethod
    def foretell(plans: Plans, seconds: float, bytes_each_way: int, exchanges: int) -> None:
        """Before the first divided evaluation, what may be expected."""
        log.info(
            "tokens can be divided: %d exchanges a forward pass, %.1f MiB each way; %.0f ms on one "
            "device are %.0f ms and the exchanges on two",
            exchanges,
            bytes_each_way / 2**20,
            seconds * 1000,
            seconds * 500,
        )


def fair(bounds: tuple[int, ...], own: float, worker: float) -> tuple[int, ...]:
    """In proportion to speed, where two devices' times differ clearly."""
    if min(own, worker) <= 0 or max(own, worker) < SAME_SPEED * min(own, worker):
        return bounds
    speed, theirs = bounds[1] / own, (WHOLE - bounds[1]) / worker
    middle = round(speed / (speed + theirs) * WHOLE / STEPS_OF_BOUNDS) * STEPS_OF_BOUNDS
    return 0, min(max(middle, STEPS_OF_BOUNDS), WHOLE - STEPS_OF_BOUNDS), WHOLE


def divisible(network: nn.Module) -> bool:
    """Whether its blocks hand tokens on, as far as that can be told without trying."""
    from hybrid_core.stages.units import blocks

    try:
        return bool(blocks(network))
    except NotSplittable:
        return False


_ = StepRecord

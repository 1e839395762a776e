"""The tokens of one run's forward passes, divided with a worker: whether, how, what it brings."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from itertools import pairwise

from torch import nn

from hybrid_core.course.steps import Step
from hybrid_core.driver import division
from hybrid_core.driver.call import Call
from hybrid_core.driver.crew import Crew
from hybrid_core.driver.division import HERE, Plan
from hybrid_core.driver.execution import Execution, Outputs, Taking
from hybrid_core.errors import NotSplittable, WorkerError
from hybrid_core.machine.settled import settled
from hybrid_core.planning.tokens import Gather, Link, Member, slowest
from hybrid_core.planning.whole import Pace
from hybrid_core.stages.staging import Boundaries
from hybrid_core.stages.token_streams import WHOLE
from hybrid_core.stages.tokens import Plans, TokenDivider, Traffic, dividing, recording
from hybrid_core.stages.units import blocks
from hybrid_core.telling.report import Report, StepRecord
from hybrid_core.workers.contract import TokenLink, Tokens
from hybrid_core.workers.lease import Lease

log = logging.getLogger("hybrid_ksampler")
TRIES = 2  # divided steps that do not pay, before the run goes on alone
NO_BLOCK = "the tokens of this network cannot be divided: no block gives the same by halves"
OTHERWISE = "divided by tokens, this network gives another result"


class TokenSharing:
    """Of one run; what is found out is kept in the lease's holdings for the next ones."""

    def __init__(self, network: nn.Module):
        """Raises NotSplittable for a network that hands no tokens from block to block."""
        blocks(network)
        self._divider: TokenDivider | None = None
        self._alone: float | None = None  # seconds of an evaluation by this device, the least
        self._unpaid = 0
        self._measured = False  # whether the first divided step was told

    def divider(self, lease: Lease, call: Call) -> TokenDivider:
        if self._divider is None:
            plans = lease.holdings.plans.setdefault(call.network, Plans())
            self._divider = TokenDivider(call.network, plans, call.attention)
        return self._divider

    def took(self, record: StepRecord) -> None:
        """After an evaluation that was not divided: what one branch takes in full."""
        if record.kind == "single" and record.own_seconds is not None:
            self._alone = min(record.own_seconds, self._alone or record.own_seconds)

    def learn(self, lease: Lease, call: Call, tokens: Tokens, record: StepRecord) -> None:
        """After a divided evaluation: whether it pays, and how fast the worker is."""
        own, theirs = record.own_seconds or 0.0, record.worker_seconds or 0.0
        gathered = record.gathered_seconds or 0.0
        taken = own + gathered + (record.waited_seconds or 0.0)
        alone = own / tokens.share
        alone = alone if self._alone is None else min(alone, self._alone)
        if not self._measured:
            self._measured = True
            log.info(
                "divided by tokens: a step of %.0f ms, %.0f ms of them in exchanges, in place of "
                "about %.0f ms on one device: %.2fx",
                taken * 1000, gathered * 1000, alone * 1000, alone / max(taken, 1e-6),
            )  # fmt: skip
        self._unpaid = self._unpaid + 1 if taken > alone else 0
        if self._unpaid >= TRIES:
            lease.likeness.keep_tokens_together(
                call.form,
                f"dividing the tokens of this picture does not pay here: {taken * 1000:.0f} ms a "
                f"step, {gathered * 1000:.0f} ms of them in exchanges, on one device about "
                f"{alone * 1000:.0f} ms",
            )
        lease.holdings.saw(own / tokens.share, theirs / (1 - tokens.share))


class TokenExecution(Execution):
    """One evaluation of one branch whose tokens are divided, or looked at for that."""

    def __init__(
        self,
        sharing: TokenSharing,
        lease: Lease,
        call: Call,
        step: Step,
        taking: Taking,
        crew: Crew,
        report: Report,
        cancelled: type[BaseException],
        stay_local: Callable[[str], None],
    ):
        super().__init__(call, step, taking, crew, report, cancelled, stay_local)
        self._sharing, self._lease, self._record = sharing, lease, step.record

    def carried_out(self, plan: Plan) -> tuple[Outputs, Boundaries | None]:
        try:
            if plan[0].part.recorded:
                return self._recorded(plan), None
            out = self._divided(plan)
        except BaseException:
            self._lease.cancel()
            raise
        self._record.kind = "single" if out is None else "shared"
        own = 1.0 if out is None else self._record.share
        self._record.loads = {HERE: own, plan[1].device: 1.0 - own} if own < 1 else {HERE: 1.0}
        return out or self._evaluated(division.alone(self._call.branches)[0].part), None

    def _recorded(self, plan: Plan) -> Outputs:
        """In full here, and by tokens if that is the same."""
        call, lease, record, branch = self._call, self._lease, self._record, plan[0].part.branches
        divider = self._sharing.divider(lease, call)
        asked, since = self._ask(plan), time.monotonic()
        out = self._evaluated(plan[0].part, recording(divider))
        record.kind, seconds = "single", settled(call.x.device) - since
        ((share, number),) = asked.items() or [(None, None)]
        if share is None or number is None:
            return out
        (ours,) = out.values()
        answer = lease.collect(number, share.part, ours, seconds)
        if answer is None or not lease.compare(ours, answer.outputs[0], call.x.shape):
            return out
        if not divider.latest.blocks:
            self._refuse(NO_BLOCK)
            return out
        paces = {share.device: self._crew.pace(share.device)}
        log.info("%s", foretold(divider.latest, seconds, paces, lease.worker.measured_link))
        by_tokens = self._divided(division.by_tokens(branch[0], paces))
        if by_tokens is not None:
            (theirs,) = by_tokens.values()
            if lease.likeness.same_by_tokens(ours, theirs, call.form):
                record.kind, record.compared = "shared", True
            else:
                self._refuse(OTHERWISE)
        return out

    def _refuse(self, reason: str) -> None:
        self._lease.likeness.keep_tokens_together(self._call.form, reason)
        self._report.note(reason)

    def _divided(self, plan: Plan) -> Outputs | None:
        """By this process and the worker; None where it must be made again here."""
        call, lease, (own, others) = self._call, self._lease, plan
        number = self._ask(plan).get(others)
        if number is None or own.part.tokens is None:
            return None
        divider, since = self._sharing.divider(lease, call), time.monotonic()
        try:
            link = lease.link(number, own.part.tokens, self._own_seconds, call.x.device)
            out = call.evaluate(own.part.branches, dividing(divider, link))
        except self._cancelled:
            raise
        except WorkerError as error:
            lease.give_up(error)
            return None
        except NotSplittable as error:
            lease.cancel()
            self._refuse(str(error))
            return None
        seconds = settled(call.x.device) - since
        self._note(own.part.tokens, seconds, link)
        (result,) = out.values()
        answer = lease.collect(number, others.part, result, seconds)
        if answer is not None:
            self._record.worker_seconds = answer.seconds - answer.gathered
            self._record.waited_seconds = answer.waited
            self._sharing.learn(lease, call, own.part.tokens, self._record)
        return out

    @property
    def _own_seconds(self) -> float:
        """What an evaluation by one device may take."""
        return self._record.own_seconds or 0.0

    def _note(self, tokens: Tokens, seconds: float, link: TokenLink) -> None:
        record, done = self._record, link.done
        record.share, record.divides = tokens.share, "tokens"
        record.own_seconds, record.gathered_seconds = seconds - done.seconds, done.seconds
        record.gathers, record.gathered_bytes = done.exchanges, done.sent + done.received
        self._report.bytes_sent += done.sent
        self._report.bytes_received += done.received


def foretold(traffic: Traffic, seconds: float, paces: Mapping[int, Pace], link: Link | None) -> str:
    """What dividing may bring, before it was done. seconds: of the recorded evaluation; link: None
    where it was not measured, and nothing is reckoned for it.
    """
    one = max(seconds - traffic.seconds, 1e-6)
    upto = division.bounds((Pace(1.0), *paces.values()))
    between = link or Link()
    members = [Member(Pace(one * pace.forward), between) for pace in (Pace(1.0), *paces.values())]
    gather = Gather(2.0 * traffic.bytes, traffic.exchanges, WHOLE)
    ratio = one / slowest(members, [end - first for first, end in pairwise(upto)], gather)
    words = (
        f"tokens can be divided: {traffic.exchanges} exchanges and {traffic.bytes / 2**20:.2f} MiB "
        f"each way in a forward pass of about {one * 1000:.0f} ms"
    )
    if link is None:
        return f"{words}; at most {ratio:.2f}x one device, the link was not measured"
    return (
        f"{words}; {ratio:.2f}x one device is expected with a link of {link.rate / 1e9:.1f} GB/s "
        f"and {link.latency * 1e6:.0f} us, as the self-test measured it"
    )

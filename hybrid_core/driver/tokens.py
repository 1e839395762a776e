"""The tokens of one run's forward passes, divided with a worker: whether, how, what it brings."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from itertools import pairwise

import torch
from torch import nn

from hybrid_core.course.steps import Step
from hybrid_core.driver import division
from hybrid_core.driver.call import Call
from hybrid_core.driver.crew import Crew
from hybrid_core.driver.division import HERE, Plan, Share
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
from hybrid_core.workers.contract import Part, TokenLink, Tokens
from hybrid_core.workers.ends import Hub
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
        self._unpaid, self.pays = 0, False  # the latest divided steps
        self._measured = False  # whether the first divided step was told

    def divider(self, leases: Iterable[Lease], call: Call) -> TokenDivider:
        """Of this process's network; what it knows is held with every worker that takes part."""
        if self._divider is None:
            self._divider = TokenDivider(call.network, Plans(), call.attention)
        plans = self._divider.plans
        for lease in leases:
            held = lease.holdings.plans.setdefault(call.network, plans)
            if held is not plans:
                plans.blocks |= held.blocks
                plans.last |= held.last
                lease.holdings.plans[call.network] = plans
        return self._divider

    def took(self, record: StepRecord) -> None:
        """After an evaluation that was not divided: what one branch takes in full."""
        if record.kind == "single" and record.own_seconds is not None:
            self._alone = min(record.own_seconds, self._alone or record.own_seconds)

    def learn(self, branches: int, record: StepRecord) -> str | None:
        """After a divided evaluation: why it does not pay, None while it may."""
        own, gathered = record.own_seconds or 0.0, record.gathered_seconds or 0.0
        taken = own + gathered + (record.waited_seconds or 0.0)
        alone = own / record.share
        alone = alone if self._alone is None else min(alone, self._alone * branches)
        if not self._measured:
            self._measured = True
            log.info(
                "divided by tokens: a step of %.0f ms, %.0f ms of them in exchanges, in place of "
                "about %.0f ms on one device: %.2fx",
                taken * 1000, gathered * 1000, alone * 1000, alone / max(taken, 1e-6),
            )  # fmt: skip
        self.pays = taken <= alone
        self._unpaid = 0 if self.pays else self._unpaid + 1
        if self._unpaid < TRIES:
            return None
        self._unpaid = 0
        return (
            f"dividing the tokens of this picture does not pay here: {taken * 1000:.0f} ms a "
            f"step, {gathered * 1000:.0f} ms of them in exchanges, on one device about "
            f"{alone * 1000:.0f} ms"
        )


class TokenExecution(Execution):
    """One evaluation whose branches' tokens are divided, or looked at for that."""

    def __init__(
        self,
        sharing: TokenSharing,
        call: Call,
        step: Step,
        taking: Taking,
        crew: Crew,
        report: Report,
        cancelled: type[BaseException],
        stay_local: Callable[[str], None],
    ):
        super().__init__(call, step, taking, crew, report, cancelled, stay_local)
        self._sharing, self._record = sharing, step.record

    def carried_out(self, plan: Plan) -> tuple[Outputs, Boundaries | None]:
        try:
            out = self._recorded(plan) if plan[0].part.recorded else self._divided(plan)
        except BaseException:
            self._cancel()
            raise
        if out is None:
            out = self._made_here(self._evaluated(division.alone(self._call.branches)[0].part))
        return out, None

    def _lease(self, share: Share) -> Lease:
        return self._taking.leases[share.device]

    def _cancel(self) -> None:
        for lease in self._taking.leases.values():
            if not lease.gone:
                lease.cancel()

    def _made_here(self, out: Outputs) -> Outputs:
        self._record.kind = "single" if len(out) == 1 else "local"
        self._record.loads = {HERE: float(len(out))}
        return out

    def _recorded(self, plan: Plan) -> Outputs:
        """In full here, and by tokens if that is the same."""
        call, (first, *rest) = self._call, plan[0].part.branches
        divider = self._sharing.divider(self._taking.leases.values(), call)
        asked, since = self._ask(plan), time.monotonic()
        out = self._evaluated(Part((first,)), recording(divider))
        self._record.own_seconds = seconds = settled(call.x.device) - since
        if rest:
            out |= self._evaluated(Part(tuple(rest)))
        self._made_here(out)
        alike = {
            share.device: self._crew.pace(share.device)
            for share, number in asked.items()
            if number is not None and self._alike(share, number, out[first], seconds)
        }
        if len(alike) + 1 < 2 * len(out):
            return out
        by_tokens = division.by_tokens(call.branches, alike)
        if not divider.latest.blocks:
            self._refuse(by_tokens, NO_BLOCK)
            return out
        link = self._lease(by_tokens[1]).worker.measured_link
        log.info("%s", foretold(divider.latest, seconds, by_tokens, link))
        divided = self._divided(by_tokens)
        if divided is None:
            return self._made_here(out)
        if not self._same(by_tokens, out, divided):
            self._refuse(by_tokens, OTHERWISE)
            return self._made_here(out)
        self._record.compared = True
        return out

    def _alike(self, share: Share, number: int, ours: torch.Tensor, seconds: float) -> bool:
        """Whether that device's whole evaluation is ours."""
        lease = self._lease(share)
        answer = lease.collect(number, share.part, ours, seconds)
        return answer is not None and lease.compare(ours, answer.outputs[0], self._call.x.shape)

    def _same(self, plan: Plan, ours: Outputs, divided: Outputs) -> bool:
        """Whether every branch by tokens is what it is in full."""
        form = form_of(self._call, plan)
        return all(
            self._lease(share).likeness.same_by_tokens(ours[branch], divided[branch], form)
            for branch in ours
            for share in plan[1:]
        )

    def _refuse(self, plan: Plan, reason: str) -> None:
        for share in plan[1:]:
            likeness = self._lease(share).likeness
            likeness.keep_tokens_together(form_of(self._call, plan), reason)
        self._report.note(reason)

    def _divided(self, plan: Plan) -> Outputs | None:
        """By this process and the workers; None where it must be made again here."""
        call, own = self._call, plan[0].part
        asked = {share: number for share, number in self._ask(plan).items() if number is not None}
        if len(asked) + 1 < len(plan) or own.tokens is None:
            self._cancel()
            return None
        divider, since = self._sharing.divider(self._taking.leases.values(), call), time.monotonic()
        ends: dict[int, TokenLink] = {}
        link: TokenLink | Hub | None = None
        patience = self._record.own_seconds or 0.0
        try:
            for share, number in asked.items():
                lease = self._lease(share)
                ends[share.device] = lease.link(number, own.tokens, patience, call.x.device)
            link = self._link(plan, own.tokens, ends)
            out = call.evaluate(own.branches, dividing(divider, link))
        except self._cancelled:
            raise
        except WorkerError as error:
            lost = list(asked)[min(len(ends), len(asked) - 1)].device  # whose end was not opened
            if isinstance(link, Hub):
                lost = next(device for device, end in ends.items() if end is link.to)
            self._taking.leases[lost].give_up(error)
            self._cancel()
            return None
        except NotSplittable as error:
            self._cancel()
            self._refuse(plan, str(error))
            return None
        seconds = settled(call.x.device) - since
        self._note(plan, seconds, link)
        if not self._taken_in(asked, own.tokens, out, seconds):
            return None
        reason = self._sharing.learn(len(out), self._record)
        for share in plan[1:]:
            self._lease(share).likeness.learn_pay(form_of(call, plan), self._sharing.pays, reason)
        if reason is not None:
            self._report.note(reason)
        return out

    def _link(self, plan: Plan, own: Tokens, ends: Mapping[int, TokenLink]) -> TokenLink | Hub:
        if not own.relayed:
            return ends[plan[1].device]
        groups = [
            [ends.get(share.device) for share in plan if share.part.branches == (branch,)]
            for branch in self._call.branches
        ]
        return Hub(own.bounds, groups)

    def _taken_in(
        self, asked: Mapping[Share, int], own: Tokens, out: Outputs, seconds: float
    ) -> bool:
        """The workers' branches go to `out`; whether all came."""
        record, like, complete = self._record, next(iter(out.values())), True
        here = (record.own_seconds or 0.0) / own.share
        record.waited_seconds = 0.0
        for share, number in asked.items():
            lease, tokens = self._lease(share), share.part.tokens
            answer = lease.collect(number, share.part, like, seconds)
            if answer is None or tokens is None:
                complete = complete and not share.part.gives
                continue
            out |= dict(zip(share.part.branches, answer.outputs, strict=False))
            there = answer.seconds - answer.gathered
            record.waited_seconds += answer.waited
            record.worker_seconds = max(there, record.worker_seconds or 0.0)
            lease.holdings.saw(here, there / tokens.share)
        return complete

    def _note(self, plan: Plan, seconds: float, link: TokenLink | Hub) -> None:
        record, done, branches = self._record, link.done, len(self._call.branches)
        record.kind, record.divides = "shared", "tokens"
        record.loads = {share.device: share.part.forwards for share in plan}
        record.share = plan[0].part.forwards / branches
        record.own_seconds, record.gathered_seconds = seconds - done.seconds, done.seconds
        record.gathers, record.gathered_bytes = done.exchanges, done.sent + done.received
        self._report.bytes_sent += done.sent
        self._report.bytes_received += done.received


def form_of(call: Call, plan: Plan) -> Hashable:
    """What a division was found to do is known of, by sizes and by how many devices divide."""
    return call.form, len(plan)


def foretold(traffic: Traffic, seconds: float, plan: Plan, link: Link | None) -> str:
    """What dividing by `plan` may bring, before it was done: shares follow the devices' speeds.

    seconds: of one branch, recorded; link: None where it was not measured, and nothing is reckoned
    for it.
    """
    one = max(seconds - traffic.seconds, 1e-6)
    upto = plan[0].part.tokens.bounds if plan[0].part.tokens else (0, WHOLE)
    shares = [end - first for first, end in pairwise(upto)]
    members = [Member(Pace(one * shares[0] / share), link or Link()) for share in shares]
    branches = len({share.part.branches for share in plan})
    gather = Gather(2.0 * traffic.bytes, traffic.exchanges, WHOLE)
    ratio = branches * one / slowest(members, shares, gather)
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

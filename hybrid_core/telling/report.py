"""What a run did, in numbers and in a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from hybrid_core.telling.kinds import KINDS, TOLD

PIPELINED_COST = 0.5  # of a step that evaluates one branch on each device: the paper's arithmetic
# exact: a branch each; pipelined: a stage each; shared: some pictures or tokens each; forecast:
# nobody; local: several branches in this process alone; single: one branch in this process alone
LETTERS = {kind: str(KINDS[kind]["letter"]) for kind in TOLD}


@dataclass
class StepRecord:
    """One evaluation of the model; None where nothing was measured. Times in seconds."""

    step: int | None = None  # on the sampler's schedule
    sigma: float | None = None
    kind: str = "exact"  # a key of LETTERS
    branch: Literal["cond", "uncond"] | None = None  # that a pipelined step evaluates
    discrepancy: float | None = None  # rel-MAE of the branches' predictions
    own_drift: float | None = None  # of the cond prediction, like the next two in a step
    guidance_drift: float | None = None  # of the branches' difference
    feature_drift: float | None = None
    drift: float | None = None  # what the policy compared with its tolerance
    seconds: float = 0.0
    own_seconds: float | None = None  # this process's branch or stage
    worker_seconds: float | None = None  # the worker's
    waited_seconds: float | None = None  # for the worker
    divides: str = "pictures"  # what a shared step divides: pictures, or tokens
    share: float = 0.5  # of the step, what `own_seconds` were for
    gathers: int = 0  # exchanges inside the forward pass
    gathered_bytes: int = 0  # sent and received by them
    gathered_seconds: float | None = None  # in them, waiting for the other device included
    # forward passes of the whole batch by device: -1 this process, workers from 0
    loads: dict[int, float] = field(default_factory=dict)
    compared: bool = False  # both devices evaluated one branch, and it came out equal
    waiting: bool = False  # the worker was not ready yet

    @property
    def work(self) -> tuple[float, float]:
        """Forward passes of the whole batch, of a step in full: all of them, and the most that one
        device made.
        """
        if self.kind in ("pipelined", "forecast"):
            return 0.0, 0.0
        if self.loads:
            return sum(self.loads.values()), max(self.loads.values())
        shared = 1.0, 1.0 if self.compared else max(self.share, 1.0 - self.share)
        return {"exact": (2.0, 1.0), "shared": shared, "local": (2.0, 2.0)}.get(
            self.kind, (1.0, 1.0)
        )

    @property
    def added_seconds(self) -> float | None:
        """Beyond the slower branch's own time, of a step that was shared."""
        if self.own_seconds is None or self.worker_seconds is None or self.compared:
            return None
        return self.seconds - max(self.own_seconds, self.worker_seconds)


@dataclass
class Report:
    """What a run did; times in seconds. What its steps tell is not kept twice."""

    mode: str = "exact"
    tolerance: float | None = None  # of mode adaptive
    total: int = 0  # steps of the schedule
    status: str = "running"  # then done, interrupted or failed
    bytes_sent: int = 0
    bytes_received: int = 0
    data_plane: str | None = None  # how tensors travelled
    data_plane_reason: str | None = None  # why not in a better way
    cut: str | None = None  # the last block of stage A
    devices: list[str] = field(default_factory=list)  # that may take part, this process's first
    reasons: list[str] = field(default_factory=list)  # why something ran on one device
    unshortened: str | None = None  # why no step was, where the mode could have
    steps: list[StepRecord] = field(default_factory=list)  # that are over

    def of(self, kind: str) -> list[StepRecord]:
        """The steps of one kind."""
        return [step for step in self.steps if step.kind == kind]

    @property
    def partitioned(self) -> int:
        """Evaluations shared with the worker, a branch each."""
        return len(self.of("exact"))

    @property
    def pipelined(self) -> int:
        """Evaluations shared with the worker, a stage each."""
        return len(self.of("pipelined"))

    @property
    def divided(self) -> int:
        """Evaluations shared with the worker, some of the pictures or of the tokens each."""
        return len(self.of("shared"))

    @property
    def by_tokens(self) -> list[StepRecord]:
        """The steps whose tokens were divided."""
        return [step for step in self.of("shared") if step.divides == "tokens"]

    @property
    def gather(self) -> dict[str, float] | None:
        """Exchanges a step by tokens, bytes and microseconds of each; None without such a step."""
        steps = [step for step in self.by_tokens if step.gathers]
        if not steps:
            return None
        count = sum(step.gathers for step in steps)
        seconds = sum(step.gathered_seconds or 0.0 for step in steps)
        return {
            "a_step": round(count / len(steps), 1),
            "bytes": round(sum(step.gathered_bytes for step in steps) / count),
            "microseconds": round(seconds / count * 1e6, 1),
            "share": round(steps[-1].share, 3),
        }

    @property
    def forecast(self) -> int:
        """Evaluations foreseen: nobody made them."""
        return len(self.of("forecast"))

    @property
    def local(self) -> int:
        """Evaluations of two branches by the parent alone."""
        return len(self.of("local"))

    @property
    def single(self) -> int:
        """Evaluations in full, by the parent alone, that had one branch only."""
        return len(self.of("single"))

    @property
    def shared(self) -> int:
        return self.partitioned + self.pipelined + self.divided

    @property
    def waiting(self) -> int:
        """Evaluations by the parent alone because the worker was not ready yet."""
        return sum(step.waiting for step in self.steps)

    def note(self, reason: str) -> None:
        """Say once why something is not as the artist may expect."""
        if reason not in self.reasons:
            self.reasons.append(reason)

    @property
    def tau(self) -> tuple[int, int] | None:
        """First and one past the last step that is not in full: where the Parallelism stage was."""
        shortened = (s for s in self.steps if s.kind in ("pipelined", "forecast"))
        found = [s.step for s in shortened if s.step is not None]
        return (found[0], found[-1] + 1) if found else None

    @property
    def who(self) -> list[dict[str, Any]]:
        """Who did how much of the run's forward passes, of the devices that did something."""
        done = dict.fromkeys(range(-1, len(self.devices) - 1), 0.0)
        for step in self.steps:
            for device, forwards in step.loads.items():
                half = 0.5 if step.kind == "pipelined" else 1.0
                done[device] = done.get(device, 0.0) + half * forwards
                if step.kind == "pipelined":
                    done[0] = done.get(0, 0.0) + half * forwards
        total = sum(done.values())
        return [
            {"device": name, "share": round(done[number - 1] / total, 3)}
            for number, name in enumerate(self.devices)
            if done[number - 1]
        ]

    @property
    def ideal(self) -> float:
        """How many times as fast as one device by counting forwards, links and joins left out."""
        work = [step.work for step in self.steps]
        serial, taken = sum(one for one, _ in work), sum(most for _, most in work)
        taken += PIPELINED_COST * self.pipelined
        both = 2 if self.partitioned or self.local else 1
        return (serial + both * (self.pipelined + self.forecast)) / taken if taken else 1.0

    @property
    def ratio(self) -> float | None:
        """How many times as fast as one device, by the time that this process's own branch took.

        Of the model's evaluations, not of the whole prompt. None while that is not known.
        """
        branches = [s.own_seconds / s.share for s in self.of("exact") if s.own_seconds]
        parts = [s.own_seconds / s.share for s in self.of("shared") if s.own_seconds]
        alone = parts or [s.seconds for s in self.of("local") or self.of("single")]
        if branches:
            serial = sum(branches) / len(branches)
        elif alone:
            serial = sum(alone) / len(alone)
        else:
            return None
        whole = sum(parts) / len(parts) if parts else 0.0
        serials = {"exact": serial, "pipelined": serial, "forecast": serial, "shared": whole}
        one_device = sum(serials.get(step.kind, step.seconds) for step in self.steps)
        taken = sum(step.seconds for step in self.steps)
        return one_device / taken if taken > 0 else None

    @property
    def milliseconds(self) -> dict[str, float | None]:
        """Means over the steps of a kind."""
        exact, pipelined, divided = self.of("exact"), self.of("pipelined"), self.of("shared")
        return {
            "exact_own": mean(step.own_seconds for step in exact),
            "exact_wait": mean(step.waited_seconds for step in exact),
            "exact_added": mean(step.added_seconds for step in exact),
            "pipelined_own": mean(step.own_seconds for step in pipelined),
            "pipelined_wait": mean(step.waited_seconds for step in pipelined),
            "worker_stage": mean(step.worker_seconds for step in pipelined),
            "divided_own": mean(step.own_seconds for step in divided),
            "divided_wait": mean(step.waited_seconds for step in divided),
            "divided_added": mean(step.added_seconds for step in divided),
            "divided_gather": mean(step.gathered_seconds for step in divided),
            "compared": mean(step.own_seconds for step in [*exact, *divided] if step.compared),
            "alone": mean(step.seconds for step in self.of("local")),
            "one_branch": mean(step.seconds for step in self.of("single")),
        }

    def line(self) -> str:
        """The run in one line of words."""
        aside = 0  # PAG and its kin ask for one branch more
        if self.partitioned:
            aside = sum(step.step is None for step in self.of("shared"))
        shared = self.shared - aside
        total = shared + self.local + (0 if self.partitioned else self.single)
        words = []
        if shared or not self.forecast:
            words.append(f"{shared} of {total} steps shared with the second process")
        if self.pipelined:
            words.append(f"{self.pipelined} of them pipelined")
        if self.forecast:
            words.append(f"{total} steps evaluated and {self.forecast} foreseen")
        if self.tau is not None:
            first, last = self.tau
            words.append(f"between step {first + 1} and {last}")
            words.append(f"ideal {self.ideal:.2f}x")
        by_tokens, gather = len(self.by_tokens), self.gather
        if self.divided > by_tokens:
            in_parts = [step for step in self.of("shared") if step.divides == "pictures"]
            words.append(
                f"{self.divided - by_tokens} with the batch's pictures divided, "
                f"{in_parts[-1].share:.0%} of the work here"
            )
        if gather is not None:
            words.append(
                f"{by_tokens} with the picture's tokens divided, {gather['share']:.0%} of them here"
            )
            words.append(
                f"{gather['a_step']:.0f} exchanges a step of {gather['bytes'] / 2**10:.0f} KiB and "
                f"{gather['microseconds']:.0f} us"
            )
        if self.single:
            words.append(f"{self.single} with one branch")
        if self.steps:
            words.append(f"steps {kinds(self.steps)}")
            seen = [s.discrepancy for s in self.steps if s.discrepancy is not None]
            if seen:
                words.append(f"discrepancy {seen[0]:.3f} at first, {min(seen):.3f} at least")
        taken = (
            ("exact", self.of("exact")), ("pipelined", self.of("pipelined")),
            ("divided", self.of("shared")), ("alone", self.of("local")),
            ("one branch", self.of("single")),
        )  # fmt: skip
        for name, steps in taken:
            if steps:
                words.append(f"{name} {mean(step.seconds for step in steps):.1f} ms a step")
        waited = mean(step.waited_seconds for step in self.steps)
        if waited is not None:
            words.append(f"waited {waited:.1f} ms a step for it")
            words.append(f"{(self.bytes_sent + self.bytes_received) / 2**20:.1f} MiB moved")
        unshortened = [f"no step was shortened: {self.unshortened}"] if self.unshortened else []
        return "; ".join([", ".join(words), *self.reasons, *unshortened])

    def data(self) -> dict[str, Any]:
        """The run as plain data: what the node returns."""
        return {
            "mode": self.mode,
            "tolerance": self.tolerance,
            "total": self.total,
            "status": self.status,
            "ideal": round(self.ideal, 3),
            "ratio": None if self.ratio is None else round(self.ratio, 3),
            "tau1": self.tau[0] if self.tau else None,
            "tau2": self.tau[1] if self.tau else None,
            "partitioned": self.partitioned,
            "pipelined": self.pipelined,
            "divided": self.divided,
            "gather": self.gather,
            "forecast": self.forecast,
            "local": self.local,
            "single": self.single,
            "waiting": self.waiting,
            "cut": self.cut,
            "devices": list(self.devices),
            "who": self.who,
            "data_plane": self.data_plane,
            "data_plane_reason": self.data_plane_reason,
            "ms": self.milliseconds,
            "bytes_sent": self.bytes_sent,
            "bytes_received": self.bytes_received,
            "reasons": list(self.reasons),
            "unshortened": self.unshortened,
            "steps": [step_data(step) for step in self.steps],
        }


def mean(seconds: Iterable[float | None]) -> float | None:
    """Milliseconds; None where nothing was measured."""
    known = [value for value in seconds if value is not None]
    return round(sum(known) / len(known) * 1000, 3) if known else None


def step_data(record: StepRecord) -> dict[str, Any]:
    return {
        "step": record.step,
        "sigma": _short(record.sigma),
        "kind": record.kind,
        "branch": record.branch,
        "discrepancy": _short(record.discrepancy),
        "guidance_drift": _short(record.guidance_drift),
        "feature_drift": _short(record.feature_drift),
        "drift": _short(record.drift),
        "ms": _short(record.seconds * 1000),
    }


def _short(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")


def kinds(steps: Sequence[StepRecord]) -> str:
    """One letter a step, of LETTERS."""
    return "".join(LETTERS[step.kind] for step in steps)


class Watcher(Protocol):
    """Who follows runs while they go on; called on the sampling thread."""

    def began(self, report: Report) -> None: ...
    def stepped(self, report: Report) -> None: ...
    def ended(self, report: Report) -> None: ...


class Nobody:
    """Follows nothing."""

    def began(self, report: Report) -> None:
        pass

    def stepped(self, report: Report) -> None:
        pass

    def ended(self, report: Report) -> None:
        pass

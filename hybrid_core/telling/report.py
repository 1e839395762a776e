"""What a run did, in numbers and in a sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

PIPELINED_COST = 0.5  # of a step that evaluates one branch on each device: the paper's arithmetic
LETTERS = {"exact": "E", "pipelined": "p", "local": "L", "single": "s"}


@dataclass
class StepRecord:
    """One evaluation of the model; None where nothing was measured. Times in seconds."""

    step: int | None = None  # on the sampler's schedule
    sigma: float | None = None
    kind: str = "exact"  # or pipelined, local (both branches here), single (there is one branch)
    branch: Literal["cond", "uncond"] | None = None  # that a pipelined step evaluates
    discrepancy: float | None = None  # rel-MAE of the branches' predictions
    guidance_drift: float | None = None
    feature_drift: float | None = None
    drift: float | None = None  # what the policy compared with its tolerance
    seconds: float = 0.0
    own_seconds: float | None = None  # this process's branch or stage
    worker_seconds: float | None = None  # the worker's
    waited_seconds: float | None = None  # for the worker


@dataclass
class Report:
    """What a run did; times in seconds."""

    mode: str = "exact"
    tolerance: float | None = None  # of mode adaptive
    total: int = 0  # steps of the schedule
    status: str = "running"  # then done, interrupted or failed
    partitioned: int = 0  # evaluations shared with the worker, a branch each
    pipelined: int = 0  # evaluations shared with the worker, a stage each
    local: int = 0  # evaluations of two branches by the parent alone
    single: int = 0  # evaluations in full that had one branch only
    own_seconds: float = 0.0  # of partitioned evaluations, like the next two
    wait_seconds: float = 0.0
    overhead_seconds: float = 0.0  # beyond the slower branch's own time
    own_stage_seconds: float = 0.0  # stage B here, of pipelined evaluations
    stages: int = 0  # A that the worker evaluated ahead
    stage_seconds: float = 0.0  # of those, in the worker
    stage_wait_seconds: float = 0.0  # for stage A
    local_seconds: float = 0.0
    single_seconds: float = 0.0
    bytes_sent: int = 0
    bytes_received: int = 0
    data_plane: str | None = None  # how tensors travelled
    data_plane_reason: str | None = None  # why not in a better way
    cut: str | None = None  # the last block of stage A
    reasons: list[str] = field(default_factory=list)
    steps: list[StepRecord] = field(default_factory=list)

    @property
    def tau(self) -> tuple[int, int] | None:
        """First and one past the last pipelined step: where the Parallelism stage was."""
        found = [s.step for s in self.steps if s.kind == "pipelined" and s.step is not None]
        return (found[0], found[-1] + 1) if found else None

    @property
    def ideal(self) -> float:
        """How many times as fast as one device by counting forwards, links and joins left out."""
        serial = 2 * (self.partitioned + self.local) + self.single
        taken = self.partitioned + 2 * self.local + self.single + PIPELINED_COST * self.pipelined
        both = 2 if self.partitioned or self.local else 1
        return (serial + both * self.pipelined) / taken if taken else 1.0

    @property
    def ratio(self) -> float | None:
        """How many times as fast as one device, by the time that this process's own branch took.

        Of the model's evaluations, not of the whole prompt. None while that is not known.
        """
        branches = [s.own_seconds for s in self.steps if s.kind == "exact" and s.own_seconds]
        alone = [s.seconds for s in self.steps if s.kind == "single"]
        if branches:
            serial = 2 * sum(branches) / len(branches)
        elif alone:
            serial = sum(alone) / len(alone)
        else:
            return None
        one_device = sum(
            serial if step.kind in ("exact", "pipelined") else step.seconds for step in self.steps
        )
        taken = sum(step.seconds for step in self.steps)
        return one_device / taken if taken > 0 else None

    def line(self) -> str:
        """The run in one line of words."""
        total = self.partitioned + self.local + self.pipelined
        if self.single and not self.partitioned:
            total += self.single
        shared = self.partitioned + self.pipelined
        words = [f"{shared} of {total} steps shared with the second process"]
        if self.pipelined:
            first, last = self.tau or (0, 0)
            words.append(f"{self.pipelined} of them pipelined, between step {first + 1} and {last}")
            words.append(f"ideal {self.ideal:.2f}x")
        if self.single:
            words.append(f"{self.single} with one branch")
        if self.steps:
            words.append(f"steps {kinds(self.steps)}")
            seen = [s.discrepancy for s in self.steps if s.discrepancy is not None]
            if seen:
                words.append(f"discrepancy {seen[0]:.3f} at first, {min(seen):.3f} at least")
        words += [
            f"{name} {self._mean(seconds, count):.1f} ms a step"
            for name, seconds, count in (
                ("exact", self.own_seconds + self.wait_seconds, self.partitioned),
                ("pipelined", self.own_stage_seconds + self.stage_wait_seconds, self.pipelined),
                ("alone", self.local_seconds, self.local),
                ("one branch", self.single_seconds, self.single),
            )
            if count
        ]
        if shared:
            waited = self.wait_seconds + self.stage_wait_seconds
            idle = max(0.0, self.own_stage_seconds + self.stage_wait_seconds - self.stage_seconds)
            words.append(f"waited {self._mean(waited, shared):.1f} ms a step for it")
            if self.pipelined:
                words.append(f"it waited {self._mean(idle, self.pipelined):.1f} ms a pipelined one")
            words.append(f"{(self.bytes_sent + self.bytes_received) / 2**20:.1f} MiB moved")
        return "; ".join([", ".join(words), *self.reasons])

    @staticmethod
    def _mean(seconds: float, count: int) -> float:
        return seconds / count * 1000

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
            "local": self.local,
            "single": self.single,
            "cut": self.cut,
            "data_plane": self.data_plane,
            "data_plane_reason": self.data_plane_reason,
            "ms": {
                "exact_own": self._milliseconds(self.own_seconds, self.partitioned),
                "exact_wait": self._milliseconds(self.wait_seconds, self.partitioned),
                "pipelined_own": self._milliseconds(self.own_stage_seconds, self.pipelined),
                "pipelined_wait": self._milliseconds(self.stage_wait_seconds, self.pipelined),
                "worker_stage": self._milliseconds(self.stage_seconds, self.stages),
                "alone": self._milliseconds(self.local_seconds, self.local),
                "one_branch": self._milliseconds(self.single_seconds, self.single),
            },
            "bytes_sent": self.bytes_sent,
            "bytes_received": self.bytes_received,
            "reasons": list(self.reasons),
            "steps": [step_data(step) for step in self.steps],
        }

    @staticmethod
    def _milliseconds(seconds: float, count: int) -> float | None:
        return round(seconds / count * 1000, 3) if count else None


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
    """One letter a step: E exact, p pipelined, L local, s single."""
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

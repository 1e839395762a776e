"""What a run asks of a device that evaluates beside this process, wherever that device is.

Every verb that waits has a deadline and a tick, which runs meanwhile and may raise (Cancel). A
worker whose state is not known after an error is ended, by `settle` and nowhere else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from hybrid_core.config import Settings, WorkerDevice
from hybrid_core.errors import (
    ArenaTooSmall,
    NoRoom,
    NotPartitionable,
    ProtocolError,
    ReplicaMismatch,
    WorkerFailed,
    WorkerStopped,
)
from hybrid_core.planning import tokens as planning
from hybrid_core.stages.token_streams import WHOLE
from hybrid_core.stages.tokens import Form, Link
from hybrid_core.transport.carry import Carried

Tensor = torch.Tensor
Tick = Callable[[], None]
STATE_IS_KNOWN = (WorkerFailed, ReplicaMismatch, ArenaTooSmall, NoRoom, NotPartitionable)


@dataclass(frozen=True)
class Pictures:
    """Some pictures of a batch, one after the other."""

    first: int
    end: int  # one past the last
    batch: int  # how many the batch has

    @property
    def count(self) -> int:
        return self.end - self.first

    def of(self, tensor: Tensor) -> Tensor:
        """Their share of (B, ...)."""
        return tensor[self.first : self.end]


@dataclass(frozen=True)
class Tokens:
    """Some tokens of every forward pass of a transformer: between two of the bounds."""

    place: int  # of this device among those that divide them; place 0 gets the result
    bounds: tuple[int, ...]  # in thousandths, from 0 to 1000
    relayed: bool = False  # whether exchanges go through the parent, and not between two places

    @property
    def share(self) -> float:
        first, end = self.bounds[self.place : self.place + 2]
        return (end - first) / WHOLE


@dataclass(frozen=True)
class Part:
    """What one device does of an evaluation; a step's plan gives each device one."""

    branches: tuple[int, ...]  # places in the guider's list of prompts
    upto: int | None = None  # the last unit of stage A, which ends there; None: the whole network
    keep: int | None = None  # a unit whose output is wanted beside the results
    pictures: Pictures | None = None  # None: the whole batch
    tokens: Tokens | None = None  # None: all
    recorded: bool = False  # in full, and looked at so that tokens can be divided afterwards

    @property
    def gives(self) -> int:
        """How many outputs come of it."""
        nothing = self.upto is not None or (self.tokens is not None and self.tokens.place > 0)
        return 0 if nothing else len(self.branches)

    @property
    def forwards(self) -> float:
        """How many forward passes of the whole batch it is worth."""
        pictures, tokens = self.pictures, self.tokens
        part = 1.0 if pictures is None else pictures.count / pictures.batch
        return len(self.branches) * part * (1.0 if tokens is None else tokens.share)


@dataclass(frozen=True)
class Answer:
    """What a worker made of its part."""

    outputs: list[Tensor]  # one a branch, none of stage A
    boundaries: dict[str, Any] | None  # of the unit `upto` or `keep`, by forward pass
    seconds: float  # that it took there
    waited: float = 0.0  # seconds that this process waited for it
    gathered: float = 0.0  # seconds of `seconds` in exchanges with the others


@dataclass
class Gathered:
    """What a link has done so far."""

    exchanges: int = 0
    sent: int = 0  # bytes, like the next one
    received: int = 0
    seconds: float = 0.0  # in exchanges, waiting for the others included


class TokenLink(Link, Protocol):
    """This process's side of the exchanges inside one request."""

    done: Gathered

    def swap(self, at: int, mine: list[Tensor], forms: list[Form]) -> list[Tensor]:
        """One exchange with the process at the other end; raises as `gather`."""
        ...


class Worker(Protocol):
    """One device. Whoever asks holds `lock` from the question to the end of its sending."""

    device: WorkerDevice
    settings: Settings
    lock: threading.RLock
    epoch: int  # counts its starts: what was told to an earlier one is forgotten
    last_error: str | None
    started_at: float  # time.monotonic(), like the next but one
    start_seconds: float | None  # until it was up, None until then
    last_used: float
    bytes_sent: int
    bytes_received: int

    @property
    def alive(self) -> bool:
        """Whether it is started and not ended, as far as this process knows."""
        ...

    @property
    def pid(self) -> int | None:
        """Of its process on this machine, where it has one."""
        ...

    @property
    def data_plane(self) -> str: ...

    @property
    def data_plane_reason(self) -> str | None: ...

    @property
    def data_plane_missed(self) -> str | None:
        """In words, when tensors do not travel as was preferred."""
        ...

    @property
    def measured_link(self) -> planning.Link | None:
        """How fast tensors travel, None where that was not measured."""
        ...

    def start(self) -> None:
        """Start it if there is none; returns at once. Raises WorkerFailed."""
        ...

    def ready(self) -> bool:
        """Whether it is up. Never waits. Raises WorkerError when it failed to come up."""
        ...

    def idle(self) -> bool:
        """Whether nothing is under way; drops a late reply. Never waits.

        Raises WorkerError, WorkerTimeout for a request that was given up long ago.
        """
        ...

    def prefer(self, data_plane: str) -> None:
        """How tensors are to travel from now on."""
        ...

    def load(self, replica: Carried, tick: Tick) -> int:
        """Ask for a model; the request's number. Returns when it is sent."""
        ...

    def loaded(self, number: int, seconds: float) -> Any | None:
        """The portrait of the model that was asked for; None while it is loading.

        Raises WorkerTimeout when there is none though `seconds` is 0 or less.
        """
        ...

    def hold(self, number: int, context: Carried, tick: Tick) -> None:
        """Keep the context of evaluations (prompts, options) under this number."""
        ...

    def forget(self, base_key: str, tick: Tick) -> None:
        """Drop a model whose copy here is gone."""
        ...

    def status(self, seconds: float, tick: Tick | None = None) -> dict[str, Any]:
        """What it holds, and its memory."""
        ...

    def evaluate(self, context: int, x: Tensor, sigma: Tensor, part: Part) -> int:
        """Ask for a part of a held context's evaluation at (x, sigma); the request's number."""
        ...

    def link(
        self, number: int, tokens: Tokens, seconds: float, tick: Tick, device: torch.device
    ) -> TokenLink:
        """Exchanges inside the request `number`, which has the other tokens than these.

        seconds: for each exchange. What is received comes to `device`.
        """
        ...

    def answered(self, number: int) -> bool:
        """Whether `collect` would not wait for this request."""
        ...

    def collect(
        self, number: int, part: Part, seconds: float, tick: Tick, device: torch.device
    ) -> Answer:
        """What came of it, on `device`."""
        ...

    def expect_answer(self, seconds: float) -> None:
        """Nobody waits for what is under way: after so long without an answer it is stuck."""
        ...

    def cancel(self) -> None:
        """Stop what is under way; its late reply is dropped."""
        ...

    def stop(self) -> None:
        """End it: ask, then make sure."""
        ...

    def end(self, why: str | None) -> None:
        """End it at once; `why` becomes its last error."""
        ...

    def abandon(self) -> None:
        """End it without the lock: whoever holds that waits for the worker, and finds out."""
        ...


def check_outputs(outputs: Sequence[Tensor], like: Tensor, count: int) -> None:
    """Raise ProtocolError unless there are `count` tensors of `like`'s shape and dtype."""
    seen = [(tuple(t.shape), t.dtype) for t in outputs]
    expected = [(tuple(like.shape), like.dtype)] * count
    if seen != expected:
        raise ProtocolError(f"the worker returned {seen}, expected {expected}")


def settle(worker: Worker, error: Exception) -> None:
    """After a request failed: a worker that cannot be trusted any more is ended."""
    if isinstance(error, WorkerStopped):
        return
    with worker.lock:
        if isinstance(error, STATE_IS_KNOWN):
            worker.last_error = str(error)
        else:
            worker.end(str(error))

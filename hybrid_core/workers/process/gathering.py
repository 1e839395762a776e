"""Exchanges inside a request, between this process and the worker's: both sides of it."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from typing import Any

import torch

from hybrid_core.errors import ProtocolError, WorkerFailed, WorkerStopped, WorkerTimeout
from hybrid_core.machine.settled import settled
from hybrid_core.transport import wire
from hybrid_core.transport.arenas.arena import Arena
from hybrid_core.transport.channel import TICK_SECONDS, Channel, Sends
from hybrid_core.transport.exchange import Exchange, Form
from hybrid_core.workers.contract import Tick, Tokens
from hybrid_core.workers.ends import End

Tensor = torch.Tensor


class ProcessLink(End):
    """Between the parent and one worker."""

    def __init__(self, tokens: Tokens, exchange: Exchange):
        super().__init__(tokens)
        self._exchange = exchange

    @property
    def number(self) -> int:
        """Of the latest turn."""
        return self._exchange.number

    def swap(self, at: int, mine: list[Tensor], forms: list[Form]) -> list[Tensor]:
        since = settled(self._exchange.device)
        came = self._exchange.swap(at, mine, forms)
        self.done.sent, self.done.received = self._exchange.sent, self._exchange.received
        self.done.seconds += time.monotonic() - since
        return came


def parents_side(
    channel: Channel,
    arena: Arena,
    number: int,
    tokens: Tokens,
    seconds: float,
    tick: Tick,
    device: torch.device,
    answered: Callable[[], None],
) -> ProcessLink:
    """seconds: for each turn. answered: called where the worker says that it has failed."""

    def send(turn: int, at: int, headers: Any) -> None:
        channel.send("gather", turn, tick, seconds, at=at, tensors=headers)

    def receive(turn: int) -> wire.Message:
        deadline = time.monotonic() + seconds
        while True:
            message = channel.receive(max(0.0, deadline - time.monotonic()), tick)
            if message["op"] == "failed" and message["seq"] == number:
                answered()
                raise WorkerFailed(wire.text(message, "error"))
            if message["op"] == "gather" and message["seq"] == turn:
                return message
            if message["seq"] >= number:
                raise ProtocolError(
                    f"'{message['op']}' {message['seq']} came, expected exchange {turn}"
                )

    return ProcessLink(tokens, Exchange(arena, number, send, receive, device))


class Incoming:
    """The worker's messages while it is inside a request."""

    def __init__(self, inbox: queue.SimpleQueue[bytes], given_up: Callable[[], bool]):
        self._inbox, self._given_up = inbox, given_up

    def gather(self, turn: int, seconds: float) -> wire.Message:
        """The parent's message of a turn. Raises WorkerStopped where the request is given up,
        WorkerTimeout, ProtocolError; what is no exchange stays for the loop.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                data = self._inbox.get(timeout=TICK_SECONDS)
            except queue.Empty:
                if self._given_up():
                    raise WorkerStopped from None
                if time.monotonic() > deadline:
                    raise WorkerTimeout(
                        f"exchange {turn} did not come within {seconds:.0f} s"
                    ) from None
                continue
            message = wire.decode(data, wire.REQUESTS)
            if message["op"] != "gather":
                self._inbox.put(data)
                raise ProtocolError(f"'{message['op']}' came inside a request")
            if message["seq"] == turn:
                return message
            if message["seq"] > turn:
                raise ProtocolError(f"exchange {message['seq']} came, expected {turn}")


def worker_side(
    channel: Sends,
    arena: Arena,
    incoming: Incoming,
    number: int,
    tokens: Tokens,
    seconds: float,
    device: torch.device | None,
) -> ProcessLink:
    """seconds: for each turn."""

    def send(turn: int, at: int, headers: Any) -> None:
        channel.send("gather", turn, at=at, tensors=headers)

    def receive(turn: int) -> wire.Message:
        return incoming.gather(turn, seconds)

    on = device or torch.device("cpu")
    return ProcessLink(tokens, Exchange(arena, number, send, receive, on))

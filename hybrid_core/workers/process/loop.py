"""The worker's loop: one request at a time, a reply for each."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, Protocol

import torch

from hybrid_core.errors import HybridError, ProtocolError
from hybrid_core.transport import wire
from hybrid_core.transport.arenas.shared_memory import Ticket, attach
from hybrid_core.transport.bulk import Assembly
from hybrid_core.transport.channel import Channel
from hybrid_core.transport.choice.data_planes import DataPlanes
from hybrid_core.workers.process.entry import Arrivals

log = logging.getLogger("hybrid_ksampler.worker")

Fields = Mapping[str, Any]
Tensors = Sequence[torch.Tensor]


class Evaluates(Protocol):
    """What the loop asks of the side that knows the models."""

    def load(self, fields: Fields, tensors: Tensors) -> dict[str, Any]: ...
    def conds(self, fields: Fields, tensors: Tensors) -> dict[str, Any]: ...
    def step(self, fields: Fields, tensors: Tensors) -> tuple[list[torch.Tensor], Any]: ...
    def stage(self, fields: Fields, tensors: Tensors) -> tuple[list[torch.Tensor], Any]: ...
    def forget(self, fields: Fields) -> dict[str, Any]: ...
    def status(self) -> dict[str, Any]: ...
    def interrupt(self, value: bool) -> None: ...
    def after_failure(self) -> None: ...


class Cancellation:
    """Which request runs and up to which number requests were given up."""

    def __init__(self, interrupt: Callable[[bool], None]):
        self._interrupt = interrupt
        self._lock = threading.Lock()
        self._running = self._cancelled = -1

    def cancel(self, number: int) -> None:
        with self._lock:
            self._cancelled = max(self._cancelled, number)
            if self._running == number:
                self._interrupt(True)

    def begin(self, number: int) -> bool:
        """Whether request `number` is still wanted; afterwards `cancel` interrupts it."""
        with self._lock:
            self._running = number
            self._interrupt(False)
            return number > self._cancelled


def serve(
    connection: Connection,
    ticket: Ticket,
    arrivals: Arrivals,
    threads: int,
    make_evaluator: Callable[[], Evaluates],
) -> None:
    """Answer requests until "stop"."""
    if threads:
        torch.set_num_threads(threads)
    channel = Channel(connection, wire.REQUESTS)
    planes = DataPlanes(attach(ticket))
    try:
        evaluator = make_evaluator()
    except Exception as error:  # noqa: BLE001  the parent must hear why, whatever it was
        channel.send("failed", 0, error=describe(error))
        raise
    cancellation = Cancellation(evaluator.interrupt)

    def at_once(data: bytes) -> bool:
        try:
            message = wire.decode(data, wire.REQUESTS)
        except ProtocolError:
            return False  # the loop reports it
        if message["op"] == "cancel":
            cancellation.cancel(message["seq"])
        return bool(message["op"] == "cancel")

    arrivals.on_message = at_once
    channel.send("ready", 0)
    assembly = Assembly()
    with torch.inference_mode():
        while True:
            number = 0
            try:
                message = wire.decode(arrivals.inbox.get(), wire.REQUESTS)
                number = message["seq"]
                if message["op"] == "stop":
                    planes.close()
                    return
                if cancellation.begin(number):
                    answer(message, channel, planes, assembly, evaluator)
                else:
                    channel.send("failed", number, error="cancelled")
            except BaseException as error:  # noqa: BLE001  ComfyUI's interrupt is a BaseException
                failure = describe(error)
                error = None  # type: ignore[assignment]  # lets go of the traceback's tensors
                assembly.clear()
                evaluator.interrupt(False)
                evaluator.after_failure()
                channel.send("failed", number, error=failure)


def answer(
    message: wire.Message,
    channel: Channel,
    planes: DataPlanes,
    assembly: Assembly,
    evaluator: Evaluates,
) -> None:
    """Do what `message` asks and reply."""
    op, number = message["op"], message["seq"]
    arena, device = planes.carrier(op)
    if op == "chunk":
        assembly.take(message, arena)
        channel.send("more", number)
        return
    if op == "plane":
        planes.choose(message)
        channel.send("ok", number)
        return
    if op == "probe":
        headers, differs = planes.probe(message)
        channel.send("result", number, tensors=headers, differs=differs)
        arena.finish()
        return
    inline = [arena.read(number, header, device) for header in wire.items(message, "tensors")]
    tensors = assembly.finish(message) or inline
    if op in ("step", "stage"):
        since = time.monotonic()
        evaluate = evaluator.step if op == "step" else evaluator.stage
        results, boundary = evaluate(message, tensors)
        headers = arena.write(number, results)
        micros = int((time.monotonic() - since) * 1e6)
        channel.send("result", number, tensors=headers, boundary=boundary, micros=micros)
        arena.finish()
        return
    if op == "load":
        reply = evaluator.load(message, tensors)
    elif op == "conds":
        reply = evaluator.conds(message, tensors)
    elif op == "forget":
        reply = evaluator.forget(message)
    else:
        reply = evaluator.status()
    arena.write(number, [])
    channel.send("ok", number, **reply)


def describe(error: BaseException) -> str:
    """The error in one line."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return f"out of memory: {error}"
    if isinstance(error, HybridError):
        return str(error)
    log.error("request failed", exc_info=error)
    return f"{type(error).__name__}: {error}"

"""The worker's loop: one request at a time, a reply for each."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from hybrid_core.errors import HybridError, ProtocolError, WorkerDied
from hybrid_core.transport import wire
from hybrid_core.transport.arenas.arena import Arena
from hybrid_core.transport.bulk import Assembly
from hybrid_core.transport.carry import flatten, unflatten
from hybrid_core.transport.channel import Channel, Sends
from hybrid_core.transport.choice.data_planes import DataPlanes
from hybrid_core.workers.evaluator import Evaluator, Models
from hybrid_core.workers.process.arrivals import Arrivals
from hybrid_core.workers.process.gathering import Incoming, worker_side
from hybrid_core.workers.process.parts import part_of

log = logging.getLogger("hybrid_ksampler.worker")


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

    def given_up(self, number: int) -> bool:
        with self._lock:
            return number <= self._cancelled

    def wanted(self, number: int) -> bool:
        """Whether request `number` is still wanted; afterwards `cancel` interrupts it."""
        with self._lock:
            self._running = number
            self._interrupt(False)
            return number > self._cancelled


def serve(
    channel: Channel, planes: DataPlanes, arrivals: Arrivals, make_models: Callable[[], Models]
) -> None:
    """Answer requests until "stop"."""
    try:
        evaluator = Evaluator(make_models())
    except Exception as error:  # noqa: BLE001  the parent must hear why, whatever it was
        channel.send("failed", 0, error=describe(error))
        raise
    models = evaluator.models
    cancellation = Cancellation(models.interrupt)

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
                if message["op"] == "gather":
                    continue  # of a request that has failed here
                if cancellation.wanted(number):
                    given_up = partial(cancellation.given_up, number)
                    incoming = Incoming(arrivals.inbox, given_up)
                    answer(message, channel, planes, assembly, evaluator, incoming)
                else:
                    channel.send("failed", number, error="cancelled")
            except BaseException as error:  # noqa: BLE001  ComfyUI's interrupt is a BaseException
                failure, gone = describe(error), int(isinstance(error, WorkerDied))
                error = None  # type: ignore[assignment]  # lets go of the traceback's tensors
                assembly.clear()
                models.interrupt(False)
                models.after_failure()
                channel.send("failed", number, error=failure, gone=gone)


def answer(
    message: wire.Message,
    channel: Channel,
    planes: DataPlanes,
    assembly: Assembly,
    evaluator: Evaluator,
    incoming: Incoming,
) -> None:
    """Do what `message` asks and reply."""
    op, number = message["op"], message["seq"]
    arena, device = planes.carrier(op)
    if op == "plane":
        planes.choose(message)
        channel.send("ok", number)
    elif op == "probe":
        headers, differs = planes.probe(message)
        channel.send("result", number, tensors=headers, differs=differs)
        arena.finish()
    else:
        carry_out(message, channel, arena, device, assembly, evaluator, incoming)


def carry_out(
    message: wire.Message,
    channel: Sends,
    arena: Arena,
    device: torch.device | None,
    assembly: Assembly,
    evaluator: Evaluator,
    incoming: Incoming | None,
) -> None:
    """What concerns models and contexts. incoming: None where no exchange can come inside."""
    op, number = message["op"], message["seq"]
    if op == "chunk":
        assembly.take(message, arena)
        channel.send("more", number)
        return
    inline = [arena.read(number, header, device) for header in wire.items(message, "tensors")]
    tensors = assembly.finish(message) or inline
    if op == "evaluate":
        since = time.monotonic()
        part, link = part_of(message), None
        if part.tokens is not None:
            if incoming is None:
                raise ProtocolError("tokens of a forward pass are not divided between computers")
            seconds = wire.whole_number(message, "patience") / 1000
            link = worker_side(channel, arena, incoming, number, part.tokens, seconds, device)
        context = wire.whole_number(message, "context")
        results, taken = evaluator.evaluate(context, tensors, part, link)
        sent = [*results]
        boundaries = None if taken is None else flatten(taken, sent, "the network's features")
        headers = arena.write(number if link is None else link.number + 1, sent)
        micros = int((time.monotonic() - since) * 1e6)
        gathered = 0 if link is None else int(link.done.seconds * 1e6)
        channel.send(
            "result", number, tensors=headers, boundaries=boundaries, micros=micros,
            gathered=gathered,
        )  # fmt: skip
        arena.finish()
        return
    reply: dict[str, Any] = {}
    if op == "load":
        reply["portrait"] = evaluator.load(unflatten(message.get("data"), tensors))
    elif op == "conds":
        on_device = [tensor.to(evaluator.models.device) for tensor in tensors]
        held = unflatten(message.get("data"), on_device)
        evaluator.hold(wire.whole_number(message, "context"), held)
    elif op == "forget":
        evaluator.forget(wire.text(message, "base_key"))
    else:
        reply = evaluator.models.status()
    arena.write(number, [])
    channel.send("ok", number, **reply)


def describe(error: BaseException) -> str:
    """The error in one line."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return f"out of memory: {error}"
    if isinstance(error, HybridError):
        return str(error)
    if not isinstance(error, Exception):  # ComfyUI's interrupt: nothing is wrong
        return "interrupted"
    log.error("request failed", exc_info=error)
    return f"{type(error).__name__}: {error}"

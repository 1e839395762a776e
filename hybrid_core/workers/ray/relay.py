"""The models of a worker's process that has none: it passes everything on to another computer.

The process stands between ComfyUI and Ray. Deadlines, ticks, Cancel and its end are those of any
worker's process, and whatever Ray does to a process that uses it is done to this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import nn

from hybrid_core.errors import NotSplittable, ProtocolError, WorkerFailed
from hybrid_core.stages.attention import PLAIN
from hybrid_core.stages.staging import Each
from hybrid_core.transport import wire
from hybrid_core.transport.bulk import pieces
from hybrid_core.transport.carry import Carried, carry
from hybrid_core.workers.contract import Part, Pictures
from hybrid_core.workers.process.parts import fields_of
from hybrid_core.workers.ray.frame import PIECE_BYTES, Body, packed, unpacked

MOST_OUTPUTS = 64
Tensor = torch.Tensor
Context = tuple[int, "Pictures | None"]  # the number that it has there


class Place(Protocol):
    """An actor on another computer."""

    def ask(self, frame: bytes) -> Any:
        """What it replies. Raises WorkerDied."""
        ...

    def cancel(self, number: int) -> None: ...


class Relay:
    """`Models` (evaluator.py) of another computer."""

    device = torch.device("cpu")
    attention = PLAIN

    def __init__(self, place: Place):
        self._place = place
        self._number = self._contexts = 0
        self._interrupted = False

    def load(self, data: Any) -> Any:
        return self._sent("load", {}, carry(data, "the model"))[0].get("portrait")

    def network(self) -> nn.Module:
        raise NotSplittable("the network is on another computer: only whole parts are asked of it")

    def context(self, data: Any) -> Context:
        self._contexts += 1
        self._sent("conds", {"context": self._contexts}, carry(data, "conditioning"))
        return self._contexts, None

    def context_of(self, context: Context, pictures: Pictures) -> Context:
        return context[0], pictures

    def evaluate(self, context: Context, inputs: Sequence[Tensor], each: Each | None) -> Any:
        number, pictures = context
        fields = {"context": number, **fields_of(Part((), pictures=pictures))}
        message, body = self._ask("evaluate", fields, inputs, "result")
        headers = wire.items(message, "tensors", MOST_OUTPUTS)
        return [body.read(message["seq"], header) for header in headers]

    def forget(self, base_key: str) -> None:
        self._ask("forget", {"base_key": base_key})

    def status(self) -> dict[str, Any]:
        message, _ = self._ask("status", {})
        return {name: value for name, value in message.items() if name not in ("op", "seq")}

    def interrupt(self, value: bool) -> None:
        self._interrupted = value
        if value:
            self._place.cancel(self._number)

    def after_failure(self) -> None:
        """The other side has seen to that."""

    def _sent(self, op: str, fields: dict[str, Any], carried: Carried) -> tuple[wire.Message, Body]:
        """Like `_ask`, for tensors of any size."""
        fields = {**fields, "data": carried.tree}
        if carried.size <= PIECE_BYTES:
            return self._ask(op, fields, carried.tensors)
        for piece in pieces(carried.tensors, PIECE_BYTES):
            self._ask("chunk", piece.fields, [piece.data], "more")
        return self._ask(op, {**fields, "pieced": len(carried.tensors)})

    def _ask(
        self,
        op: str,
        fields: dict[str, Any],
        tensors: Sequence[Tensor] = (),
        expected: str = "ok",
    ) -> tuple[wire.Message, Body]:
        """The reply and its tensors. Raises WorkerDied, WorkerFailed, ProtocolError."""
        if self._interrupted:
            raise WorkerFailed("interrupted")
        self._number += 1
        number, body = self._number, Body()
        headers = body.write(number, tensors)
        message = wire.encode(op, number, {**fields, "tensors": headers})
        reply, came = unpacked(self._place.ask(packed(message, body)), wire.REPLIES)
        if reply["op"] == "failed":
            raise WorkerFailed(wire.text(reply, "error"))
        if (reply["op"], reply["seq"]) != (expected, number):
            raise ProtocolError(
                f"'{reply['op']}' {reply['seq']} came from another computer, expected "
                f"'{expected}' {number}"
            )
        return reply, came

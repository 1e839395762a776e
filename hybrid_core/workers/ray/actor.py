"""What runs on the other computer: the worker's answers (process/loop.py) to frames of bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import torch

from hybrid_core.errors import ProtocolError
from hybrid_core.transport import wire
from hybrid_core.transport.bulk import Assembly
from hybrid_core.workers.evaluator import Evaluator, Models
from hybrid_core.workers.process.loop import Cancellation, carry_out, describe
from hybrid_core.workers.ray.frame import Body, packed, unpacked

NOT_HERE = frozenset({"plane", "probe", "gather", "stop", "cancel"})  # of one computer only
TAKEN = wire.REQUESTS - NOT_HERE


class Actor:
    """Ray makes one, and calls `cancel` beside the others, which come one after the other."""

    def __init__(self, make_models: Callable[[Mapping[str, Any]], Models]):
        self._make_models = make_models
        self._evaluator: Evaluator | None = None
        self._assembly = Assembly()
        self._cancellation = Cancellation(lambda _: None)

    def begin(self, told: bytes) -> bytes:
        """Make the models; told: what `make_models` is given, as JSON. A frame, ok or failed."""
        reply = _Reply(Body())
        try:
            self._evaluator = evaluator = Evaluator(self._make_models(json.loads(told)))
            self._cancellation = Cancellation(evaluator.models.interrupt)
            reply.send("ok", 0)
        except Exception as error:  # noqa: BLE001  the other side must hear why, whatever it was
            reply.send("failed", 0, error=describe(error))
        return reply.frame()

    def cancel(self, number: int) -> None:
        """Requests up to this one are not wanted any more."""
        self._cancellation.cancel(number)

    def ask(self, frame: bytes) -> bytes:
        """The reply to one request."""
        number, reply = 0, _Reply(Body())
        try:
            message, body = unpacked(frame, TAKEN)
            number = message["seq"]
            reply = _Reply(body)
            if self._cancellation.wanted(number):
                self._answer(message, reply)
            else:
                reply.send("failed", number, error="cancelled")
        except BaseException as error:  # noqa: BLE001  ComfyUI's interrupt is a BaseException
            failure = describe(error)
            error = None  # type: ignore[assignment]  # lets go of the traceback's tensors
            self._assembly.clear()
            if self._evaluator is not None:
                self._evaluator.models.interrupt(False)
                self._evaluator.models.after_failure()
            reply.send("failed", number, error=failure)
        return reply.frame()

    def _answer(self, message: wire.Message, reply: _Reply) -> None:
        if self._evaluator is None:
            raise ProtocolError("a request came to a computer that has not begun")
        with torch.inference_mode():
            body = reply.body
            carry_out(message, reply, body, None, self._assembly, self._evaluator, None)


class _Reply:
    """The one message that answers a request; its body has the request's tensors until then."""

    def __init__(self, body: Body):
        self.body, self._message = body, b""

    def send(self, op: str, number: int, /, **fields: Any) -> None:
        self._message = wire.encode(op, number, fields)
        if op != "result":
            self.body = Body()

    def frame(self) -> bytes:
        return packed(self._message, self.body)

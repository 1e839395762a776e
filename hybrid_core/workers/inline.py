"""A worker without a process: the same verbs, done in this one when their result is asked for.

A part of the tokens is evaluated at once, on a thread of its own: it needs this process's part.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import torch

from hybrid_core.config import Settings, WorkerDevice
from hybrid_core.errors import WorkerStopped, WorkerTimeout
from hybrid_core.transport.carry import Carried, carry, unflatten
from hybrid_core.workers.beside import Beside, ThreadLink
from hybrid_core.workers.contract import Answer, Part, Tick, Tokens
from hybrid_core.workers.evaluator import Evaluator, Models

DEVICE = WorkerDevice("this process")
DEFAULTS = Settings()
Tensor = torch.Tensor


class InlineWorker:
    """What it is given is copied, as another process would see it."""

    def __init__(
        self,
        make_models: Callable[[], Models],
        settings: Settings = DEFAULTS,
        device: WorkerDevice = DEVICE,
    ):
        self.device, self.settings, self.lock = device, settings, threading.RLock()
        self.epoch, self.pid = 0, None
        self.last_error: str | None = None
        self.started_at = self.last_used = time.monotonic()
        self.start_seconds: float | None = None
        self.bytes_sent = self.bytes_received = 0
        self.data_plane, self.data_plane_reason, self.data_plane_missed = "host", None, None
        self.measured_link = None
        self._make_models = make_models
        self._evaluator: Evaluator | None = None
        self._number = 0
        self._waiting: tuple[int, Callable[[], Any]] | None = None
        self._beside: Beside | None = None  # a part of the tokens, which is evaluated at once

    @property
    def alive(self) -> bool:
        return self._evaluator is not None

    def start(self) -> None:
        if self._evaluator is None:
            self._evaluator = Evaluator(self._make_models())
            self.epoch, self.last_error, self.start_seconds = self.epoch + 1, None, 0.0

    def ready(self) -> bool:
        return self.alive

    def idle(self) -> bool:
        return self._waiting is None

    def prefer(self, data_plane: str) -> None:
        pass

    def load(self, replica: Carried, tick: Tick) -> int:
        data = self._sent(replica)
        return self._post(lambda: self._up().load(data))

    def loaded(self, number: int, seconds: float) -> Any:
        return self._done(number)

    def hold(self, number: int, context: Carried, tick: Tick) -> None:
        self._up().hold(number, self._sent(context))

    def forget(self, base_key: str, tick: Tick) -> None:
        self._up().forget(base_key)

    def status(self, seconds: float, tick: Tick | None = None) -> dict[str, Any]:
        return self._up().models.status()

    def evaluate(self, context: int, x: Tensor, sigma: Tensor, part: Part) -> int:
        inputs = self._sent(carry((x, sigma)))
        if part.tokens is None:
            return self._post(lambda: self._up().evaluate(context, inputs, part))
        evaluator, link = self._up(), ThreadLink(part.tokens)
        self._beside = Beside(lambda: evaluator.evaluate(context, inputs, part, link), link)
        return self._post(self._beside.result)

    def link(
        self, number: int, tokens: Tokens, seconds: float, tick: Tick, device: torch.device
    ) -> ThreadLink:
        if self._beside is None or self._waiting is None or self._waiting[0] != number:
            raise WorkerTimeout(f"request {number} is not under way")
        return self._beside.link.other(tokens, seconds, tick)

    def answered(self, number: int) -> bool:
        return True

    def collect(
        self, number: int, part: Part, seconds: float, tick: Tick, device: torch.device
    ) -> Answer:
        tick()
        began = time.monotonic()
        if self._beside is not None:
            self._beside.wait(seconds, tick)
        outputs, boundaries = self._done(number)
        self.bytes_received += sum(t.numel() * t.element_size() for t in outputs)
        taken, gathered = time.monotonic() - began, 0.0
        if part.tokens is not None and self._beside is not None:
            taken, gathered = self._beside.seconds, self._beside.link.done.seconds
            self._beside = None
        return Answer([t.to(device) for t in outputs], boundaries, taken, gathered=gathered)

    def expect_answer(self, seconds: float) -> None:
        """An answer is always there."""

    def cancel(self) -> None:
        self._let_go()
        self._waiting = None

    def _let_go(self) -> None:
        """Of what is evaluated beside."""
        beside, self._beside = self._beside, None
        if beside is not None:
            beside.end()

    def stop(self) -> None:
        self.end(None)

    def end(self, why: str | None) -> None:
        self._let_go()
        self._evaluator = self._waiting = None
        self.last_error = why or self.last_error

    def abandon(self) -> None:
        self.end(None)

    def _up(self) -> Evaluator:
        if self._evaluator is None:
            raise WorkerStopped
        return self._evaluator

    def _sent(self, carried: Carried) -> Any:
        self.bytes_sent += carried.size
        return unflatten(carried.tree, [tensor.clone() for tensor in carried.tensors])

    def _post(self, task: Callable[[], Any]) -> int:
        self._up()
        self._number += 1
        self._waiting, self.last_used = (self._number, task), time.monotonic()
        return self._number

    def _done(self, number: int) -> Any:
        if self._waiting is None or self._waiting[0] != number:
            raise WorkerTimeout(f"request {number} is not under way")
        (_, task), self._waiting = self._waiting, None
        with torch.inference_mode():
            return task()

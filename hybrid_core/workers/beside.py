"""Something evaluated on a thread beside this one, and exchanges between the two."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import torch

from hybrid_core.errors import ProtocolError, WorkerFailed, WorkerStopped, WorkerTimeout
from hybrid_core.stages.tokens import Form
from hybrid_core.workers.contract import Tick, Tokens
from hybrid_core.workers.ends import End

Tensor = torch.Tensor
POLL_SECONDS = 0.05
PATIENCE = 60.0


class ThreadLink(End):
    """Between two threads of this process."""

    def __init__(self, tokens: Tokens, seconds: float = PATIENCE, tick: Tick = lambda: None):
        super().__init__(tokens)
        self.seconds, self.tick = seconds, tick
        self.ended = threading.Event()
        self.mine: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.theirs: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def other(self, tokens: Tokens, seconds: float, tick: Tick) -> ThreadLink:
        """The other side of this one. seconds: for each exchange."""
        made = ThreadLink(tokens, seconds, tick)
        made.mine, made.theirs, made.ended = self.theirs, self.mine, self.ended
        return made

    def swap(self, at: int, mine: list[Tensor], forms: list[Form]) -> list[Tensor]:
        since = time.monotonic()
        self.mine.put((at, [tensor.clone() for tensor in mine]))
        taken = self._taken()
        if isinstance(taken, WorkerFailed):
            raise taken
        there, tensors = taken
        seen = [(tuple(tensor.shape), tensor.dtype) for tensor in tensors]
        if there != at or seen != forms:
            raise ProtocolError(f"{seen} came at {there}, expected {forms} at {at}")
        self.done.sent += sum(tensor.nbytes for tensor in mine)
        self.done.received += sum(tensor.nbytes for tensor in tensors)
        self.done.seconds += time.monotonic() - since
        return list(tensors)

    def _taken(self) -> Any:
        deadline = time.monotonic() + self.seconds
        while not self.ended.is_set():
            try:
                return self.theirs.get(timeout=POLL_SECONDS)
            except queue.Empty:
                self.tick()
                if time.monotonic() > deadline:
                    raise WorkerTimeout(f"no exchange within {self.seconds:.0f} s") from None
        raise WorkerStopped


class Beside:
    """A task on a thread of its own, and its side of a link."""

    def __init__(self, task: Callable[[], Any], link: ThreadLink):
        self.link, self.seconds = link, 0.0
        self._task, self._made = task, None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="hybrid-beside", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        since = time.monotonic()
        try:
            with torch.inference_mode():
                self._made = self._task()
        except Exception as error:  # noqa: BLE001  the other thread raises it
            self._error = error
            self.link.mine.put(WorkerFailed(str(error)))
        self.seconds = time.monotonic() - since

    def wait(self, seconds: float, tick: Tick) -> None:
        """Until it is over. Raises WorkerTimeout."""
        deadline = time.monotonic() + seconds
        while self._thread.is_alive():
            self._thread.join(POLL_SECONDS)
            tick()
            if time.monotonic() > deadline:
                raise WorkerTimeout(f"no answer within {seconds:.0f} s")

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._made

    def end(self) -> None:
        """Both sides of the link raise WorkerStopped from now on: the task is over soon."""
        self.link.ended.set()
        self._thread.join(PATIENCE)

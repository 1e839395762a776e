"""One end of the pipe: checked messages, deadlines, and a tick while waiting."""

from __future__ import annotations

import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Protocol

from hybrid_core.errors import WorkerDied, WorkerTimeout
from hybrid_core.transport import wire
from hybrid_core.transport.ends import end_of

TICK_SECONDS = 0.05
SEND_SECONDS = 5.0  # only what is larger than a pipe holds waits at all, for an idle worker
Tick = Callable[[], None]


class Sends(Protocol):
    """Takes messages for the other side."""

    @property
    def send(self) -> Callable[..., None]:
        """Of an operation, a number, and fields by name."""
        ...


class Channel:
    """Sends messages and receives those whose operation is in `accepts`.

    Deadlines and ticks hold over whole messages. A call that ends before its message is through
    loses nothing: what is left of it goes out, or comes in, with the calls after it.
    """

    def __init__(self, connection: Connection, accepts: frozenset[str]):
        self._end = end_of(connection)
        self._accepts = accepts
        self._next: bytes | None = None  # has come and was not asked for yet

    def send(
        self,
        op: str,
        number: int,
        tick: Tick | None = None,
        seconds: float = SEND_SECONDS,
        **fields: Any,
    ) -> None:
        """Until the pipe has taken the message. `tick` as in `receive`.

        Raises ProtocolError for an overlong message, WorkerDied when nobody reads any more,
        WorkerTimeout after `seconds`.
        """
        deadline = time.monotonic() + seconds
        self._end.put(wire.encode(op, number, fields))
        while not self._sent(until(deadline)):
            wait_on(deadline, tick, f"a message was not read within {seconds:.1f} s")

    def receive(self, seconds: float, tick: Tick | None = None) -> wire.Message:
        """The next message. `tick` runs at least every TICK_SECONDS and may raise (Cancel).

        Raises WorkerTimeout after `seconds`, WorkerDied at the pipe's end, ProtocolError.
        """
        deadline = time.monotonic() + seconds
        while not self._arrived(until(deadline)):
            wait_on(deadline, tick, f"no answer within {seconds:.1f} s")
        data, self._next = self._next, None
        assert data is not None
        return wire.decode(data, self._accepts)

    def waiting(self) -> bool:
        """Whether a whole message can be received at once. Raises WorkerDied, ProtocolError."""
        return self._arrived(0.0)

    def close(self) -> None:
        self._end.close()

    def _sent(self, seconds: float) -> bool:
        try:
            return self._end.sent(seconds)
        except (EOFError, OSError, ValueError) as error:
            raise gone(error) from error

    def _arrived(self, seconds: float) -> bool:
        if self._next is None:
            try:
                self._next = self._end.taken(seconds)
            except (EOFError, OSError, ValueError) as error:
                raise gone(error) from error
        return self._next is not None


def until(deadline: float) -> float:
    """Seconds to wait at once."""
    return min(TICK_SECONDS, max(0.0, deadline - time.monotonic()))


def wait_on(deadline: float, tick: Tick | None, late: str) -> None:
    """Between two waits. Raises WorkerTimeout saying `late`, and whatever `tick` raises."""
    if tick is not None:
        tick()
    if time.monotonic() >= deadline:
        raise WorkerTimeout(late)


def gone(error: Exception) -> WorkerDied:
    """The pipe's own error in words; its end has none."""
    return WorkerDied(f"the other process is gone{f' ({error})' if str(error) else ''}")

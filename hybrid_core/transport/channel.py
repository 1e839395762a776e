"""One end of the pipe: checked messages, deadlines, and a tick while waiting."""

from __future__ import annotations

import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from hybrid_core.errors import WorkerDied, WorkerTimeout
from hybrid_core.transport import wire

TICK_SECONDS = 0.05


class Channel:
    """Sends messages and receives those whose operation is in `accepts`."""

    def __init__(self, connection: Connection, accepts: frozenset[str]):
        self._connection = connection
        self._accepts = accepts

    def send(self, op: str, number: int, **fields: Any) -> None:
        """Raises ProtocolError for an overlong message, WorkerDied when nobody reads any more."""
        data = wire.encode(op, number, fields)
        try:
            self._connection.send_bytes(data)
        except (OSError, ValueError) as error:
            raise gone(error) from error

    def receive(self, seconds: float, tick: Callable[[], None] | None = None) -> wire.Message:
        """The next message. `tick` runs at least every TICK_SECONDS and may raise (Cancel).

        Raises WorkerTimeout after `seconds`, WorkerDied at the pipe's end, ProtocolError.
        """
        deadline = time.monotonic() + seconds
        try:
            while not self._connection.poll(
                min(TICK_SECONDS, max(0.0, deadline - time.monotonic()))
            ):
                if tick is not None:
                    tick()
                if time.monotonic() >= deadline:
                    raise WorkerTimeout(f"no answer within {seconds:.1f} s")
            data = self._connection.recv_bytes(wire.MAX_BYTES)
        except (EOFError, OSError) as error:
            raise gone(error) from error
        return wire.decode(data, self._accepts)

    def waiting(self) -> bool:
        """Whether a message can be received at once. Raises WorkerDied."""
        try:
            return self._connection.poll(0)
        except (EOFError, OSError) as error:
            raise gone(error) from error

    def close(self) -> None:
        self._connection.close()


def gone(error: Exception) -> WorkerDied:
    """The pipe's own error in words; its end has none."""
    return WorkerDied(f"the other process is gone{f' ({error})' if str(error) else ''}")

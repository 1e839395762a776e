"""What comes through the worker's pipe. Standard library only."""

from __future__ import annotations

import os
import queue
from multiprocessing.connection import Connection

from hybrid_core.transport.wire import MAX_BYTES


class Arrivals:
    """Reads the pipe on a thread of its own: the parent's death ends the process at once."""

    def __init__(self, connection: Connection, inbox: queue.SimpleQueue[bytes]):
        self._connection = connection
        self.inbox = inbox
        self.on_message = lambda data: False  # True: the message was dealt with here and now

    def read(self) -> None:
        while True:
            try:
                data = self._connection.recv_bytes(MAX_BYTES)
            except (EOFError, OSError):
                os._exit(0)
            if not self.on_message(data):
                self.inbox.put(data)

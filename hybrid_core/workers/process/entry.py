"""First code of the worker's process. Standard library only: torch reads its environment once."""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

from hybrid_core.transport.arenas.shared_memory import Ticket
from hybrid_core.transport.wire import MAX_BYTES


def main(
    connection: Connection,
    ticket: Ticket,
    environment: Mapping[str, str],
    cores: tuple[int, ...],
    boot: Mapping[str, Any],
) -> None:
    """Serve until the parent says stop or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is the parent's to handle
    os.environ.update(environment)
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    arrivals = Arrivals(connection, inbox)
    threading.Thread(target=arrivals.read, name="reader", daemon=True).start()

    from hybrid_core.workers.process.loop import serve

    serve(connection, ticket, arrivals, len(cores), lambda: evaluator(boot))
    os._exit(0)  # there is nothing to save, and other libraries' threads may take their time


def evaluator(boot: Mapping[str, Any]) -> Any:
    """The side that knows the models, by the word "bridge" in `boot`. Raises ProtocolError."""
    bridge = boot.get("bridge", "comfy")
    if bridge == "comfy":
        from hybrid_core.comfy_bridge.evaluator import Evaluator as ComfyEvaluator

        return ComfyEvaluator(boot)
    if bridge == "diffusers":
        from hybrid_core.diffusers_bridge.evaluator import Evaluator as DiffusersEvaluator

        return DiffusersEvaluator()
    from hybrid_core.errors import ProtocolError

    raise ProtocolError(f"the worker was started for {bridge!r}, expected comfy or diffusers")


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

"""First code of the worker's process. Standard library only: torch reads its environment once."""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

from hybrid_core.transport.arenas.shared_memory import Ticket
from hybrid_core.workers.process import lifeline
from hybrid_core.workers.process.arrivals import Arrivals


def main(
    connection: Connection,
    ticket: Ticket,
    environment: Mapping[str, str],
    cores: tuple[int, ...],
    make_models: Callable[[Mapping[str, Any]], Any],
    boot: Mapping[str, Any],
) -> None:
    """Serve until the parent says stop or is gone. make_models came by its name."""
    lifeline.hold()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is the parent's to handle
    os.environ.update(environment)
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    arrivals = Arrivals(connection, inbox)
    threading.Thread(target=arrivals.read, name="reader", daemon=True).start()

    import torch

    from hybrid_core.transport import wire
    from hybrid_core.transport.arenas.shared_memory import attach
    from hybrid_core.transport.channel import Channel
    from hybrid_core.transport.choice.data_planes import DataPlanes
    from hybrid_core.workers.process.loop import serve

    if cores:
        torch.set_num_threads(len(cores))
    channel = Channel(connection, wire.REQUESTS)
    serve(channel, DataPlanes(attach(ticket)), arrivals, lambda: make_models(boot))
    os._exit(0)  # there is nothing to save, and other libraries' threads may take their time

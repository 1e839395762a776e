"""What a node says while it runs. The only user of PromptServer."""

from __future__ import annotations

import logging
from collections.abc import Callable

from server import PromptServer

log = logging.getLogger("hybrid_ksampler")


def announcer(node_id: str | None) -> Callable[[str], None]:
    """A function that shows a sentence on the node and in the log."""

    def announce(text: str) -> None:
        log.warning("node %s %s", node_id, text)
        server = getattr(PromptServer, "instance", None)
        if server is not None and node_id is not None:
            server.send_progress_text(text, node_id)

    return announce


def prompt_running() -> bool:
    """Whether ComfyUI executes a prompt at this moment."""
    server = getattr(PromptServer, "instance", None)
    return server is not None and bool(server.prompt_queue.currently_running)

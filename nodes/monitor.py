"""What the pack says to the pages: the only user of PromptServer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from comfy_execution.utils import get_executing_context
from server import PromptServer

from hybrid_core.comfy_bridge.graph_path import Graph
from hybrid_core.telling.live import Address, Live, LiveNode

log = logging.getLogger("hybrid_ksampler")
RUN_EVENT = "hybrid_ksampler.run"
WORKER_EVENT = "hybrid_ksampler.worker"
UI_KEY = "hybrid_run"


def _server() -> Any | None:
    return getattr(PromptServer, "instance", None)


def _running() -> list[Any]:
    """The prompts being executed; none in a ComfyUI that has no queue yet."""
    queue = getattr(_server(), "prompt_queue", None)
    return [] if queue is None else list(queue.currently_running.values())


def _tell_of_run(client_id: str, message: dict[str, Any]) -> None:
    server = _server()
    if server is not None:
        server.send_sync(RUN_EVENT, message, client_id)


LIVE = Live(_tell_of_run)


def announcer(node_id: str | None, shows_runs: bool) -> Callable[[str], None]:
    """A function that writes a sentence into the log, and on a node that does not show its runs."""

    def announce(text: str) -> None:
        log.warning("node %s %s", node_id, text)
        server = _server()
        if server is not None and node_id is not None and not shows_runs:
            server.send_progress_text(text, node_id)

    return announce


def watcher(node_id: str | None) -> LiveNode:
    """For the runs of a node; ComfyUI may keep its output and use it in a later prompt."""
    return LiveNode(LIVE, lambda: _address(str(node_id)))


def graph_of(hidden: Any) -> Graph | None:
    """The graph that runs, as the node with these hidden inputs sees it; None outside of one."""
    dynprompt = getattr(hidden, "dynprompt", None)
    if dynprompt is None or hidden.unique_id is None:
        return None
    context = get_executing_context()
    return Graph(dynprompt, str(hidden.unique_id), context.list_index if context else None)


def _address(node_id: str) -> Address:
    """Of a run that begins now, in the prompt being executed."""
    context, server = get_executing_context(), _server()
    if context is None or server is None:
        return Address(node_id)
    for _, prompt_id, _, extra, *_ in _running():
        if prompt_id == context.prompt_id:
            workflow_id = _text(extra, "extra_pnginfo", "workflow", "id")
            return Address(node_id, prompt_id, workflow_id, _text(extra, "client_id"))
    return Address(node_id, context.prompt_id)


def _text(value: Any, *path: str) -> str | None:
    """The text at this place of what a client sent, which may be anything."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, str) else None


def prompt_running() -> bool:
    """Whether ComfyUI executes a prompt at this moment."""
    return bool(_running())


def tell_of_worker(overview: dict[str, Any]) -> None:
    """To every page."""
    server = _server()
    if server is not None:
        server.send_sync(WORKER_EVENT, overview)


def routes() -> Any | None:
    """Where routes are added; None outside a server."""
    server = _server()
    return None if server is None else server.routes

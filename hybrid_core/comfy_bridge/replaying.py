"""In the worker: a part of the parent's graph, executed by ComfyUI's own executor.

Only the modules are imported that its nodes come from, with nobody in place of ComfyUI's server.
The executor keeps its results, so that a graph with one input changed runs that node alone.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import os
import threading
from collections.abc import Coroutine, Mapping
from typing import Any

import comfy.model_patcher
import comfy.sampler_helpers
import comfy.samplers
import psutil
from aiohttp import web
from comfy.patcher_extension import WrappersMP

from hybrid_core.comfy_bridge import parent_process
from hybrid_core.errors import NotPartitionable, ProtocolError
from hybrid_core.transport import wire

IMPORT_SECONDS = 60.0  # of one pack, after which this process ends itself
TOO_SLOW = 75  # its exit status then


class ImportRefused(NotPartitionable):
    """A pack that this process must not hold; it is ended."""

    def __init__(self, module: str, reason: str):
        """module: its file or folder."""
        super().__init__(reason)
        self.module = module


class Idle:
    """An event loop that runs nothing."""

    def create_task(self, task: Coroutine[Any, Any, Any], **_: Any) -> None:
        task.close()

    def call_soon_threadsafe(self, *_: Any, **__: Any) -> None:
        """Never."""

    call_soon = call_soon_threadsafe

    def is_running(self) -> bool:
        return False


class Silence:
    """ComfyUI's server as packs find it at their import, served by nobody.

    Routes, middlewares and static folders are taken, tasks are never run, prompts never executed.
    """

    client_id = last_node_id = last_prompt_id = user_manager = web_root = None
    port, address = 0, "127.0.0.1"
    number = 0

    def __init__(self, execution: Any) -> None:
        """execution: ComfyUI's module."""
        self.sockets: dict[str, Any] = {}
        self.sockets_metadata: dict[str, Any] = {}
        self.supports: list[str] = []
        self.on_prompt_handlers: list[Any] = []
        self.app, self.routes = web.Application(), web.RouteTableDef()
        self.loop = Idle()
        self.prompt_queue: Any = execution.PromptQueue(self)

    def send_sync(self, *_: Any, **__: Any) -> None:
        """Nobody listens."""

    def send_progress_text(self, *_: Any, **__: Any) -> None:
        """Nobody listens."""

    def queue_updated(self) -> None:
        """Nobody listens."""

    def add_on_prompt_handler(self, handler: Any) -> None:
        """No prompt comes."""


class Replaying:
    """Executes graphs. The first one brings ComfyUI's executor and an absent server."""

    def __init__(self) -> None:
        importlib.import_module("utils")  # 0.18: nodes hides it behind comfy/utils.py
        execution: Any = importlib.import_module("execution")
        server: Any = importlib.import_module("server")
        self._nodes: Any = importlib.import_module("nodes")
        self._silence = Silence(execution)
        server.PromptServer.instance = self._silence
        self._executor = execution.PromptExecutor(
            self._silence,
            cache_type=execution.CacheType.CLASSIC,
            cache_args={"lru": 0, "ram": 0, "ram_inactive": 0},
        )
        self.imported: set[str] = set()

    def output(self, told: dict[str, Any]) -> Any:
        """The output that is meant. Raises NotPartitionable, ProtocolError."""
        graph = _graph(wire.text(told, "graph"))
        node, slot = wire.text(told, "node"), wire.whole_number(told, "slot")
        modules = [tuple(module) for module in wire.items(told, "modules")]
        for module in modules:
            if len(module) != 2 or not all(isinstance(part, str) for part in module):
                raise ProtocolError(f"a module is {wire.shown(module)}, expected a name and a path")
            self._import(*module)
        parent_process.adopt_folders(wire.items(told, "folders"))
        self._check(graph, {parent for parent, _ in modules})
        self._executor.execute(graph, node, {}, [node])
        if not self._executor.success:
            raise NotPartitionable(f"the second process could not repeat {self._failure()}")
        entry = asyncio.run(_get(self._executor.caches.outputs, node))
        outputs = getattr(entry, "outputs", entry)
        if not outputs or slot >= len(outputs) or not outputs[slot]:
            raise ProtocolError(f"node {node} has no output {slot} here")
        values = outputs[slot]
        return values[min(wire.whole_number(told, "index"), len(values) - 1)]

    def forget(self) -> None:
        """Let go of every result."""
        self._executor.reset()

    def _import(self, parent: str, path: str) -> None:
        """One pack or file of nodes. Raises ImportRefused when that is not safe."""
        if path in self.imported:
            return
        name = os.path.splitext(os.path.basename(path))[0]
        if not os.path.exists(path):
            raise ImportRefused(path, f"{name} was not found in the second process")
        before = _traces()
        watchdog = threading.Timer(IMPORT_SECONDS, os._exit, (TOO_SLOW,))
        watchdog.daemon = True
        watchdog.start()
        try:
            loaded = asyncio.run(self._nodes.load_custom_node(path, module_parent=parent))
        finally:
            watchdog.cancel()
        watchdog.join(1.0)
        if not loaded:
            raise ImportRefused(path, f"the nodes of {name} could not be imported a second time")
        left = [what for what, count in _traces().items() if count > before[what]]
        if left:
            raise ImportRefused(
                path,
                f"importing the nodes of {name} {' and '.join(left)}, which must not happen twice",
            )
        self.imported.add(path)

    def _check(self, graph: Mapping[str, Any], parents: set[str]) -> None:
        """That every node is ComfyUI's own or of a module that was named."""
        for described in graph.values():
            cls = self._nodes.NODE_CLASS_MAPPINGS.get(described["class_type"])
            if cls is None:
                raise NotPartitionable(
                    f"the node {described['class_type']} is not there in the second process"
                )
            relative = getattr(cls, "RELATIVE_PYTHON_MODULE", "nodes")
            if relative != "nodes" and relative.rpartition(".")[0] not in parents:
                raise ProtocolError(f"the node {described['class_type']} is of {relative}")

    def _failure(self) -> str:
        for event, told in reversed(self._executor.status_messages):
            if event == "execution_error":
                return f"the node {told['node_type']}: {str(told['exception_message'])[:200]}"
        return "the graph"


def options_of(patcher: Any, device: Any) -> dict[str, Any]:
    """model_options of a run of this MODEL: what acts inside an evaluation, and nothing else."""
    options = comfy.model_patcher.create_model_options_clone(patcher.model_options)
    options.setdefault("transformer_options", {})
    comfy.sampler_helpers.prepare_model_patcher(patcher, {}, options)
    comfy.samplers.cast_to_load_options(options, device=device, dtype=patcher.model_dtype())
    options["transformer_options"].get("wrappers", {}).pop(WrappersMP.CALC_COND_BATCH, None)
    options.pop("context_handler", None)
    return options


def _graph(text: str) -> dict[str, dict[str, Any]]:
    """Nodes by their number. Raises ProtocolError for anything else."""
    try:
        graph = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a graph is no JSON: {error}") from error
    if not isinstance(graph, dict) or not all(
        isinstance(node, dict)
        and isinstance(node.get("class_type"), str)
        and isinstance(node.get("inputs"), dict)
        for node in graph.values()
    ):
        raise ProtocolError(f"a graph is {wire.shown(text)}, expected nodes by their number")
    return graph


async def _get(outputs: Any, node: str) -> Any:
    found = outputs.get(node)
    return await found if inspect.isawaitable(found) else found


def _traces() -> dict[str, int]:
    """What an import may leave behind that a process should not have twice."""
    process = psutil.Process()
    listening = getattr(process, "net_connections", process.connections)
    ports = [c for c in listening(kind="inet") if c.status == psutil.CONN_LISTEN]
    return {
        "opened a port": len(ports),
        "started a thread": threading.active_count(),
        "started a process": len(process.children()),
    }

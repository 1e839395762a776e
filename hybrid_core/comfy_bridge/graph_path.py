"""The part of a graph that makes a MODEL, as data that another ComfyUI can execute.

A node's hidden inputs hold the graph that runs. Nothing but its JSON is taken, and only nodes that
ComfyUI has registered; which of them cannot be repeated elsewhere is said by the node's title.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from comfy.model_patcher import ModelPatcher

from hybrid_core.comfy_bridge import parent_process
from hybrid_core.errors import NotPartitionable

comfy_nodes: Any = importlib.import_module("nodes")  # ComfyUI's
PASSED_THROUGH = ("Hybrid_AttachModel", "Hybrid_Monitor")  # this pack's own: they change no network
OF_A_RUN = {
    "LATENT": "takes latents, as samplers and decoders do",
    "NOISE": "samples",
    "SAMPLER": "samples",
    "GUIDER": "samples",
}
NETWORK_NODES = "comfy_api_nodes"
MOST_CHARACTERS = 100_000


@dataclass(frozen=True)
class GraphPath:
    """Nodes in the form of ComfyUI's API, and which output of which of them is meant."""

    graph: Mapping[str, Any]
    node: str
    slot: int
    index: int  # within a list of outputs
    modules: tuple[
        tuple[str, str], ...
    ]  # (ComfyUI's name for the parent, path) of packs and extras
    titles: tuple[str, ...]
    makers: Mapping[str, str]  # a node's title by the Python module that defines it

    @cached_property
    def text(self) -> str:
        """The nodes as JSON."""
        return json.dumps(self.graph, sort_keys=True)

    @cached_property
    def digest(self) -> str:
        told = [self.text, self.node, self.slot, self.index, self.modules]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    @property
    def by(self) -> str:
        """The nodes in words."""
        return ", ".join(self.titles)

    def maker(self, value: Any) -> str:
        """The title of the node that has put this code on the MODEL, as far as that shows."""
        module = getattr(value, "__module__", None) or type(value).__module__
        return f"the node '{self.makers[module]}'" if module in self.makers else "another node"

    def data(self) -> dict[str, Any]:
        """For the worker."""
        return {
            "graph": self.text, "node": self.node, "slot": self.slot, "index": self.index,
            "modules": [list(module) for module in self.modules],
            "folders": parent_process.folders(),  # packs add some when they are first used
        }  # fmt: skip


class Graph:
    """The graph that is being executed, as a node of it sees it."""

    def __init__(self, dynprompt: Any, node_id: str, list_index: int | None = None):
        self._dynprompt, self._node, self._index = dynprompt, node_id, list_index or 0

    def path_to_input(self, name: str) -> GraphPath:
        """What makes an input of the node. Raises NotPartitionable with the reason."""
        source = self._dynprompt.get_node(self._node).get("inputs", {}).get(name)
        if not _is_link(source):
            raise NotPartitionable(f"this node's input {name} has no link")
        node, slot = source
        return self.path_to(node, slot, self._index)

    def path_to(self, node: str, slot: int, index: int = 0) -> GraphPath:
        """What makes an output of a node. Raises NotPartitionable with the reason."""
        found: dict[str, Any] = {}
        modules: dict[tuple[str, str], None] = {}
        node, slot = self._source(node, slot)
        waiting = [node]
        while waiting:
            current = waiting.pop()
            if current in found:
                continue
            described = self._dynprompt.get_node(current)
            module = _checked(described)
            if module is not None:
                modules[module] = None
            inputs = dict(described.get("inputs", {}))
            for name, value in inputs.items():
                if _is_link(value):
                    source = self._source(*value)
                    self._check_kind(described, *source)
                    inputs[name] = list(source)
                    waiting.append(source[0])
            found[current] = {"class_type": described["class_type"], "inputs": inputs}
        titles = tuple(dict.fromkeys(title(self._dynprompt.get_node(n)) for n in reversed(found)))
        makers = {
            _class(described).__module__: title(self._dynprompt.get_node(name))
            for name, described in found.items()
        }
        path = GraphPath(found, node, slot, index, tuple(sorted(modules)), titles, makers)
        try:
            size = len(path.text)
        except (TypeError, ValueError, RecursionError) as error:
            raise NotPartitionable(
                f"an input of a node before this one is no data: {error}"
            ) from error
        if size > MOST_CHARACTERS:
            raise NotPartitionable(f"the nodes before this one hold {size} characters of input")
        return path

    def outputs_of(self, kind: str) -> list[tuple[str, int]]:
        """All outputs of this kind in the graph, as (node, slot)."""
        found = []
        for node in sorted(self._dynprompt.all_node_ids()):
            cls = _class(self._dynprompt.get_node(node))
            kinds = getattr(cls, "RETURN_TYPES", None) or ()
            found += [(node, slot) for slot, one in enumerate(kinds) if one == kind]
        return found

    def _source(self, node: str, slot: int) -> tuple[str, int]:
        """Where a link begins, behind nodes of this pack that hand a MODEL on."""
        while True:
            described = self._dynprompt.get_node(node)
            before = described.get("inputs", {}).get("model")
            if described["class_type"] not in PASSED_THROUGH or not _is_link(before):
                return node, slot
            node, slot = before

    def _check_kind(self, taker: Mapping[str, Any], node: str, slot: int) -> None:
        cls = _class(self._dynprompt.get_node(node))
        kinds = getattr(cls, "RETURN_TYPES", None) or ()
        why = (
            OF_A_RUN.get(kinds[slot])
            if slot < len(kinds) and isinstance(kinds[slot], str)
            else None
        )
        if why is not None:
            raise NotPartitionable(
                f"the node '{title(taker)}' before this one {why}, which the second process cannot "
                "repeat"
            )


def title(described: Mapping[str, Any]) -> str:
    """A node's title as the page shows it, or its name in the menu."""
    meta = described.get("_meta")
    own = meta.get("title") if isinstance(meta, dict) else None
    kind = str(described.get("class_type"))
    return str(own or comfy_nodes.NODE_DISPLAY_NAME_MAPPINGS.get(kind, kind))[:60]


def _class(described: Mapping[str, Any]) -> Any:
    """Of a node; None when ComfyUI does not know it."""
    return comfy_nodes.NODE_CLASS_MAPPINGS.get(described["class_type"])


def _is_link(value: Any) -> bool:
    return (
        isinstance(value, list) and len(value) == 2
        and isinstance(value[0], str) and type(value[1]) is int
    )  # fmt: skip


def _checked(described: Mapping[str, Any]) -> tuple[str, str] | None:
    """Where the node comes from, None for ComfyUI's own core. Raises NotPartitionable."""
    name, called = described["class_type"], title(described)
    cls = _class(described)
    if cls is None:
        raise NotPartitionable(f"the node '{called}' before this one is not known to ComfyUI")
    relative = getattr(cls, "RELATIVE_PYTHON_MODULE", "nodes")
    if getattr(cls, "API_NODE", False) or relative.startswith(NETWORK_NODES):
        raise NotPartitionable(f"the node '{called}' before this one asks a server on the network")
    if getattr(cls, "OUTPUT_NODE", False):
        raise NotPartitionable(f"the node '{called}' before this one writes or shows something")
    if getattr(cls, "NOT_IDEMPOTENT", False) or _always_changes(described.get("is_changed")):
        raise NotPartitionable(
            f"the node '{called}' before this one may give something else each time"
        )
    if relative == "nodes":
        return None
    parent, _, module = relative.rpartition(".")
    path = module_path(module, name, cls)
    if path is None:
        raise NotPartitionable(f"the file of the node '{called}' before this one was not found")
    return parent, path


def _always_changes(value: Any) -> bool:
    """Whether IS_CHANGED says so: by a number that equals nothing."""
    values = value if isinstance(value, list) else [value]
    return any(isinstance(one, float) and one != one for one in values)


def module_path(module: str, node: str, cls: type) -> str | None:
    """File or folder that ComfyUI loaded the node from."""
    for loaded in list(sys.modules.values()):
        file = getattr(loaded, "__file__", None)
        if not isinstance(file, str):
            continue
        folder, base = os.path.split(file)
        whole = base == "__init__.py"
        called = os.path.basename(folder) if whole else os.path.splitext(base)[0]
        if called != module or os.path.isabs(getattr(loaded, "__name__", "")) is False:
            continue
        mappings = getattr(loaded, "NODE_CLASS_MAPPINGS", None)
        if isinstance(mappings, dict) and mappings.get(node) is not cls:
            continue
        if mappings is None and not hasattr(loaded, "comfy_entrypoint"):
            continue
        return os.path.abspath(folder if whole else file)
    return None


class Origin:
    """The MODEL as it came to this pack's node, and the graph that the node is in."""

    def __init__(self, model: ModelPatcher, graph: Graph | None):
        self.model, self.graph = model, graph
        self._path: GraphPath | None = None

    def path(self) -> GraphPath:
        """What made the MODEL. Raises NotPartitionable."""
        if self.graph is None:
            raise NotPartitionable("the graph is not known")
        if self._path is None:
            self._path = self.graph.path_to_input("model")
        return self._path

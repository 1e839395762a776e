"""ComfyUI's nodes that take and give a MODEL, each in a graph of its own for the demo models."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from comfy_execution.graph import DynamicPrompt
from helpers import sample

import nodes
from hybrid_core.comfy_bridge.attach import attach
from hybrid_core.comfy_bridge.graph_path import Graph
from hybrid_core.comfy_bridge.replaying import Replaying
from hybrid_core.comfy_bridge.session import Session

MOST_SECONDS = 120.0  # a worker that starts takes several runs
HERE = "what this process has imported already"
PLAIN = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
# what other nodes give, by type
SOURCES = {
    "MODEL": ("other", 0),
    "VAE": ("model", 1),
    "IMAGE": ("image", 0),
    "CONDITIONING": ("prompt", 0),
    "LATENT_OPERATION": ("operation", 0),
}
# inputs whose defaults do nothing, or nothing on the demo models
CHOSEN: dict[str, dict[str, Any]] = {
    "ModelSamplingDiscrete": {"sampling": "v_prediction"},
    "CFGOverride": {"cfg": 4.0},
    "SelectModelDevice": {"device": "default"},
    "SelfAttentionGuidance": {"scale": 0.5},
    "LoraLoaderModelOnly": {"lora_name": "some.safetensors"},
    "LoraLoaderBypassModelOnly": {"lora_name": "some.safetensors"},
    "ScaleROPE": {"scale_x": 1.2},
}


NOT_FOR_THESE = {
    "FluxKVCache": "Flux",
    "HiDreamO1PatchSeamSmoothing": "HiDream",
    "HypernetworkLoader": "a hypernetwork's file",
    "ModelNoiseScale": "HiDream",
    "TripoSplatSamplingPreview": "TripoSplat",
    "TorchCompileModel": "minutes to compile; tests/e2e/test_replay.py compiles a part",
}


class NeedsOthers(Exception):
    """A node that the demo models are not enough for."""


@dataclass
class Outcome:
    """What came of a node: how it ran, and how far its image is from KSampler's."""

    how: str  # shared, or local
    error: float
    reason: str


def of_models() -> list[str]:
    """Every node that takes and gives a MODEL."""
    return sorted(
        name
        for name, cls in nodes.NODE_CLASS_MAPPINGS.items()
        if "MODEL" in (getattr(cls, "RETURN_TYPES", None) or ())
        and getattr(cls, "RELATIVE_PYTHON_MODULE", "nodes").startswith(("nodes", "comfy_extras"))
        and any(kind == "MODEL" for _, kind, _ in _inputs(cls))
    )


def _inputs(cls: Any) -> list[tuple[str, Any, dict[str, Any]]]:
    found = []
    for name, (kind, *options) in cls.INPUT_TYPES().get("required", {}).items():
        found.append((name, kind, options[0] if options else {}))
    return found


def graph_with(name: str, kind: str) -> dict[str, Any]:
    """The node between a demo model and a sampler. Raises NeedsOthers."""
    if name in NOT_FOR_THESE:
        raise NeedsOthers(NOT_FOR_THESE[name])
    inputs: dict[str, Any] = {}
    for number, (key, wanted, options) in enumerate(_inputs(nodes.NODE_CLASS_MAPPINGS[name])):
        if key in CHOSEN.get(name, {}):
            inputs[key] = CHOSEN[name][key]
        elif isinstance(wanted, list) or wanted == "COMBO":
            choices = wanted if isinstance(wanted, list) else options.get("options", [])
            inputs[key] = options.get("default", choices[0] if choices else None)
        elif wanted in PLAIN:
            inputs[key] = options.get("default", {"INT": 0, "FLOAT": 0.0, "STRING": ""}.get(wanted))
        elif wanted in SOURCES:
            inputs[key] = list(SOURCES[wanted] if number else ("model", 0))
        else:
            raise NeedsOthers(str(wanted))
    slot = list(nodes.NODE_CLASS_MAPPINGS[name].RETURN_TYPES).index("MODEL")
    demo = {"class_type": "Hybrid_DemoModel", "inputs": {"name": kind}}
    return {
        "model": demo,
        "other": {
            "class_type": "CFGNorm" if name != "CFGNorm" else "RescaleCFG",
            "inputs": {"model": ["model", 0], "strength": 0.9, "multiplier": 0.7},
        },
        "image": {
            "class_type": "EmptyImage",
            "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0x4488CC},
        },
        "prompt": {
            "class_type": "Hybrid_DemoPrompt",
            "inputs": {"model": ["model", 0], "text": "green square"},
        },
        "operation": {
            "class_type": "LatentOperationTonemapReinhard", "inputs": {"multiplier": 1.0},
        },
        "node": {"class_type": name, "inputs": inputs},
        "sampler": {"class_type": "Hybrid_KSampler", "inputs": {"model": ["node", slot]}},
    }  # fmt: skip


class Bench:
    """Executes graphs in this process and samples what they give, alone and with the worker."""

    def __init__(self, session: Session):
        self._session, self._here = session, Replaying()
        self._here.imported.add(HERE)

    def model(self, graph: dict[str, Any], node: str, slot: int = 0) -> Any:
        told = {"graph": json.dumps(graph), "node": node, "slot": slot, "index": 0, "folders": []}
        modules = {
            (cls.RELATIVE_PYTHON_MODULE.rpartition(".")[0], HERE)
            for described in graph.values()
            if (cls := nodes.NODE_CLASS_MAPPINGS[described["class_type"]])
            and hasattr(cls, "RELATIVE_PYTHON_MODULE")
        }
        return self._here.output({**told, "modules": [list(module) for module in modules]})

    def outcome(
        self,
        graph: dict[str, Any],
        kind: str,
        steps: int = 3,
        behind: Callable[[Any], Any] = lambda model: model,
    ) -> Outcome:
        """Runs until the worker takes part in every step or the run says why it does not.

        behind: a node behind Hybrid Attach Model.
        """
        slot = graph["sampler"]["inputs"]["model"][1]
        model = self.model(graph, "node", slot)
        expected = sample(behind(model), kind, steps=steps)
        reports: list[Any] = []
        reader = Graph(DynamicPrompt(graph), "sampler")
        attached = attach(model, "exact", len, self._session, reports.append, graph=reader)
        deadline = time.monotonic() + MOST_SECONDS
        while time.monotonic() < deadline:
            seen = sample(behind(attached), kind, steps=steps)
            if reports[-1].reasons or reports[-1].partitioned == steps:
                break
        reason = reports[-1].reasons[-1] if reports[-1].reasons else ""
        if reason:
            seen = sample(behind(attached), kind, steps=steps)
        error = float((seen - expected).norm() / expected.norm())
        shared = reports[-1].partitioned == steps
        if not torch.isfinite(expected).all():
            error = 0.0 if torch.equal(seen.isnan(), expected.isnan()) else 1.0
        return Outcome("shared" if shared else "local", error, reason)

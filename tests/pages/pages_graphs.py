"""Workflows as the frontend loads them, and made-up runs, built in Python."""

from __future__ import annotations

import itertools
import time
import uuid
from typing import Any

SAMPLER = 5
Workflow = dict[str, Any]
_seeds = itertools.count(time.time_ns() % 1_000_000_000)

INPUTS = {
    "Hybrid_DemoModel": [],
    "Hybrid_DemoPrompt": [("model", "MODEL")],
    "EmptyLatentImage": [],
    "KSampler": [
        ("model", "MODEL"), ("positive", "CONDITIONING"), ("negative", "CONDITIONING"),
        ("latent_image", "LATENT"),
    ],
    "Hybrid_Monitor": [("model", "MODEL")],
    "Hybrid_AttachModel": [("model", "MODEL"), ("options", "HYBRID_OPTIONS")],
    "SaveLatent": [("samples", "LATENT")],
    "VAEDecode": [("samples", "LATENT"), ("vae", "VAE")],
    "PreviewImage": [("images", "IMAGE")],
}  # fmt: skip
INPUTS["KSamplerAdvanced"] = INPUTS["KSampler"]
INPUTS["Hybrid_KSampler"] = [*INPUTS["KSampler"], ("options", "HYBRID_OPTIONS")]
INPUTS["Hybrid_KSamplerAdvanced"] = INPUTS["Hybrid_KSampler"]
OUTPUTS = {
    "Hybrid_DemoModel": [("MODEL", "MODEL"), ("VAE", "VAE")],
    "Hybrid_DemoPrompt": [("CONDITIONING", "CONDITIONING")],
    "EmptyLatentImage": [("LATENT", "LATENT")],
    "KSampler": [("LATENT", "LATENT")],
    "KSamplerAdvanced": [("LATENT", "LATENT")],
    "Hybrid_KSampler": [("LATENT", "LATENT"), ("report", "STRING")],
    "Hybrid_KSamplerAdvanced": [("LATENT", "LATENT"), ("report", "STRING")],
    "Hybrid_Monitor": [("MODEL", "MODEL")],
    "Hybrid_AttachModel": [("MODEL", "MODEL")],
    "SaveLatent": [],
    "VAEDecode": [("IMAGE", "IMAGE")],
    "PreviewImage": [],
}


class Graph:
    """One workflow under construction."""

    def __init__(self, workflow_id: str | None = None):
        self.document: Workflow = {
            "id": workflow_id or str(uuid.uuid4()),
            "revision": 0,
            "version": 0.4,
            "last_node_id": 0,
            "last_link_id": 0,
            "nodes": [],
            "links": [],
            "groups": [],
            "config": {},
            "extra": {"ds": {"scale": 1, "offset": [0, 60]}},
        }

    def add(self, node_id: int, kind: str, at: tuple, size: tuple, values=(), **more) -> int:
        node = {
            "id": node_id,
            "type": kind,
            "pos": list(at),
            "size": list(size),
            "flags": {},
            "order": len(self.document["nodes"]),
            "mode": 0,
            "inputs": [{"name": n, "type": t, "link": None} for n, t in INPUTS[kind]],
            "outputs": [{"name": n, "type": t, "links": []} for n, t in OUTPUTS[kind]],
            "properties": {"Node name for S&R": kind},
            "widgets_values": list(values),
            **more,
        }
        self.document["nodes"].append(node)
        self.document["last_node_id"] = max(self.document["last_node_id"], node_id)
        return node_id

    def node(self, node_id: int) -> dict[str, Any]:
        return next(n for n in self.document["nodes"] if n["id"] == node_id)

    def connect(self, source: int, output: int, target: int, name: str) -> None:
        self.document["last_link_id"] += 1
        link = self.document["last_link_id"]
        slots = self.node(target)["inputs"]
        slot = next(i for i, candidate in enumerate(slots) if candidate["name"] == name)
        slots[slot]["link"] = link
        out = self.node(source)["outputs"][output]
        out["links"].append(link)
        self.document["links"].append([link, source, output, target, slot, out["type"]])


def sampler_values(kind: str, steps: int, seed: int | None, mode: str, tolerance: float) -> list:
    seed = next(_seeds) if seed is None else seed
    if kind.endswith("Advanced"):
        values = ["enable", seed, "fixed", steps, 5.0, "euler", "normal", 0, 10000, "disable"]
    else:
        values = [seed, "fixed", steps, 5.0, "euler", "normal", 1.0]
    return values + ([mode, tolerance] if kind.startswith("Hybrid_") else [])


def text_to_latent(
    kind: str = "Hybrid_KSampler",
    steps: int = 12,
    seed: int | None = None,
    mode: str = "adaptive",
    tolerance: float = 0.01,
    size: tuple[int, int] = (330, 560),
    workflow_id: str | None = None,
    plot: str | None = None,
    **sampler,
) -> Workflow:
    """A demo model, one sampler (node 5), the latent saved. A seed of its own by default.

    plot: open or folded, whatever the settings are.
    """
    graph = Graph(workflow_id)
    if plot is not None:
        sampler["properties"] = {"Node name for S&R": kind, "hybrid_plot": plot}
    graph.add(1, "Hybrid_DemoModel", (80, 110), (270, 80), ["mmdit"])
    graph.add(2, "Hybrid_DemoPrompt", (80, 240), (270, 110), ["red heart"])
    graph.add(3, "Hybrid_DemoPrompt", (80, 400), (270, 110), [""])
    graph.add(4, "EmptyLatentImage", (80, 560), (270, 110), [64, 64, 1])
    values = sampler_values(kind, steps, seed, mode, tolerance)
    graph.add(SAMPLER, kind, (400, 110), size, values, **sampler)
    graph.add(6, "SaveLatent", (830, 110), (270, 60), ["latents/page"])
    graph.connect(1, 0, 2, "model")
    graph.connect(1, 0, 3, "model")
    graph.connect(1, 0, SAMPLER, "model")
    graph.connect(2, 0, SAMPLER, "positive")
    graph.connect(3, 0, SAMPLER, "negative")
    graph.connect(4, 0, SAMPLER, "latent_image")
    graph.connect(SAMPLER, 0, 6, "samples")
    return graph.document


def watched(steps: int = 12) -> Workflow:
    """ComfyUI's own sampler on an attached model that a Hybrid_Monitor (node 8) watches."""
    document = text_to_latent("KSampler", steps)
    graph = Graph()
    graph.document = document
    document["links"] = [link for link in document["links"] if link[1:5] != [1, 0, SAMPLER, 0]]
    links = graph.node(1)["outputs"][0]["links"]
    links[:] = [link[0] for link in document["links"] if link[1:3] == [1, 0]]
    graph.add(7, "Hybrid_AttachModel", (830, 240), (300, 110), ["adaptive", 0.01])
    graph.add(8, "Hybrid_Monitor", (830, 400), (330, 280))
    graph.connect(1, 0, 7, "model")
    graph.connect(7, 0, 8, "model")
    graph.connect(8, 0, SAMPLER, "model")
    return document


def grouped() -> Workflow:
    """A KSampler and its latent in a group node, as old frontends saved them."""
    document = text_to_latent("KSampler", steps=4)
    graph = Graph()
    graph.document = document
    members = [{**graph.node(id), "index": index} for index, id in enumerate((4, SAMPLER))]
    for member in members:
        member["inputs"] = [{**slot, "link": None} for slot in member["inputs"]]
        member["outputs"] = [{**slot, "links": []} for slot in member["outputs"]]
    values = [value for member in members for value in member["widgets_values"]]
    inner = {"nodes": members, "links": [[0, 0, 1, 3, 4, "LATENT"]], "external": []}
    document["extra"]["groupNodes"] = {"Pair": inner}
    INPUTS["workflow>Pair"] = INPUTS["KSampler"][:3]
    OUTPUTS["workflow>Pair"] = OUTPUTS["KSampler"]
    document["nodes"] = [node for node in document["nodes"] if node["id"] not in (4, SAMPLER)]
    outside = [link for link in document["links"] if not {link[1], link[3]} & {4, SAMPLER}]
    document["links"] = outside
    for node in document["nodes"]:
        for slot in node["outputs"]:
            slot["links"] = [link[0] for link in outside if link[0] in slot["links"]]
    graph.add(9, "workflow>Pair", (400, 110), (330, 400), values)
    for source, name in ((1, "model"), (2, "positive"), (3, "negative")):
        graph.connect(source, 0, 9, name)
    graph.connect(9, 0, 6, "samples")
    return document


def row_of(step: int, kind: str, **fields: Any) -> dict[str, Any]:
    """A row as the server sends it."""
    empty = {"branch": None, "sigma": None, "discrepancy": None, "drift": None, "ms": 9.0}
    times = {"own_ms": 9.0, "worker_ms": None, "waited_ms": None}
    return {"step": step, "kind": kind, **empty, **times, **fields}


def rows_of(count: int = 20, warm: int = 4, end: int = 3, refresh: int = 4) -> list[dict[str, Any]]:
    """Rows of a plausible adaptive run; units as in the event."""
    rows = []
    for step in range(count):
        pipelined = warm <= step < count - end and (step - warm) % refresh != refresh - 1
        times = (55.0, 50.0, 52.0) if pipelined else (100.0, 95.0, 90.0)
        rows.append(
            row_of(
                step,
                "pipelined" if pipelined else "exact",
                branch="cond" if pipelined else None,
                sigma=14.6 * (1 - step / count),
                discrepancy=0.02 * 0.8**step + 0.001 + 0.0004 * (step % 3),
                drift=0.004 + 0.0001 * step,
                waited_ms=2.0,
                **dict(zip(("ms", "own_ms", "worker_ms"), times, strict=True)),
            )
        )
    return rows


def run_event(
    node: str, workflow_id: str | None, rows: list[dict[str, Any]], **changes
) -> dict[str, Any]:
    """A snapshot as the server would send it."""
    return {
        "run": f"made-up-{uuid.uuid4()}",
        "node": node,
        "prompt_id": "made-up",
        "workflow_id": workflow_id,
        "seq": 1,
        "start": 0,
        "rows": rows,
        "total": len(rows),
        "mode": "adaptive",
        "tolerance": 0.01,
        "status": "done",
        "reasons": [],
        "ideal": 1.72,
        "ratio": 1.41,
        "cut": "joint_blocks.2",
        "started": time.time(),
        **changes,
    }

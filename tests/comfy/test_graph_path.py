"""The part of a graph that makes a MODEL: what is taken, what is refused, and by which words."""

from __future__ import annotations

import json
from types import SimpleNamespace

import folder_paths
import pytest
from comfy_execution.graph import DynamicPrompt

import nodes
from hybrid_core.comfy_bridge import graph_path, parent_process
from hybrid_core.comfy_bridge.graph_path import Graph
from hybrid_core.comfy_bridge.replayed import Replays
from hybrid_core.comfy_bridge.replaying import Replaying
from hybrid_core.errors import NotPartitionable, ProtocolError


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


CHAIN = {
    "load": node("UNETLoader", unet_name="x.safetensors", weight_dtype="default"),
    "lora": node("LoraLoaderModelOnly", model=["load", 0], lora_name="y", strength_model=0.5),
    "attach": node("Hybrid_AttachModel", model=["lora", 0], mode="exact"),
    "other": node("EmptyLatentImage", width=64, height=64, batch_size=1),
    "us": node("Hybrid_KSampler", model=["attach", 0], latent_image=["other", 0]),
}


def path(graph, to="us"):
    return Graph(DynamicPrompt(graph), to).path_to_input("model")


def test_a_path_holds_what_makes_the_model_and_nothing_else():
    found = path(CHAIN)
    assert set(found.graph) == {"load", "lora"}, "this pack's own node is passed over"
    assert (found.node, found.slot, found.modules) == ("lora", 0, ())
    assert found.titles == ("Load Diffusion Model", "Load LoRA")


def test_a_path_is_another_when_an_input_is():
    changed = {**CHAIN, "lora": node("LoraLoaderModelOnly", **CHAIN["lora"]["inputs"])}
    assert path(changed).digest == path(CHAIN).digest
    changed["lora"]["inputs"] = {**changed["lora"]["inputs"], "strength_model": 0.6}
    assert path(changed).digest != path(CHAIN).digest


def test_nodes_of_an_expansion_are_found():
    prompt = DynamicPrompt(CHAIN)
    inner = node("Hybrid_KSampler", model=["us.0", 0])
    made = node("LoraLoaderModelOnly", model=["load", 0])
    prompt.add_ephemeral_node("us.0", made, "us", "us")
    prompt.add_ephemeral_node("us.1", inner, "us", "us")
    assert set(Graph(prompt, "us.1").path_to_input("model").graph) == {"load", "us.0"}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"lora": node("Nobody", model=["load", 0])}, "'Nobody' before this one is not known"),
        ({"lora": node("SaveLatent", model=["load", 0])}, "writes or shows something"),
        ({"lora": node("VAEDecode", model=["load", 0], samples=["other", 0])}, "takes latents"),
        (
            {"lora": {**CHAIN["lora"], "is_changed": [float("nan")], "_meta": {"title": "Mine"}}},
            "the node 'Mine' before this one may give something else each time",
        ),
        ({"us": node("Hybrid_KSampler", model="text")}, "input model has no link"),
        ({"load": node("UNETLoader", unet_name="x" * 200_000)}, "characters of input"),
    ],
)
def test_what_cannot_be_repeated_is_named(changed, words):
    with pytest.raises(NotPartitionable, match=words):
        path({**CHAIN, **changed})


def test_a_class_of_another_file_than_comfyuis_own_needs_its_module(monkeypatch):
    cls = type("Foreign", (), {"RELATIVE_PYTHON_MODULE": "custom_nodes.nobody"})
    monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, "Foreign", cls)
    with pytest.raises(NotPartitionable, match="the file of the node 'Foreign'"):
        path({**CHAIN, "lora": node("Foreign", model=["load", 0])})
    assert graph_path.module_path("nobody", "Foreign", cls) is None


@pytest.mark.parametrize(
    "told",
    [
        {"graph": "[1, 2", "node": "a", "slot": 0, "index": 0, "modules": []},
        {"graph": "[]", "node": "a", "slot": 0, "index": 0, "modules": []},
        {"graph": '{"a": {"class_type": 3, "inputs": {}}}', "node": "a", "slot": 0, "modules": []},
        {"graph": "[" * 90_000, "node": "a", "slot": 0, "index": 0, "modules": []},
        {"graph": "{}", "node": "a", "slot": 0, "index": 0, "modules": [["custom_nodes", 3]]},
        {"graph": "{}", "node": "a", "slot": -1, "index": 0, "modules": []},
    ],
)
def test_a_malformed_graph_is_refused_by_name(told):
    with pytest.raises(ProtocolError):
        Replaying().output(told)


@pytest.mark.parametrize(
    "entry", ["loras", ["loras", "/models", []], ["loras", [3], []], [1, [], []]]
)
def test_a_malformed_model_folder_is_refused_by_name(entry):
    with pytest.raises(ProtocolError, match="expected a name, folders and endings"):
        parent_process.adopt_folders([entry])


def test_a_folder_that_is_added_later_is_told_with_the_graph(monkeypatch):
    before = path(CHAIN).data()["folders"]
    kinds = folder_paths.folder_names_and_paths
    for kind, found in kinds.items():
        monkeypatch.setitem(kinds, kind, found)  # as it was, afterwards
    monkeypatch.setitem(kinds, "loras", ([*kinds["loras"][0], "/another"], kinds["loras"][1]))
    now = path(CHAIN).data()["folders"]
    (loras,) = (folders for kind, folders, _ in now if kind == "loras")
    assert now != before and loras[-1] == "/another"
    parent_process.adopt_folders(before)
    assert "/another" not in kinds["loras"][0]


def test_a_node_of_a_module_that_was_not_named_is_refused(monkeypatch):
    cls = type("Foreign", (), {"RELATIVE_PYTHON_MODULE": "custom_nodes.nobody"})
    monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, "Foreign", cls)
    graph = json.dumps({"a": node("Foreign")})
    told = {"graph": graph, "node": "a", "slot": 0, "index": 0, "modules": [], "folders": []}
    with pytest.raises(ProtocolError, match=r"is of custom_nodes\.nobody"):
        Replaying().output(told)


def test_only_the_module_that_failed_is_not_imported_again():
    replays, worker = Replays(), SimpleNamespace(last_error=None)
    both, one = (
        SimpleNamespace(modules=[("custom_nodes", name) for name in names])
        for names in (("good", "bad"), ("good",))
    )
    for module in ("bad", "another", None):
        replays.refuse(both, module, "it wants to be alone")
    replays.check(one, worker)
    with pytest.raises(NotPartitionable, match="alone .not tried again"):
        replays.check(both, worker)

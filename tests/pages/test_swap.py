"""Swap to Hybrid KSampler and back."""

from __future__ import annotations

import json

import pytest
import torch
from pages_graphs import SAMPLER, Graph, grouped, sampler_values, text_to_latent
from safetensors.torch import load_file

from demo.server import ROOT

EXECUTE = "(id) => app.extensionManager.command.execute(id)"
TO_HYBRID = "HybridKSampler.SwapWorkflow.hybrid"
TO_KSAMPLER = "HybridKSampler.SwapWorkflow.ksampler"
TYPE = "(type) => probe.node('5')?.type === type"
PAIRS = [("KSampler", "Hybrid_KSampler"), ("KSamplerAdvanced", "Hybrid_KSamplerAdvanced")]


def latents(tab) -> torch.Tensor:
    (saved,) = tab.run()["outputs"]["6"]["latents"]
    path = tab.server.folder / "output" / saved["subfolder"] / saved["filename"]
    return load_file(path)["latent_tensor"]


def kept(tab) -> dict:
    """What a swap must not touch, of the sampler and of the links."""
    node = tab.serialized(SAMPLER)
    graph = tab.js("probe.root().serialize()")
    links = [[str(link[1]), link[2], str(link[3]), link[4]] for link in graph["links"]]
    return {
        "pos": node["pos"],
        "color": node.get("color"),
        "title": tab.js("probe.node('5').title"),
        "mode": node["mode"],
        "values": node["widgets_values"],
        "links": sorted(links),
    }


@pytest.mark.parametrize(("core", "hybrid"), PAIRS)
def test_swap_and_back_keeps_everything(tab, core, hybrid):
    tab.load(text_to_latent(core, steps=4, size=(330, 300), title="Mine", color="#432"))
    before = kept(tab)
    tab.js(EXECUTE, TO_HYBRID)
    tab.until(TYPE, hybrid)
    swapped = kept(tab)
    own = swapped["values"][len(before["values"]) :]
    assert len(own) == 2 and own[0] in ("adaptive", "paper", "exact", "off")
    swapped["values"] = swapped["values"][: len(before["values"])]
    assert swapped == before
    tab.until("probe.onScreen('5')")
    tab.js(EXECUTE, TO_KSAMPLER)
    tab.until(TYPE, core)
    assert kept(tab) == before


@pytest.mark.once
@pytest.mark.parametrize(("core", "hybrid"), PAIRS)
def test_swap_and_back_keeps_the_result(tab, core, hybrid):
    tab.load(text_to_latent(core, steps=4))
    expected = latents(tab)
    tab.js(EXECUTE, TO_HYBRID)
    tab.until(TYPE, hybrid)
    tab.js("() => { probe.node('5').widgets.find((w) => w.name === 'mode').value = 'off'; }")
    assert torch.equal(latents(tab), expected)
    tab.js(EXECUTE, TO_KSAMPLER)
    tab.until(TYPE, core)
    tab.js("() => { probe.node('6').widgets[0].value = 'latents/again'; }")
    assert torch.equal(latents(tab), expected)


def test_a_swap_is_one_undo_step(tab):
    tab.load(text_to_latent("KSampler", steps=4, size=(330, 300)))
    tab.frames(4)
    before = kept(tab)
    tab.js(EXECUTE, TO_HYBRID)
    tab.until(TYPE, "Hybrid_KSampler")
    tab.frames(6)
    after = kept(tab)
    tab.until("!!app.canvas.canvas")
    tab.js("app.canvas.canvas.focus()")
    tab.page.keyboard.press("Control+z")
    tab.until(TYPE, "KSampler")
    assert kept(tab) == before
    tab.page.keyboard.press("Control+y")
    tab.until(TYPE, "Hybrid_KSampler")
    assert kept(tab) == after
    tab.until("probe.onScreen('5')")


def two_samplers():
    graph = Graph()
    graph.document = text_to_latent("KSampler", steps=4, size=(330, 300))
    values = sampler_values("KSampler", 4, 9, "", 0)
    graph.add(9, "KSampler", (400, 480), (330, 280), values)
    for source, name in ((1, "model"), (2, "positive"), (3, "negative"), (4, "latent_image")):
        graph.connect(source, 0, 9, name)
    return graph.document


@pytest.mark.either_renderer
def test_the_selection_alone_is_swapped(tab):
    tab.load(two_samplers())
    tab.js("app.canvas.selectNode(probe.node('9'))")
    tab.js(EXECUTE, "HybridKSampler.SwapSelection.hybrid")
    tab.until("probe.node('9').type === 'Hybrid_KSampler'")
    assert tab.js("probe.node('5').type") == "KSampler"


def test_the_menu_of_a_node_swaps_it(tab):
    tab.load(two_samplers())
    tab.until("!!probe.node('9')")
    tab.frames()
    x, y = tab.title_of("5")
    tab.page.mouse.click(x, y)
    tab.page.mouse.click(x, y, button="right")
    entry = tab.page.get_by_text("Swap to Hybrid KSampler", exact=False).first
    entry.click()
    tab.until(TYPE, "Hybrid_KSampler")
    assert tab.js("probe.node('9').type") == "KSampler"


@pytest.mark.either_renderer
def test_samplers_in_subgraphs_are_swapped(tab):
    tab.load(text_to_latent("KSampler", steps=4, size=(330, 300)))
    inner = tab.js(
        """() => {
            const {subgraph, node} = app.graph.convertToSubgraph(new Set([probe.node('5')]));
            return `${node.id}:${subgraph.nodes[0].id}`;
        }"""
    )
    tab.js(EXECUTE, TO_HYBRID)
    tab.until("(id) => probe.node(id)?.type === 'Hybrid_KSampler'", inner)
    assert tab.run()["outputs"]["6"]["latents"]


@pytest.mark.either_renderer
def test_samplers_in_old_group_nodes_are_swapped(tab):
    tab.load(grouped())
    classes = """async () => Object.values((await app.graphToPrompt()).output)
        .map((node) => node.class_type).sort()"""
    before = tab.js(classes)
    assert "KSampler" in before and "EmptyLatentImage" in before
    tab.js(EXECUTE, TO_HYBRID)
    tab.until("probe.root().nodes.some(({subgraph}) => subgraph?.nodes.some("
              "({type}) => type === 'Hybrid_KSampler'))")  # fmt: skip
    assert tab.js(classes) == sorted("Hybrid_KSampler" if c == "KSampler" else c for c in before)


def test_a_swapped_node_keeps_its_size_and_moves_what_is_in_its_way(tab):
    graph = Graph()
    graph.document = text_to_latent("KSampler", steps=4, size=(330, 480))
    tab.load(graph.document)
    tab.js(EXECUTE, TO_HYBRID)
    tab.until(TYPE, "Hybrid_KSampler")
    assert tab.serialized(SAMPLER)["size"] == [330, 480]
    tab.load(text_to_latent("KSampler", steps=4, size=(330, 262)))
    tab.js("() => { probe.node('6').pos = [400, 430]; }")
    tab.js(EXECUTE, TO_HYBRID)
    tab.until(TYPE, "Hybrid_KSampler")
    bottom = "probe.node('5').pos[1] + probe.node('5').size[1]"
    assert tab.js(f"probe.node('6').pos[1] - 30 > {bottom}")
    tab.js(EXECUTE, TO_KSAMPLER)
    tab.until(TYPE, "KSampler")
    assert tab.serialized(6)["pos"] == [400, 430]
    assert tab.serialized(SAMPLER)["size"] == [330, 262]


@pytest.mark.either_renderer
def test_file_names_resolve_to_the_same_text(tab):
    tab.load(text_to_latent("KSampler", steps=4, seed=77, size=(330, 480)))
    tab.js("() => { probe.node('6').widgets[0].value = 'a-%KSampler.seed%-%KSampler.steps%'; }")
    name = "async () => (await app.graphToPrompt()).output['6'].inputs.filename_prefix"
    before = tab.js(name)
    tab.js(EXECUTE, TO_HYBRID)
    tab.until(TYPE, "Hybrid_KSampler")
    assert tab.js(name) == before == "a-77-4"


@pytest.mark.either_renderer
def test_nodes_say_which_pack_they_are_of(tab):
    tab.load(text_to_latent())
    saved = tab.serialized(SAMPLER)["properties"]
    assert saved["cnr_id"] == "hybrid-ksampler" and saved["ver"].count(".") == 2


@pytest.mark.either_renderer
def test_a_workflow_with_other_samplers_gets_the_model_attached(tab):
    tab.load(json.loads((ROOT / "example_workflows" / "hybrid_custom_sampling.json").read_text()))
    tab.js(EXECUTE, TO_KSAMPLER)
    types = "probe.root().nodes.map((node) => node.type)"
    tab.until(f"!{types}.includes('Hybrid_AttachModel')")
    bare = tab.js("async () => (await app.graphToPrompt()).output")
    tab.js(EXECUTE, TO_HYBRID)
    tab.until(f"{types}.includes('Hybrid_AttachModel')")
    prompt = tab.js("async () => (await app.graphToPrompt()).output")
    classes = [node["class_type"] for node in prompt.values()]
    assert classes.count("Hybrid_AttachModel") == 1 and len(prompt) == len(bare) + 1
    tab.until("!!app.canvas.canvas")
    tab.js("app.canvas.canvas.focus()")
    tab.page.keyboard.press("Control+z")
    tab.until(f"!{types}.includes('Hybrid_AttachModel')")

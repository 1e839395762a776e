"""Workflow files and API exports, here and elsewhere."""

from __future__ import annotations

import re

import pytest
from pages_graphs import SAMPLER, text_to_latent
from pages_tab import front_end

from demo.server import PACK, serving

pytestmark = pytest.mark.either_renderer
SAMPLING = {"steps": 7, "cfg": 5.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}


def mine(workflow):
    return next(n for n in workflow["nodes"] if n["id"] == SAMPLER)


@pytest.fixture
def workflow():
    return text_to_latent(steps=7, mode="paper", tolerance=0.0125)


@pytest.fixture
def values(workflow):
    """The sampler's values: seed, what becomes of it, and so on."""
    found = mine(workflow)["widgets_values"]
    assert found[1:] == ["fixed", *SAMPLING.values(), "paper", 0.0125]
    return found


def test_saved_and_loaded_values_are_equal(tab, workflow, values):
    tab.load(workflow)
    saved = tab.js("async () => (await app.graphToPrompt()).workflow")
    assert mine(saved)["widgets_values"] == values
    tab.load(saved)
    again = tab.js("async () => (await app.graphToPrompt()).workflow")
    assert mine(again)["widgets_values"] == values
    assert {n["id"]: n["widgets_values"] for n in again["nodes"]} == {
        n["id"]: n["widgets_values"] for n in saved["nodes"]
    }


def test_api_export_holds_the_inputs_and_nothing_else(tab, workflow, values):
    tab.load(workflow)
    output = tab.js("async () => (await app.graphToPrompt()).output")
    assert output["5"]["inputs"] == {
        "seed": values[0], **SAMPLING, "mode": "paper", "tolerance": 0.0125, "model": ["1", 0],
        "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0],
    }  # fmt: skip


@pytest.fixture(scope="session")
def single(frontend, tmp_path_factory):
    """A server on a machine with one device."""
    with serving(tmp_path_factory.mktemp("single"), front_end(frontend), device="") as running:
        yield running


def without_the_pack(page) -> None:
    """Let the page hear nothing of it, as from a server where it is not installed."""

    def nodes(route):
        told = route.fetch().json()
        route.fulfill(json={name: n for name, n in told.items() if not name.startswith("Hybrid_")})

    def scripts(route):
        told = route.fetch().json()
        route.fulfill(json=[path for path in told if PACK not in path])

    page.route(re.compile(r"/object_info$"), nodes)
    page.route(re.compile(r"/api/extensions$"), scripts)


@pytest.mark.once
def test_a_machine_with_one_device_runs_it_and_says_so(
    tab, workflow, values, single, open_tab, picture
):
    tab.load(workflow)
    saved = tab.js("async () => (await app.graphToPrompt()).workflow")
    other = open_tab(on=single)
    other.load(saved)
    other.run()
    other.until("probe.events.some((e) => e.detail.status === 'done')")
    last = other.js("probe.events.at(-1).detail")
    assert any("there is no second GPU" in reason for reason in last["reasons"])
    other.until("probe.said('5').includes('no second GPU')")
    assert other.values() == values
    picture(other, "-there")
    assert not other.errors
    other.page.close()


def test_values_survive_where_the_pack_is_missing(tab, workflow, values, open_tab, picture):
    tab.load(workflow)
    saved = tab.js("async () => (await app.graphToPrompt()).workflow")
    other = open_tab(prepare=without_the_pack)
    assert other.js("!app.extensions.some(({name}) => name === 'hybrid_ksampler')")
    other.load(saved)
    assert other.js("!LiteGraph.registered_node_types.Hybrid_KSampler")
    kept = other.serialized()
    picture(other, "-there")
    other.page.close()
    assert kept["type"] == "Hybrid_KSampler"
    assert kept["widgets_values"] == values
    tab.load({**saved, "nodes": [kept if n["id"] == SAMPLER else n for n in saved["nodes"]]})
    assert tab.values() == values

"""Workflow files and API exports, here and elsewhere."""

from __future__ import annotations

import pytest
from pages_graphs import SAMPLER, text_to_latent
from pages_tab import front_end

from demo import server as demo_server
from demo.server import serving

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


@pytest.fixture(scope="session")
def bare(frontend, tmp_path_factory):
    """A server without this pack."""
    folder = tmp_path_factory.mktemp("bare")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_server, "install_pack", lambda to: (to / "custom_nodes").mkdir())
        with serving(folder, front_end(frontend)) as running:
            yield running


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


def test_values_survive_where_the_pack_is_missing(tab, workflow, values, bare, open_tab, picture):
    tab.load(workflow)
    saved = tab.js("async () => (await app.graphToPrompt()).workflow")
    other = open_tab(on=bare)
    other.load(saved)
    assert other.js("!LiteGraph.registered_node_types.Hybrid_KSampler")
    kept = other.serialized()
    picture(other, "-there")
    other.page.close()
    assert kept["type"] == "Hybrid_KSampler"
    assert kept["widgets_values"] == values
    tab.load({**saved, "nodes": [kept if n["id"] == SAMPLER else n for n in saved["nodes"]]})
    assert tab.values() == values

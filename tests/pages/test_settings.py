"""Settings, words in another language, help."""

from __future__ import annotations

import contextlib
import json
import re

import pytest
from pages_graphs import rows_of, text_to_latent

from demo.server import ROOT

SET = "([id, value]) => app.extensionManager.setting.set(id, value)"
NEW = """(type) => {
    const node = LiteGraph.createNode(type);
    app.graph.add(node);
    const value = (name) => node.widgets.find((w) => w.name === name).value;
    return [value('mode'), value('tolerance')];
}"""
IDLE = """async (seconds) => {
    const answer = await probe.api().fetchApi('/hybrid_ksampler/worker');
    return (await answer.json()).idle_seconds === seconds;
}"""
# One language in each combination of frontend and renderer.
OTHERS = {("1.47.12", "classic"): "ja", ("1.47.12", "nodes2"): "ko"}
KINDS = ("Hybrid_KSampler", "Hybrid_KSamplerAdvanced", "Hybrid_AttachModel")


@contextlib.contextmanager
def settings(tab, **values):
    """Settings of this pack, as they were afterwards."""
    ids = {name: f"HybridKSampler.{name}" for name in values}
    before = {
        name: tab.js("(id) => app.extensionManager.setting.get(id)", ids[name]) for name in values
    }
    for name, value in values.items():
        tab.js(SET, [ids[name], value])
    try:
        yield
    finally:
        for name, value in before.items():
            tab.js(SET, [ids[name], value])


@pytest.mark.either_renderer
def test_defaults_are_for_new_nodes_only(tab):
    workflow = text_to_latent(mode="paper", tolerance=0.0125)
    with settings(tab, DefaultMode="exact", DefaultTolerance=0.003):
        tab.load(workflow)
        assert tab.values()[-2:] == ["paper", 0.0125]
        for kind in KINDS:
            assert tab.js(NEW, kind) == ["exact", 0.003], kind
    for kind in KINDS:
        assert tab.js(NEW, kind) == ["adaptive", 0.0125], kind


@pytest.mark.once
def test_the_idle_time_reaches_the_server(tab):
    asked = lambda: tab.server.get("/hybrid_ksampler/worker")["idle_seconds"]  # noqa: E731
    before = asked()
    with settings(tab, IdleSeconds=1234):
        tab.until(IDLE, 1234)
        assert asked() == 1234
    tab.until(IDLE, before)


def test_the_plot_is_open_in_every_node_that_does_not_say_otherwise(tab):
    tab.load(text_to_latent(size=(300, 380)))
    tab.feed(rows_of(20))
    tab.until("probe.onScreen('5')?.height < 45")
    height = tab.js("probe.node('5').size[1]")
    with settings(tab, OpenPlot=True):
        tab.until("probe.onScreen('5').height > 200")
    tab.until("probe.onScreen('5').height < 45")
    assert tab.js("probe.node('5').size[1]") == height
    tab.load(text_to_latent(plot="folded"))
    with settings(tab, OpenPlot=True):
        tab.frames(3)
        assert tab.until("probe.onScreen('5')")["height"] < 45


def test_another_language_names_nodes_inputs_and_states(open_tab, picture, frontend, renderer):
    language = OTHERS.get((frontend, renderer), "zh")
    words = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text("utf-8"))
    ours = json.loads((ROOT / "locales" / language / "main.json").read_text("utf-8"))
    names = words["Hybrid_KSampler"]
    tab = open_tab(**{"Comfy.Locale": language})
    try:
        tab.load(text_to_latent())
        tab.feed(rows_of(7), status="failed", total=20)
        assert tab.js("probe.node('5').title") == names["display_name"]
        mode = tab.js("probe.node('5').widgets.find((w) => w.name === 'mode').label")
        assert mode == names["inputs"]["mode"]["name"]
        pieces = re.split(r"\{\w+\}", ours["hybrid_ksampler"]["state.failed"])
        sentence = max(pieces, key=len).strip()
        assert sentence
        tab.until("(words) => probe.said('5').includes(words)", sentence)
        picture(tab)
        assert not tab.errors
    finally:
        tab.page.close()


@pytest.mark.either_renderer
def test_the_help_page_of_a_node_opens(tab):
    tab.load(text_to_latent())
    tab.until("!!probe.node('5')")
    x, y = tab.title_of()
    tab.page.mouse.click(x, y)
    tab.page.get_by_test_id("info-button").click()
    page = (ROOT / "web" / "docs" / "Hybrid_KSampler.md").read_text("utf-8")
    line = next(line for line in page.splitlines() if line and line[0].isalpha())
    wanted = " ".join(line.replace("*", "").replace("`", "").split()[:4])
    try:
        tab.page.get_by_text(wanted).first.wait_for()
    finally:
        tab.js(SET, ["Comfy.RightSidePanel.IsOpen", False])

"""The rules about the plot as a widget of its node: 1 to 7."""

from __future__ import annotations

import pytest
from pages_graphs import rows_of, text_to_latent, watched

ON_TOP = """() => {
    const {x, y, width, height} = probe.onScreen('5');
    const seen = document.elementFromPoint(x + width / 2, y + height / 2);
    return probe.widget('5').element.contains(seen);
}"""
KINDS = ("Hybrid_KSampler", "Hybrid_KSamplerAdvanced", "Hybrid_Monitor")


def test_rule_01_the_plot_is_the_last_widget(tab):
    tab.load(text_to_latent())
    for kind in KINDS:
        assert tab.js(
            """(kind) => {
                const node = LiteGraph.createNode(kind);
                app.graph.add(node);
                const last = node.widgets.at(-1);
                const plots = node.widgets.filter((w) => w.element?.querySelector("canvas"));
                return plots.length === 1 && plots[0] === last;
            }""",
            kind,
        ), f"{kind}: the plot is not the last widget, or there is none"


@pytest.mark.parametrize("kind", KINDS[:2])
def test_rule_01_values_stay_where_they_were_on_reload(tab, kind):
    workflow = text_to_latent(kind, steps=17, seed=23, mode="exact", tolerance=0.0125)
    values = next(n for n in workflow["nodes"] if n["id"] == 5)["widgets_values"]
    tab.load(workflow)
    assert tab.serialized()["widgets_values"] == values
    tab.load(tab.js("probe.root().serialize()"))
    assert tab.serialized()["widgets_values"] == values
    assert tab.values() == values


def test_rule_02_the_plot_is_in_neither_file(tab):
    tab.load(text_to_latent())
    tab.feed(rows_of())
    name = tab.js("probe.widget('5').name")
    assert tab.js("probe.widget('5').serialize") is False
    assert tab.js("probe.widget('5').options.serialize") is False
    exported = tab.js("app.graphToPrompt()")
    assert name not in exported["output"]["5"]["inputs"]
    saved = next(n for n in exported["workflow"]["nodes"] if n["id"] == 5)
    assert len(saved["widgets_values"]) == 9


def test_rule_03_the_widget_has_a_type_of_its_own(tab):
    tab.load(text_to_latent())
    tab.feed(rows_of())
    kind = tab.js("probe.widget('5').type")
    core = tab.js("Object.keys(window.comfyAPI.widgets?.ComfyWidgets ?? {})")
    core += ["button", "toggle", "number", "combo", "text", "string", "slider", "knob", "color",
             "textarea", "markdown", "customtext", "chart", "image", "custom", "asset"]  # fmt: skip
    assert kind.lower() not in {name.lower() for name in core}
    tab.until("probe.onScreen('5')")
    tab.until("probe.pixels('5')?.drawn > 0")
    assert tab.js(ON_TOP), "something else is drawn where the plot should be"


def test_rule_04_the_plot_stays_in_its_node_when_the_panel_opens(tab):
    tab.load(text_to_latent())
    tab.feed(rows_of())
    before = tab.until("probe.onScreen('5')")
    assert tab.js("probe.widget('5').options.hideInPanel") is True
    show = "(open) => app.extensionManager.setting.set('Comfy.RightSidePanel.IsOpen', open)"
    panel = tab.page.get_by_test_id("properties-panel")
    tab.js("app.canvas.selectNode(probe.node('5'))")
    tab.js(show, True)
    try:
        panel.get_by_text("sampler_name").first.wait_for()
        assert tab.js(
            """() => !probe.widget('5').element.closest('[data-testid="properties-panel"]')"""
        )
        after = tab.until("probe.onScreen('5')")
        assert (after["width"], after["height"]) == (before["width"], before["height"])
    finally:
        tab.js(show, False)
    panel.wait_for(state="hidden")


def test_rule_05_undo_and_redo_keep_the_plot_on_screen(tab):
    tab.load(text_to_latent())
    tab.feed(rows_of())
    tab.until("probe.onScreen('5')")
    start = tab.js("[...probe.node('5').pos]")
    tab.drag_node(40, 30)
    moved = tab.until("([x]) => probe.node('5').pos[0] !== x && [...probe.node('5').pos]", start)
    at = "([x, y]) => probe.node('5').pos[0] === x && probe.node('5').pos[1] === y"
    steps = [("Control+z", start), ("Control+y", moved), ("Control+z", start)]
    for count, (key, expected) in enumerate(steps):
        tab.page.keyboard.press(key)
        tab.until(at, expected)
        before = tab.still()
        assert before["drawn"] > 0
        tab.feed(rows_of(25 + count), started=9e9 + count)
        tab.until("(hash) => probe.pixels('5').hash !== hash", before["hash"])
        assert tab.js(ON_TOP), f"after {key} something else covers the plot"


def test_rule_06_copies_that_are_never_pasted_leave_nothing(tab):
    tab.load(text_to_latent())
    tab.feed(rows_of())
    tab.until("probe.onScreen('5')")
    tab.js("app.canvas.selectNode(probe.node('5'))")
    tab.js("() => { for (let i = 0; i < 10; i += 1) app.canvas.copyToClipboard(); }")
    tab.frames()
    assert tab.js("probe.detachedPlots()") == 0, "throw-away copies are observed"


def test_rule_07_the_canvas_takes_its_size_and_gives_none(tab):
    tab.load(text_to_latent())
    tab.feed(rows_of())
    tab.still()
    before = tab.js("probe.onScreen('5')")
    assert tab.js("getComputedStyle(probe.canvas('5')).position") == "absolute"
    tab.frames(20)
    assert tab.js("probe.onScreen('5')") == before, "it grows by itself"
    old = tab.pixels()
    tab.js("() => probe.node('5').setSize([480, 700])")
    tab.until("(width) => probe.canvas('5').width > width", old["width"])
    larger = tab.js("probe.onScreen('5')")
    tab.frames(20)
    assert tab.js("probe.onScreen('5')") == larger
    tab.js("() => probe.node('5').setSize([330, 560])")
    tab.until("(width) => probe.canvas('5').width === width", old["width"])


@pytest.mark.either_renderer
def test_the_monitor_shows_what_it_watches(tab):
    tab.load(watched())
    tab.run()
    tab.until("probe.events.some((e) => e.detail.node === '8')")
    assert tab.still("8")["drawn"] > 0
    assert tab.js("probe.widget('5') ?? null") is None, "KSampler has no plot"

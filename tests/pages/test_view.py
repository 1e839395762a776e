"""The plot in its node: theme, size, zoom, copy and paste."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from pages_graphs import rows_of, text_to_latent
from pages_tab import PALETTE
from PIL import Image


@pytest.fixture
def drawn(tab):
    """The tab with a finished run on the sampler, its plot open."""
    tab.load(text_to_latent(plot="open"))
    tab.feed(rows_of(20))
    assert tab.still()["drawn"] > 0
    return tab


def test_the_light_theme_is_another_picture(drawn, picture):
    tab = drawn
    dark, count = tab.pixels(), tab.redraws()
    tab.js(PALETTE, "light")
    try:
        tab.until("(colour) => probe.pixels('5').background !== colour", dark["background"])
        tab.frames(3)
        light = tab.pixels()
        assert tab.redraws() > count
        assert int(light["background"][:2], 16) > 200 > 80 > int(dark["background"][:2], 16)
        assert light["drawn"] > 0
        picture(tab, "-light")
    finally:
        tab.js(PALETTE, "dark")
    tab.until("(colour) => probe.pixels('5').background === colour", dark["background"])


def test_the_plot_follows_the_size_of_its_node(drawn):
    tab = drawn
    before = tab.pixels()
    tab.js("() => probe.node('5').setSize([520, 640])")
    tab.until("(w) => probe.canvas('5').width > w", before["width"])
    assert tab.still()["drawn"] > 0
    box = tab.js("probe.onScreen('5')")
    assert 400 < box["width"] <= 520


def test_the_plot_is_drawn_at_the_smallest_size(drawn):
    tab = drawn
    tab.js("() => probe.node('5').setSize(probe.node('5').computeSize())")
    tab.still()
    box = tab.js("probe.onScreen('5')")
    assert box["width"] > 100 and box["height"] >= 200
    assert tab.pixels()["colours"] > 3


@pytest.mark.parametrize("zoom", [0.5, 2.0])
def test_zoom_keeps_the_plot_sharp(drawn, zoom):
    tab = drawn
    before, box = tab.pixels(), tab.js("probe.onScreen('5')")
    tab.js(
        """(zoom) => {
            app.canvas.ds.scale = zoom;
            app.canvas.ds.offset = [640 / zoom - 565, 430 / zoom - 540];  // the plot in the middle
            app.canvas.setDirty(true, true);
        }""",
        zoom,
    )
    tab.until("(wanted) => Math.abs(probe.onScreen('5').width - wanted) < 4", box["width"] * zoom)
    if zoom > 1:
        tab.until("(w) => probe.canvas('5').width >= w", before["width"] * zoom * 0.95)
    assert tab.pixels()["drawn"] > 0


def test_a_pasted_copy_has_a_plot_of_its_own(drawn):
    tab = drawn
    tab.js("app.canvas.selectNode(probe.node('5'))")
    tab.page.mouse.move(900, 500)
    tab.js("app.canvas.canvas.focus()")
    tab.page.keyboard.press("Control+c")
    tab.page.keyboard.press("Control+v")
    copy = tab.until(
        """() => {
            const found = probe.root().nodes.filter((n) => n.type === 'Hybrid_KSampler');
            return found.length === 2 && String(found.at(-1).id);
        }"""
    )
    empty, before = tab.still(copy), tab.still()["hash"]
    assert tab.js("(id) => probe.widget(id).element !== probe.widget('5').element", copy)
    assert tab.values(copy)[2:] == tab.values()[2:]
    tab.feed(rows_of(33), node=copy)
    tab.until("([id, hash]) => probe.pixels(id).hash !== hash", [copy, empty["hash"]])
    assert tab.still()["hash"] == before


@pytest.mark.either_renderer
def test_the_previous_run_stays_as_a_faint_line(drawn):
    tab = drawn
    first = tab.pixels()
    second = rows_of(20, warm=6, end=5)
    tab.feed(second, run="second", started=9e9)
    tab.until("(hash) => probe.pixels('5').hash !== hash", first["hash"])
    both = tab.still()
    tab.load(text_to_latent(plot="open"))
    tab.feed(second, run="second", started=9e9)
    tab.until("probe.shown('5') === 20")
    alone = tab.still()
    assert (alone["width"], alone["height"]) == (both["width"], both["height"])
    assert alone["hash"] != both["hash"]


@pytest.mark.either_renderer
@pytest.mark.parametrize("kind", ["png", "csv"])
def test_the_menu_saves_the_run(drawn, kind):
    tab = drawn
    tab.page.get_by_test_id("hybrid-plot-menu").click()
    with tab.page.expect_download() as download:
        tab.page.locator(".litemenu-entry", has_text=re.compile(kind, re.IGNORECASE)).click()
    assert download.value.suggested_filename.endswith(f".{kind}")
    data = Path(download.value.path()).read_bytes()
    if kind == "png":
        with Image.open(io.BytesIO(data)) as picture:
            assert min(picture.size) > 300 and len(set(picture.convert("RGB").getdata())) > 20
    else:
        rows = list(csv.DictReader(io.StringIO(data.decode())))
        assert [int(row["step"]) for row in rows] == list(range(1, 21))
        told = [row["discrepancy"] for row in rows_of(20)]
        assert [float(row["rel_mae"]) for row in rows] == pytest.approx(told)


def test_idle_costs_nothing(drawn):
    tab = drawn
    before = tab.redraws()
    tab.js("() => new Promise((done) => setTimeout(done, 1000))")
    assert tab.redraws() == before


def test_hover_shows_the_numbers_of_a_step(drawn, picture):
    tab = drawn
    box = tab.js("probe.onScreen('5')")
    tip = tab.page.get_by_test_id("hybrid-plot-tip")
    tab.page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5)
    tab.page.mouse.move(box["x"] + box["width"] * 0.55, box["y"] + box["height"] * 0.5)
    tip.wait_for()
    tab.until(
        """() => /\\b100 ms\\b|\\b55 ms\\b/.test(
            document.querySelector('[data-testid="hybrid-plot-tip"]').innerText)"""
    )
    picture(tab, "-tip")
    tab.page.mouse.move(box["x"] + box["width"] + 200, box["y"] + box["height"] * 0.5)
    tip.wait_for(state="hidden")


# as the frontend does at a click or a key
CAPTURED = """() => {
    const tracker = app.extensionManager.workflow.activeWorkflow.changeTracker;
    (tracker.captureCanvasState ?? tracker.checkState).call(tracker);
}"""


@pytest.fixture
def folded(tab):
    """The tab with a finished run on a sampler as it is made: its plot folded."""
    tab.load(text_to_latent(size=(300, 380)))
    tab.feed(rows_of(20))
    assert tab.still()["drawn"] > 0
    return tab


def test_a_click_opens_the_plot_and_the_node_remembers_it(folded, picture):
    tab = folded
    height, strip = tab.js("probe.node('5').size[1]"), tab.js("probe.onScreen('5')")
    assert strip["height"] < 45 and "10 full, 10 short steps" in tab.said()
    picture(tab, "-folded")
    sentence = tab.page.get_by_test_id("hybrid-plot-sentence")
    sentence.click()
    tab.until("probe.onScreen('5').height > 200")
    assert sentence.get_attribute("aria-expanded") == "true"
    assert tab.serialized()["properties"]["hybrid_plot"] == "open"
    tab.load(tab.js("probe.root().serialize()"))
    tab.until("probe.onScreen('5')?.height > 200")
    tab.page.get_by_test_id("hybrid-plot-sentence").click()
    tab.until("probe.onScreen('5').height < 45")
    assert tab.js("probe.node('5').size[1]") == height
    assert tab.serialized()["properties"]["hybrid_plot"] == "folded"


def test_a_click_on_the_strip_opens_the_plot_too(folded):
    folded.page.get_by_test_id("hybrid-plot-canvas").click()
    folded.until("probe.onScreen('5').height > 200")


def test_opening_is_one_step_of_undo(folded):
    tab = folded
    tab.page.get_by_test_id("hybrid-plot-sentence").click()
    tab.until("probe.onScreen('5').height > 200")
    tab.frames(6)  # Nodes 2.0 measures the node anew
    tab.js(CAPTURED)
    tab.js("app.canvas.canvas.focus()")
    tab.page.keyboard.press("Control+z")
    tab.until("probe.onScreen('5')?.height < 45")


@pytest.mark.either_renderer
def test_marks_are_explained_and_the_keyboard_reaches_it(folded, picture):
    tab = folded
    button = tab.page.get_by_test_id("hybrid-plot-key")
    box = tab.page.get_by_test_id("hybrid-plot-key-box")
    button.focus()
    tab.page.keyboard.press("Enter")
    box.wait_for()
    assert button.get_attribute("aria-expanded") == "true"
    for word in ("full", "short", "foreseen", "one-GPU", "difference", "tolerance"):
        assert box.get_by_text(word, exact=True).count() == 1, word
    picture(tab, "-key")
    tab.page.keyboard.press("Escape")
    box.wait_for(state="hidden")


@pytest.mark.either_renderer
def test_the_sentence_tells_more_when_pointed_to(folded):
    tab = folded
    tab.page.get_by_test_id("hybrid-plot-sentence").hover()
    tip = tab.page.get_by_test_id("hybrid-plot-tip")
    tip.wait_for()
    assert "adaptive, tolerance 0.01" in tip.inner_text() and "1.72x" in tip.inner_text()


@pytest.mark.either_renderer
def test_letters_are_12_pixels_at_least(drawn):
    """Of the elements; the canvas has one size of letters, SIZE of shapes.mjs."""
    sizes = drawn.js(
        """() => [...probe.widget('5').element.querySelectorAll('*')]
            .map((element) => parseFloat(getComputedStyle(element).fontSize))"""
    )
    assert min(sizes) >= 12

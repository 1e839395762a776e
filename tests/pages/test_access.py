"""What axe-core finds in the plot, the panel and the settings, and the way there by keyboard."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from pages_graphs import rows_of, text_to_latent
from pages_tab import PALETTE

pytestmark = pytest.mark.either_renderer
SERIOUS = ("serious", "critical")
PANEL = "app.extensionManager.command.execute('Workspace.ToggleSidebarTab.hybrid-ksampler')"
SETTINGS = "app.extensionManager.command.execute('Comfy.ShowSettingsDialog')"


def found(tab, place: str) -> list[str]:
    """Serious findings in what the selector `place` shows, with what they are about."""
    assert tab.page.locator(place).count(), f"nothing is at {place}"
    answer = Axe().run(tab.page, context={"include": [place]}).response
    assert answer["passes"], "nothing was looked at"
    return [
        f"{one['id']}: {one['help']}: {node['html'][:200]}: {node['failureSummary']}"
        for one in answer["violations"]
        if one["impact"] in SERIOUS
        for node in one["nodes"]
    ]


@pytest.fixture(params=["dark", "light"])
def drawn(request, tab):
    """The tab in a theme, with a finished run and its plot open."""
    tab.js(PALETTE, request.param)
    tab.load(text_to_latent(plot="open"))
    tab.feed(rows_of(20))
    tab.still()
    yield tab
    tab.js(PALETTE, "dark")


def test_axe_finds_nothing_serious(drawn):
    tab = drawn
    assert found(tab, ".hybrid-plot") == []
    tab.page.get_by_test_id("hybrid-plot-key").click()
    assert found(tab, ".hybrid-plot-key") == []
    tab.page.keyboard.press("Escape")
    tab.js(PANEL)
    tab.page.locator(".hybrid-panel").get_by_text("cpu").first.wait_for()
    try:
        assert found(tab, ".hybrid-panel") == []
    finally:
        tab.js(PANEL)


def test_the_menu_is_reached_by_keyboard(tab):
    tab.load(text_to_latent(plot="open"))
    tab.feed(rows_of(20))
    tab.still()
    button = tab.page.get_by_test_id("hybrid-plot-menu")
    button.focus()
    tab.page.keyboard.press("Enter")
    tab.until("document.activeElement?.classList.contains('litemenu-entry')")
    tab.page.keyboard.press("Escape")
    tab.until("!document.querySelector('.litemenu-entry')")
    tab.until("document.activeElement?.dataset.testid === 'hybrid-plot-menu'")
    tab.page.keyboard.press("Enter")
    tab.page.keyboard.press("ArrowUp")
    with tab.page.expect_download() as download:
        tab.page.keyboard.press("Enter")
    assert download.value.suggested_filename.endswith(".csv")

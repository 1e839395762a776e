"""The sidebar tab with the two processes, and the messages at the edge of the screen."""

from __future__ import annotations

import time

import pytest
from pages_graphs import row_of, text_to_latent
from pages_tab import until_shared

pytestmark = pytest.mark.either_renderer
TOGGLE = "app.extensionManager.command.execute('Workspace.ToggleSidebarTab.hybrid-ksampler')"
LISTEN = """() => {
    window.toasts = [];
    const {toast} = app.extensionManager;
    const {add} = toast;
    toast.add = (message) => {
        window.toasts.push(message);
        return add.call(toast, message);
    };
}"""


@pytest.fixture
def panel(tab):
    """The open panel of the tab."""
    tab.load(text_to_latent(steps=4, mode="exact"))
    tab.js(TOGGLE)
    section = tab.page.locator(".hybrid-panel")
    section.wait_for()
    section.get_by_text("cpu").first.wait_for()
    yield section
    tab.js(TOGGLE)
    section.wait_for(state="detached")


def worker(tab):
    return tab.server.get("/hybrid_ksampler/worker")["worker"]


def until(tab, wanted, seconds: float = 60) -> None:
    """Wait until wanted(worker) holds."""
    deadline = time.monotonic() + seconds
    while not wanted(worker(tab)):
        assert time.monotonic() < deadline, worker(tab)
        time.sleep(0.1)


def until_worker(tab, *states: str) -> None:
    until(tab, lambda told: told["state"] in states)


def press(panel, order: str) -> None:
    button = panel.locator(f"[data-order={order}][aria-disabled=false]")
    button.wait_for(timeout=60_000)
    button.click()


def test_the_panel_shows_both_processes(panel):
    parent, second = panel.locator(".hybrid-card").all()
    parent.locator("[role=meter]").wait_for()
    assert second.locator("[data-order]").count() == 3


@pytest.mark.once
def test_the_buttons_of_the_panel_work_and_a_run_is_not_disturbed(tab, panel, picture):
    """It asks again and again while the worker starts and loads."""
    if worker(tab)["state"] == "none":
        press(panel, "start")
    until_worker(tab, "ready")
    first = worker(tab)["pid"]
    panel.locator(".hybrid-card").nth(1).locator("[role=meter]").wait_for()
    picture(tab, "-ready")
    press(panel, "restart")
    until(tab, lambda told: told["pid"] not in (None, first))
    process = worker(tab)["pid"]
    until_shared(tab)
    now = tab.server.get("/hybrid_ksampler/worker")
    assert now["worker"]["pid"] == process and now["worker"]["last_error"] is None
    panel.get_by_text(now["parent"]["model"]).first.wait_for()
    press(panel, "free")
    until_worker(tab, "none")
    panel.locator("[data-order=start][aria-disabled=false]").wait_for()
    assert panel.locator("[data-order=free]").get_attribute("aria-disabled") == "true"
    press(panel, "start")
    until_worker(tab, "ready")


def test_toasts_come_on_a_change_only(open_tab):
    """Three runs in one process after shared ones: one message.

    In a tab of its own: real runs and workers of the tests before have had messages in the other.
    """
    tab = open_tab()
    tab.load(text_to_latent())
    tab.js(LISTEN)
    reason = "the worker ended: made up"
    shared = [row_of(i, "exact", worker_ms=9.0, waited_ms=0.0) for i in range(4)]
    local = [row_of(i, "local") for i in range(4)]
    runs = [(shared, []), (shared, []), (local, [reason]), (local, [reason]), (local, [reason])]
    for count, (rows, reasons) in enumerate(runs):
        run = f"toasts-{tab.js('probe.root().id')}-{count}"
        tab.feed([], run=run, seq=1, status="running", total=4, started=9e9 + count)
        tab.feed(rows, run=run, seq=2, reasons=reasons, started=9e9 + count)
    tab.until("() => window.toasts.length")
    tab.frames(4)
    (toast,) = tab.js("window.toasts")
    assert toast["severity"] == "warn"
    assert reason in toast["detail"]

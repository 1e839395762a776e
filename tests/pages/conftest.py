"""ComfyUI's pages in a real browser: two frontends, the classic canvas and Nodes 2.0."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.append(str(HERE))

from pages_tab import ARGUMENTS, Tab, front_end  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402

from demo.server import serving  # noqa: E402

FRONTENDS = ("1.47.12", "1.58.1")
RENDERERS = ("classic", "nodes2")
WANTED_SCREENSHOTS = os.environ.get("HYBRID_SCREENSHOTS")  # a folder: of every test
SCREENSHOTS = Path(WANTED_SCREENSHOTS or ROOT / ".dev" / "screenshots")
FAILED = pytest.StashKey[bool]()
WANTED = ("COMFYUI_DIR", "HYBRID_FRONTENDS", "HYBRID_BROWSER")


def pytest_configure(config):
    config.addinivalue_line("markers", "either_renderer: the renderer has no part in it")
    config.addinivalue_line("markers", "once: neither the frontend nor the renderer has")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if call.when == "call":
        item.stash[FAILED] = report.failed
    return report


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Pages last: Playwright keeps an event loop in this thread, which other tests may want."""
    items.sort(key=lambda item: HERE in item.path.parents)
    again = [item for item in items if HERE in item.path.parents and _again(item)]
    config.hook.pytest_deselected(items=again)
    items[:] = [item for item in items if item not in again]
    missing = [name for name in WANTED if not os.environ.get(name)]
    if missing:
        reason = f"{missing[0]} is not set (python dev.py test sets it): no pages are tested"
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=reason))


def _again(item) -> bool:
    """Whether its marker asks for other pages: one renderer of each frontend, or one of all."""
    pages = list(zip(FRONTENDS, RENDERERS, strict=True))
    if item.get_closest_marker("once"):
        pages = pages[-1:]
    elif not item.get_closest_marker("either_renderer"):
        return False
    params = item.callspec.params
    return (params["frontend"], params["renderer"]) not in pages


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=os.environ["HYBRID_BROWSER"], args=ARGUMENTS
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="session", params=FRONTENDS)
def frontend(request):
    return request.param


@pytest.fixture(scope="session", params=RENDERERS)
def renderer(request):
    return request.param


@pytest.fixture(scope="session")
def server(frontend, tmp_path_factory):
    """A server with this frontend, which has a second process to share the work with.

    Its cores are the other way round than those of tests/comfy, beside which these tests run.
    """
    folder = tmp_path_factory.mktemp("pages")
    with serving(folder, front_end(frontend), device="cpu:0", core=1) as running:
        yield running
        assert running.process.poll() is None, "the server ended during the tests"


@pytest.fixture(scope="session")
def open_tab(browser, server, renderer):
    """Opens tabs of this frontend and renderer; each a profile of its own, closed at the end."""
    contexts = []

    def open_one(on=None, prepare=None, **settings) -> Tab:
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        contexts.append(context)
        tab = Tab(context, on or server, renderer == "nodes2")
        if prepare is not None:
            prepare(tab.page)
        return tab.open(**settings)

    yield open_one
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def shared_tab(open_tab):
    return open_tab()


@pytest.fixture
def tab(request, shared_tab, picture):
    """The tab that the tests of one frontend and renderer share. Its errors fail the test."""
    shared_tab.errors.clear()
    yield shared_tab
    if WANTED_SCREENSHOTS or shared_tab.errors or request.node.stash.get(FAILED, False):
        picture(shared_tab)
    if shared_tab.server.get("/queue")["queue_running"]:  # a test failed in mid-run
        shared_tab.server.post("/interrupt", {})
    assert not shared_tab.errors


@pytest.fixture
def picture(request, frontend, renderer):
    """Keeps a screenshot of a tab, named after the test."""

    def take(tab: Tab, suffix: str = "") -> None:
        shown = {frontend, renderer, request.node.originalname}
        more = [str(v) for v in request.node.callspec.params.values() if v not in shown]
        name = re.sub(r"\W+", "_", "-".join([request.node.originalname, *more]) + suffix)
        folder = SCREENSHOTS / f"{frontend}-{renderer}"
        folder.mkdir(parents=True, exist_ok=True)
        tab.page.screenshot(path=folder / f"{name}.png")

    return take

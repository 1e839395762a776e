"""What the live plot costs the page: a redraw at 200 steps, and doing nothing.

A redraw is the whole animation frame callback in which the plot's canvas is drawn on, so it
includes what is computed from the rows; the browser's own rasterising is not in it. Times in ms.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.report import ROOT, Row, progress, publish

sys.path += [str(ROOT / "tests" / "pages")]

from tooling.installed import FRONTENDS, browser, frontends

BROWSER = os.environ.get("HYBRID_BROWSER") or browser()
if "HYBRID_FRONTENDS" not in os.environ:
    os.environ["HYBRID_FRONTENDS"] = str(frontends())

from pages_graphs import rows_of, text_to_latent
from pages_tab import ARGUMENTS, Tab, front_end
from playwright.sync_api import sync_playwright

from demo.server import serving

STEPS, REDRAWS, IDLE_SECONDS = 200, 300, 3
WATCH = """(() => {
    window.frameTimes = [];
    const ask = window.requestAnimationFrame;
    window.requestAnimationFrame = (callback) => ask((time) => {
        const before = window.probe.counts("5").redraws;
        const start = performance.now();
        callback(time);
        const spent = performance.now() - start;
        if (window.probe.counts("5").redraws > before) window.frameTimes.push(spent);
    });
})()"""
DRAW = """async ([detail, count, first]) => {
    const rows = detail.rows;
    window.frameTimes.length = 0;
    for (let i = 0; i < count; i += 1) {
        rows.at(-1).ms = 90 + (i % 20);  // the last step is told again, as at the end of each step
        probe.feed({...detail, seq: first + i, start: rows.length - 1, rows: [rows.at(-1)]});
        await new Promise(requestAnimationFrame);
        await new Promise(requestAnimationFrame);
    }
    return window.frameTimes;
}"""


def measure(tab: Tab) -> Row:
    tab.load(text_to_latent(plot="open"))
    tab.until("probe.onScreen('5')")
    detail = tab.feed(rows_of(STEPS), total=STEPS + 1, status="running")
    tab.until("probe.pixels('5')?.drawn > 0")
    tab.js(WATCH)
    tab.js(DRAW, [detail, 60, 2])  # until the code is compiled
    times = tab.js(DRAW, [detail, REDRAWS, 1000])
    tab.feed(rows_of(STEPS), run=detail["run"], seq=10**6, total=STEPS)
    tab.frames(5)
    before = tab.redraws()
    tab.page.wait_for_timeout(IDLE_SECONDS * 1000)
    idle = tab.redraws() - before
    return {
        "steps": STEPS,
        "redraws": len(times),
        "median_ms": round(statistics.median(times), 2),
        "p95_ms": round(statistics.quantiles(times, n=20)[-1], 2),
        "idle_draws": idle,
        "idle_seconds": IDLE_SECONDS,
    }


def main() -> None:
    if not BROWSER:
        sys.exit("there is no Chromium to measure in")
    rows: list[Row] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        for frontend in FRONTENDS:
            with (
                tempfile.TemporaryDirectory() as folder,
                serving(Path(folder), front_end(frontend)) as server,
            ):
                for renderer in ("classic", "nodes2"):
                    context = browser.new_context(viewport={"width": 1280, "height": 800})
                    tab = Tab(context, server, renderer == "nodes2").open()
                    rows.append({"frontend": frontend, "renderer": renderer, **measure(tab)})
                    progress(str(rows[-1]))
                    context.close()
        browser.close()
    publish("redraw", rows)


if __name__ == "__main__":
    main()

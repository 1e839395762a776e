"""The pictures of the README, filmed from a real run in a browser: `python dev.py demo --film`."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from demo.annotate import WIDTH, annotated
from demo.server import ROOT, Server, serving

WORKFLOW = ROOT / "example_workflows" / "hybrid_demo.json"
SIZE = {"width": 1560, "height": 760}
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
}
FRAME_SECONDS = 0.15
MOST_SECONDS = 180
SAMPLER = "() => window.app.graph.nodes.find((node) => node.type === 'Hybrid_KSampler')"


def film(folder: Path, browser: str) -> None:
    """docs/live_curve.gif, hybrid_ksampler.png and node.png; the server's files in `folder`."""
    with serving(folder) as server, sync_playwright() as playwright:
        server.post("/settings", SETTINGS)
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport=SIZE, device_scale_factor=1.5)
        page.goto(server.address)
        page.wait_for_function("window.app?.extensionManager && window.app.graph", timeout=90_000)
        page.wait_for_timeout(3000)
        page.evaluate(
            "(graph) => window.app.loadGraphData(graph)", json.loads(WORKFLOW.read_text())
        )
        _arrange(page)
        for _ in range(3):  # the second process comes up
            _run(page, server)
        frames = _run(page, server)
        annotated(page, page.evaluate_handle(SAMPLER), _node(page), ROOT / "docs" / "node.png")
        _look_at(page, 0.74, (70, 70))  # all of it
        page.wait_for_timeout(1000)
        page.screenshot(path=str(ROOT / "docs" / "hybrid_ksampler.png"))
        chromium.close()
    first, *rest = [frame.quantize(128, dither=Image.Dither.NONE) for frame in frames]
    durations = [round(FRAME_SECONDS * 1000)] * len(rest) + [2500]
    first.save(
        ROOT / "docs" / "live_curve.gif",
        save_all=True, append_images=rest, duration=durations, loop=0, optimize=True,
    )  # fmt: skip


def _arrange(page: Page) -> None:
    page.evaluate(
        """(sampler) => {
          sampler.widgets.find((w) => w.name === 'seed').value = 7;
          sampler.widgets.find((w) => w.name === 'control_after_generate').value = 'increment';
        }""",
        page.evaluate_handle(SAMPLER),
    )
    _look_at(page, 1.0, (WIDTH + 80 - 700, 60))  # the sampler, with room for words beside it


def _look_at(page: Page, scale: float, offset: tuple[int, int]) -> None:
    page.evaluate(
        """([scale, offset]) => {
          Object.assign(window.app.canvas.ds, { scale, offset });
          window.app.graph.setDirtyCanvas(true, true);
        }""",
        [scale, list(offset)],
    )


def _run(page: Page, server: Server) -> list[Image.Image]:
    """Queue the graph and wait for its end; the sampler node at each moment."""
    frames: list[Image.Image] = []
    done = len(server.get("/history"))
    page.evaluate("() => window.app.queuePrompt(0, 1)")
    deadline = time.monotonic() + MOST_SECONDS
    while len(server.get("/history")) == done:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the run did not end within {MOST_SECONDS} s")
        shot = page.screenshot(clip=_node(page))
        frames.append(Image.open(io.BytesIO(shot)).convert("RGB"))
        page.wait_for_timeout(FRAME_SECONDS * 1000)
    page.wait_for_timeout(1000)
    frames.append(Image.open(io.BytesIO(page.screenshot(clip=_node(page)))).convert("RGB"))
    return frames


def _node(page: Page) -> dict[str, Any]:
    """The sampler node on the page, in pixels."""
    return dict(
        page.evaluate(
            """(node) => {
              const { scale, offset } = window.app.canvas.ds;
              const box = window.app.canvas.canvas.getBoundingClientRect();
              return {
                x: box.x + (node.pos[0] + offset[0]) * scale - 4,
                y: box.y + (node.pos[1] - 30 + offset[1]) * scale - 4,
                width: node.size[0] * scale + 8,
                height: (node.size[1] + 30) * scale + 8,
              };
            }""",
            page.evaluate_handle(SAMPLER),
        )
    )

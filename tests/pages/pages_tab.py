"""One browser tab with ComfyUI, driven from outside."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from pages_graphs import Workflow, run_event, text_to_latent
from playwright.sync_api import BrowserContext, Page, TimeoutError

from demo.server import Server

PROBE = (Path(__file__).parent / "probe.js").read_text()
ARGUMENTS = (  # of the browser; the last one keeps it off the network
    "--no-sandbox",
    "--disable-gpu",
    "--enable-precise-memory-info",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
OURS = ("hybrid", "unknown message type")
PROBED_FOR = "/hybrid-ksampler/docs/"  # the frontend asks for a page per language first: a 404
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Workflow.ConfirmDelete": False,
    "Comfy.Workflow.ShowMissingModelsWarning": False,
    "Comfy.ColorPalette": "dark",
    "Comfy.Locale": "en",
}
DONE = "probe.events.some((e) => e.detail.status !== 'running')"
PALETTE = "(name) => app.extensionManager.setting.set('Comfy.ColorPalette', name)"
OPENING = 60_000  # ms, of a page: other tests run beside these
LOADED = "window.app?.extensionManager && window.app.vueAppReady && window.app.graph"


def front_end(version: str) -> tuple[str, str]:
    """ComfyUI's arguments for a version of the frontend."""
    return "--front-end-root", str(Path(os.environ["HYBRID_FRONTENDS"]) / version)


class Tab:
    """Works on `server` with Nodes 2.0 or the classic canvas; errors collect in `errors`."""

    def __init__(self, context: BrowserContext, server: Server, nodes2: bool):
        self.server, self.nodes2 = server, nodes2
        self.page: Page = context.new_page()
        self.page.set_default_timeout(20_000)
        self.page.add_init_script(PROBE)
        self.errors: list[str] = []
        self.messages: list[str] = []  # what came over the socket, as text
        self.page.on("websocket", lambda socket: socket.on("framereceived", self._came))
        self.page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))
        self.page.on("console", self._heard)

    def _heard(self, message) -> None:
        text = f"{message.text} {message.location.get('url', '')}"
        ours = any(word in text.lower() for word in OURS) and PROBED_FOR not in text
        if ours and message.type in ("error", "warning"):
            self.errors.append(f"{message.type}: {text}")

    def _came(self, payload: str | bytes) -> None:
        if isinstance(payload, str):
            self.messages.append(payload)

    def open(self, **settings: Any) -> Tab:
        """Load the page with these settings beyond the usual ones."""
        self.settings = SETTINGS | {"Comfy.VueNodes.Enabled": self.nodes2} | settings
        self.server.post("/settings", self.settings)
        self.page.goto(self.server.address, timeout=OPENING)
        return self._settled()

    def reload(self) -> Tab:
        self.server.post("/settings", self.settings)  # the server keeps one set for all tabs
        self.page.reload(timeout=OPENING)
        return self._settled()

    def _settled(self) -> Tab:
        self.page.wait_for_function(LOADED, timeout=OPENING)
        self.page.evaluate("probe.ready()")
        return self

    def js(self, code: str, argument: Any = None) -> Any:
        return self.page.evaluate(code, argument)

    def until(self, code: str, argument: Any = None, seconds: float = 20) -> Any:
        """Wait until the JavaScript is true; its value."""
        try:
            return self.page.wait_for_function(
                code, arg=argument, timeout=seconds * 1000, polling=50
            ).json_value()
        except TimeoutError:
            heard = "; ".join(self.errors) or "no errors"
        raise AssertionError(f"not within {seconds} s: {code} with {argument}; {heard}")

    def load(self, workflow: Workflow) -> None:
        """Open a workflow as a fresh one, alone among the frontend's own tabs."""
        self.js(
            """async (workflow) => {
                probe.events.length = 0;
                await app.loadGraphData(workflow);
                const open = app.extensionManager.workflow;
                for (const other of [...open.openWorkflows])
                    if (other !== open.activeWorkflow) await open.closeWorkflow(other);
            }""",
            workflow,
        )

    def queue(self) -> str:
        """Queue what is open; the prompt's id."""
        before = self.js("probe.prompts.length")
        self.js("app.queuePrompt(0, 1)")
        self.until("(n) => probe.prompts.length > n", before)
        return self.js("probe.prompts.at(-1)")

    def run(self) -> dict[str, Any]:
        """Queue, wait for the end, and return the history entry of a success."""
        entry = self.server.finished(self.queue())
        assert entry["status"]["status_str"] == "success", json.dumps(entry["status"])[:2000]
        return entry

    def feed(self, rows: list[dict[str, Any]], node: str = "5", **changes: Any) -> dict[str, Any]:
        """Dispatch a made-up run for `node` of the open workflow, as if the server had sent it."""
        changes.setdefault("workflow_id", self.js("probe.root().id"))
        detail = run_event(node, rows=rows, **changes)
        self.js("(detail) => probe.feed(detail)", detail)
        return detail

    def frames(self, count: int = 2) -> None:
        """Let animation frames pass: what was asked to be drawn is drawn afterwards."""
        self.js(
            """async (count) => {
                for (let i = 0; i < count; i += 1) await new Promise(requestAnimationFrame);
            }""",
            count,
        )

    def title_of(self, node: str = "5") -> tuple[float, float]:
        """A point on the title of a node."""
        x, y = self.js(
            """(id) => app.canvas.ds.convertOffsetToCanvas(
                [probe.node(id).pos[0] + 120, probe.node(id).pos[1] - 14])""",
            node,
        )
        box = self.page.locator("#graph-canvas").bounding_box()
        return x + box["x"], y + box["y"]

    def drag_node(self, dx: int, dy: int, node: str = "5") -> None:
        """Drag a node by its title, as a person does: one step for undo."""
        x, y = self.title_of(node)
        mouse = self.page.mouse
        mouse.move(x, y)
        mouse.down()
        mouse.move(x + dx / 2, y + dy / 2, steps=4)
        mouse.move(x + dx, y + dy, steps=4)
        mouse.up()

    def still(self, node: str = "5") -> dict[str, Any]:
        """Wait until what was asked to be drawn is drawn; the plot's pixels then."""
        self.until("(id) => probe.onScreen(id)", node)
        self.js("(id) => probe.calm(id)", node)
        return self.pixels(node)

    def pixels(self, node: str = "5") -> dict[str, Any]:
        self.until("(id) => probe.pixels(id)", node)
        return self.js("(id) => probe.pixels(id)", node)

    def redraws(self, node: str = "5") -> int:
        return self.js("(id) => probe.counts(id).redraws", node)

    def said(self, node: str = "5") -> str:
        """The text alternative of the plot."""
        return self.js("(id) => probe.said(id)", node)

    def rows(self, node: str = "5") -> list[dict[str, Any]]:
        """The rows of the run that a node shows."""
        return self.js("(id) => probe.rows(id)", node)

    def values(self, node: str = "5") -> list:
        return self.js("(id) => probe.values(id)", node)

    def serialized(self, node: int = 5) -> dict[str, Any]:
        nodes = self.js("probe.root().serialize()")["nodes"]
        return next(n for n in nodes if n["id"] == node)


def until_shared(tab: Tab, seconds: float = 120) -> None:
    """Run until the second process takes part."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        tab.load(text_to_latent(steps=3, mode="exact"))
        tab.run()
        tab.until(DONE)
        if {row["kind"] for row in tab.rows()} == {"exact"}:
            return
    last = tab.js("probe.events.at(-1)?.detail")
    raise AssertionError(f"the second process took no part in {seconds} s: {last}")

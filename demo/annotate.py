"""The annotated picture of the README: words beside the parts of the node, drawn into the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.sync_api import Page

WIDTH = 300  # px for the words on each side
NOTES = {  # left or right of the node, what it points to, words
    "mode": ("left", "adaptive: fastest, very close to KSampler's image. off: KSampler itself"),
    "tolerance": ("left", "how much the steps left out in a row may change the image"),
    "sentence": ("left", "the run in one sentence; a click opens and folds the plot"),
    "difference": ("left", "how far the two prompts pull the image apart"),
    "key": ("right", "what every mark and line means"),
    "menu": ("right", "save the plot as a picture, the steps as a table"),
    "change": ("right", "dashed: your tolerance; dotted: the change expected without this step"),
    "bars": ("right", "a bar for each step, as high as the time that it took"),
}
POINTS = """(node) => {
    const { scale, offset } = window.app.canvas.ds;
    const page = window.app.canvas.canvas.getBoundingClientRect();
    const widget = (name) => {
        const { y, computedHeight } = node.widgets.find((one) => one.name === name);
        const middle = node.pos[1] + y + (computedHeight ?? 20) / 2;
        return { left: page.x + (node.pos[0] + offset[0]) * scale + 12 * scale,
                 right: page.x + (node.pos[0] + node.size[0] + offset[0]) * scale,
                 y: page.y + (middle + offset[1]) * scale };
    };
    const root = document.querySelector("[data-testid=hybrid-plot]");
    const part = (id, dx = 0.5, dy = 0.5, from = root) => {
        const box = from.querySelector(`[data-testid=hybrid-plot-${id}]`).getBoundingClientRect();
        const x = box.x + dx * box.width;
        return { left: x, right: x, y: box.y + dy * box.height };
    };
    return { mode: widget("mode"), tolerance: widget("tolerance"),
             sentence: part("sentence", 0), key: { ...part("key", 0.7, 0.1), lift: 40 },
             menu: part("menu", 1),
             difference: part("canvas", 0.18, 0.3), change: part("canvas", 0.99, 0.46),
             bars: part("canvas", 0.99, 0.88) };
}"""
DRAW = """([notes, box, width]) => {
    const layer = document.createElement("div");
    layer.style.cssText = "position:fixed;inset:0;z-index:99999;pointer-events:none";
    for (const x of [box.x - width, box.x + box.width]) {
        const cover = document.createElement("div");
        cover.style.cssText = `position:absolute;left:${x}px;top:0;width:${width}px;height:100%;
            background:#1b1b1b`;
        layer.append(cover);
    }
    document.body.append(layer);
    const bottom = { left: 0, right: 0 };
    for (const { side, words, x, y, lift = 0 } of notes) {
        const top = Math.max(y - 11 - lift, bottom[side] + 8);
        const note = document.createElement("div");
        note.textContent = words;
        const at = side === "left" ? box.x - width + 20 : box.x + box.width + 30;
        note.style.cssText = `position:absolute;left:${at}px;top:${top}px;width:${width - 60}px;
            font:14px/19px Inter,sans-serif;color:#fff;
            text-align:${side === "left" ? "right" : "left"}`;
        layer.append(note);
        bottom[side] = note.getBoundingClientRect().bottom;
        const from = side === "left" ? at + width - 52 : at - 8;
        const [dx, dy] = [x - from, y - top - 11];
        const line = document.createElement("div");
        line.style.cssText = `position:absolute;left:${from}px;top:${top + 11}px;height:0;
            width:${Math.hypot(dx, dy)}px;border-top:1.5px solid #ffb454;transform-origin:0 0;
            transform:rotate(${Math.atan2(dy, dx)}rad)`;
        layer.append(line);
    }
    layer.id = "hybrid-notes";
}"""


def annotated(page: Page, sampler: Any, box: dict[str, float], to: Path) -> None:
    """Save the node, which lies at `box` on the page in pixels, with words on both sides."""
    points = page.evaluate(POINTS, sampler)
    notes = [
        {**points[part], "side": side, "words": words, "x": points[part][side]}
        for part, (side, words) in NOTES.items()
    ]
    notes.sort(key=lambda note: note["y"])
    page.evaluate(DRAW, [notes, box, WIDTH])
    clip = {**box, "x": box["x"] - WIDTH, "width": box["width"] + 2 * WIDTH}
    page.screenshot(path=str(to), clip=clip)
    page.evaluate("document.getElementById('hybrid-notes').remove()")

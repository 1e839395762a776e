"""ComfyUI's own templates swapped and swapped back in the real frontend.

All of them: `python -m tests.pages.templates [frontend version [classic or nodes2]]` in the
environment that `python dev.py test` sets; it prints what it counted and ends with 1 if something
is wrong.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

PACKAGES = "comfyui-workflow-templates"  # begin so
SAMPLERS = ("KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced")
MOST_COVERED = 0.10  # of a node, beyond what was covered before
PATTERN = "%KSampler.seed%-%KSampler.steps%"  # in the name of each saved picture
TO_HYBRID = "HybridKSampler.SwapWorkflow.hybrid"
TO_KSAMPLER = "HybridKSampler.SwapWorkflow.ksampler"
ATTACH = "Hybrid_AttachModel"
MOST_LOOKS = 50
A_PAGE = 30  # templates, then a fresh page

SEEN = """async () => {
    const graphs = [app.rootGraph, ...(app.rootGraph.subgraphs?.values() ?? [])];
    const boxes = graphs.flatMap((graph) => graph.nodes
        .filter((node) => !node.flags?.collapsed)
        .map((node) => ({graph: graph.id, id: String(node.id), type: node.type,
            x: node.pos[0], y: node.pos[1] - 30, w: node.size[0], h: node.size[1] + 30})));
    const {output} = await app.graphToPrompt();
    return {boxes, output, root: app.rootGraph.id};
}"""
# the frontend measures nodes anew whenever it undoes something, which a swap is made of
UNDONE_AND_REDONE = """async () => {
    const tracker = app.extensionManager.workflow.activeWorkflow.changeTracker;
    (tracker.captureCanvasState ?? tracker.checkState).call(tracker);
    await tracker.undo();
    await tracker.redo();
}"""
NAME = """(pattern) => {
    for (const node of app.rootGraph.nodes) {
        const widget = node.widgets?.find(({name}) => name === 'filename_prefix');
        if (widget && node.type === 'SaveImage') widget.value = pattern;
    }
}"""


def templates() -> list[Path]:
    """Workflow files of the installed packages that sample."""
    files = [
        Path(str(package.locate_file(file)))
        for package in importlib.metadata.distributions()
        if package.metadata["Name"].replace("_", "-").startswith(PACKAGES)
        for file in package.files or ()
        if file.suffix == ".json" and file.parent.name == "templates"
    ]
    return sorted(file for file in set(files) if _samples(file))


def _samples(file: Path) -> bool:
    found = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(found, dict) or "nodes" not in found:
        return False
    graphs = [found, *(found.get("definitions") or {}).get("subgraphs", [])]
    return any(node["type"] in SAMPLERS for graph in graphs for node in graph["nodes"])


def swapped(tab: Any, workflow: dict[str, Any]) -> dict[str, Any]:
    """Swap a workflow there and back.

    "nodes": how many are ours then, "attached" and "in subgraphs" of them; "wrong": sentences.
    """
    tab.load(workflow)
    tab.js(NAME, PATTERN)
    tab.js(UNDONE_AND_REDONE)
    before = settled(tab)
    tab.js("(id) => app.extensionManager.command.execute(id)", TO_HYBRID)
    there = settled(tab)
    tab.js("(id) => app.extensionManager.command.execute(id)", TO_KSAMPLER)
    back = settled(tab)
    ours = [box for box in there["boxes"] if box["type"].startswith("Hybrid_")]
    wrong = [*newly_covered(before["boxes"], there["boxes"])]
    if unlike(plain(there["output"]), before["output"]):
        wrong.append("the prompt differs by more than class and new inputs")
    if back["output"] != before["output"]:
        wrong.append("the prompt differs after the way back")
    if at(back["boxes"]) != at(before["boxes"]):
        wrong.append("nodes lie elsewhere after the way back")
    if not ours:
        wrong.append("nothing was swapped")
    attached = [box for box in ours if box["type"] == ATTACH]
    inner = [box for box in ours if box["graph"] != before["root"]]
    return {
        "nodes": len(ours), "attached": len(attached), "in subgraphs": len(inner), "wrong": wrong,
    }  # fmt: skip


def settled(tab: Any) -> dict[str, Any]:
    """What SEEN tells once the frontend, which goes on loading, has nothing more to change."""
    seen = None
    for _ in range(MOST_LOOKS):
        tab.frames(2)
        before, seen = seen, tab.js(SEEN)
        if seen == before:
            break
    return seen


def at(boxes: list[dict[str, Any]]) -> dict[tuple[str, str], list[int]]:
    return {
        (box["graph"], box["id"]): [round(box[key]) for key in ("x", "y", "w", "h")]
        for box in boxes
    }


def newly_covered(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[str]:
    """What is covered for more than MOST_COVERED beyond what it was before."""
    known = covered(before)
    return [
        f"{box} is covered for {share:.0%}, {known.get(box, (0.0, ''))[0]:.0%} before, by {by}"
        for box, (share, by) in covered(after).items()
        if share > known.get(box, (0.0, ""))[0] + MOST_COVERED
    ]


def covered(boxes: list[dict[str, Any]]) -> dict[tuple[str, str], tuple[float, str]]:
    """The share of each node that another one covers at most, and which one that is."""
    found = {}
    for one in boxes:
        shares = [
            (_common(one, other) / (one["w"] * one["h"]), other["type"])
            for other in boxes
            if other is not one and other["graph"] == one["graph"]
        ]
        found[one["graph"], one["id"]] = max(shares, default=(0.0, ""))
    return found


def _common(one: dict[str, Any], other: dict[str, Any]) -> float:
    w = min(one["x"] + one["w"], other["x"] + other["w"]) - max(one["x"], other["x"])
    h = min(one["y"] + one["h"], other["y"] + other["h"]) - max(one["y"], other["y"])
    return max(0.0, w) * max(0.0, h)


def plain(output: dict[str, Any]) -> dict[str, Any]:
    """A prompt with our nodes as ComfyUI's own: without new inputs and attached models."""
    models = {id: node["inputs"].get("model") for id, node in output.items() if attached(node)}
    found = {}
    for id, node in output.items():
        if attached(node):
            continue
        ours = (node["class_type"] or "").startswith("Hybrid_")  # none: a node that is missing here
        inputs = {
            name: models.get(value[0], value) if isinstance(value, list) and value else value
            for name, value in node["inputs"].items()
            if not (ours and name in ("mode", "tolerance", "options"))
        }
        found[id] = {**node, "inputs": inputs}
        if ours:
            found[id]["class_type"] = node["class_type"].removeprefix("Hybrid_")
    return found


def attached(node: dict[str, Any]) -> bool:
    return bool(node["class_type"] == ATTACH)


def unlike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    bare = [
        {id: {"class_type": n["class_type"], "inputs": n["inputs"]} for id, n in output.items()}
        for output in (one, other)
    ]
    return bare[0] != bare[1]


def main() -> None:
    import tempfile

    sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    import os

    from pages_tab import ARGUMENTS, Tab, front_end
    from playwright.sync_api import sync_playwright

    from demo.server import serving

    version, renderer = (*sys.argv[1:], *("1.58.1", "classic")[len(sys.argv) - 1 :])
    failed, counts = 0, Counter[str]()
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder), front_end(version)) as server,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(
            executable_path=os.environ["HYBRID_BROWSER"], args=ARGUMENTS
        )
        files, context = templates(), None
        for count, file in enumerate(files):
            if count % A_PAGE == 0:  # the frontend keeps what it loaded
                if context:
                    context.close()
                context = browser.new_context(viewport={"width": 1280, "height": 800})
                tab = Tab(context, server, nodes2=renderer == "nodes2")
                tab.page.set_default_timeout(180_000)
                tab.open()
                print(f"{count} of {len(files)}, {failed} with something wrong", flush=True)
            told = swapped(tab, json.loads(file.read_text(encoding="utf-8")))
            failed += bool(told["wrong"])
            counts.update({name: n for name, n in told.items() if name != "wrong"})
            counts.update(f"with {name}" for name in ("attached", "in subgraphs") if told[name])
            for sentence in told["wrong"]:
                print(f"{file.stem}: {sentence}", flush=True)
        browser.close()
    print(f"{len(files)} templates, {version} {renderer}: {failed} with something wrong; {counts}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()

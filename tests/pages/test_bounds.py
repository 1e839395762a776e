"""A tab that stays open for days."""

from __future__ import annotations

import pytest
from pages_graphs import rows_of, run_event, text_to_latent

pytestmark = pytest.mark.either_renderer

LARGEST_GROWTH = 3.0  # MB of JavaScript heap from run 200 to run 1000; without bounds it is 4.9
LARGEST_STORE = 128  # runs: a current and a previous one of 64 nodes

FEED = """async ([detail, from, to]) => {
    for (let i = from; i < to; i += 1) {
        const workflow = i % 4 ? detail.workflow_id : `other-${i}`;
        probe.feed({...structuredClone(detail), run: `run-${i}`, started: 1000 + i,
                    workflow_id: workflow, node: i % 2 ? '5' : String(100 + i)});
        if (i % 10 === 0) await new Promise(requestAnimationFrame);
    }
    probe.events.length = 0;
}"""


def measured(tab, client) -> dict[str, float]:
    tab.frames(3)
    client.send("HeapProfiler.collectGarbage")
    metrics = client.send("Performance.getMetrics")["metrics"]
    return {metric["name"]: metric["value"] for metric in metrics}


def test_a_thousand_runs_leave_a_bounded_page(tab):
    tab.load(text_to_latent())
    tab.until("probe.onScreen('5')")
    detail = run_event("5", tab.js("probe.root().id"), rows_of(100))
    client = tab.page.context.new_cdp_session(tab.page)
    client.send("Performance.enable")
    tab.js(FEED, [detail, 0, 200])
    before = measured(tab, client)
    tab.js(FEED, [detail, 200, 1000])
    after = measured(tab, client)
    client.detach()
    kept = tab.js(
        """() => {
            const ids = new Set();
            for (let i = 0; i < 1000; i += 1)
                for (const workflow of [probe.root().id, `other-${i}`])
                    for (const {current, previous} of probe.pack().store.slots(workflow))
                        for (const run of [current, previous]) if (run) ids.add(run.run);
            return ids.size;
        }"""
    )
    assert 2 <= kept <= LARGEST_STORE
    growth = (after["JSHeapUsedSize"] - before["JSHeapUsedSize"]) / 2**20
    assert growth < LARGEST_GROWTH, f"{growth:.1f} MB from run 200 to run 1000"
    assert after["Nodes"] <= before["Nodes"] + 50
    assert after["JSEventListeners"] <= before["JSEventListeners"] + 20
    assert "999" in tab.js("probe.pack().store.slots(probe.root().id).at(-1).current.run")


def test_plots_in_subgraphs_end_with_their_workflow(tab):
    """Undo and redo load the workflow anew: as many plots are watched as there are nodes."""
    tab.load(text_to_latent())
    tab.js("() => void app.graph.convertToSubgraph(new Set([probe.node('5')]))")
    watched = """async (times) => {
        const workflow = probe.root().serialize();
        for (let i = 0; i < times; i += 1) await app.loadGraphData(workflow);
        return probe.pack().plots.size;
    }"""
    assert tab.js(watched, 0) == 1
    assert tab.js(watched, 4) == 1
    tab.load(text_to_latent())
    assert tab.js(watched, 0) == 1
    tab.until("probe.onScreen('5')")

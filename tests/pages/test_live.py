"""The curve while a run goes on, and what a run leaves behind."""

from __future__ import annotations

import uuid

import pytest
from pages_graphs import rows_of, text_to_latent
from pages_tab import DONE, until_shared
from processes import workers

pytestmark = pytest.mark.either_renderer
ENDLESS = 3000  # full steps: ended by Cancel long before


@pytest.fixture
def shared(tab):
    """The tab, once the second process takes part in the runs."""
    until_shared(tab)
    return tab


def cancel(tab, prompt: str) -> dict:
    """The history entry of a prompt that runs now and ends thereby."""
    assert prompt not in tab.server.get(f"/history/{prompt}"), "it has ended by itself"
    tab.server.post("/interrupt", {})
    entry = tab.server.finished(prompt)
    tab.until(DONE)  # what comes late would be taken for the next run's
    return entry


def test_the_curve_is_drawn_live_until_cancel(tab):
    tab.load(text_to_latent(steps=ENDLESS, mode="exact"))
    empty, before = tab.still()["drawn"], tab.redraws()
    prompt = tab.queue()
    tab.until("probe.events.some((e) => e.detail.start > 3)", seconds=60)
    tab.until("(n) => probe.counts('5').redraws >= n + 5", before)
    tab.until("(drawn) => probe.pixels('5').drawn > drawn", empty)
    entry = cancel(tab, prompt)
    assert entry["status"]["messages"][-1][0] == "execution_interrupted"
    tab.until("probe.events.at(-1).detail.status === 'interrupted'")
    tab.until("/interrupted/i.test(probe.said('5'))")


def test_an_adaptive_run_arrives_whole(shared):
    tab = shared
    tab.load(text_to_latent(steps=30, tolerance=0.1))  # some step of any picture is short
    tab.run()
    tab.until(DONE)
    last, rows = tab.js("probe.events.at(-1).detail"), tab.rows()
    kinds = {row["kind"] for row in rows}
    assert len(rows) == 30 and "exact" in kinds
    assert kinds & {"pipelined", "forecast"} and kinds <= {"exact", "pipelined", "forecast"}
    assert last["status"] == "done" and last["mode"] == "adaptive"
    assert last["node"] == "5" and last["workflow_id"] == tab.js("probe.root().id")


@pytest.mark.once
def test_a_second_tab_sees_the_run(tab, open_tab, picture):
    workflow = text_to_latent(steps=ENDLESS, mode="exact")
    tab.load(workflow)
    other = open_tab()
    other.load(workflow)
    prompt = tab.queue()
    other.until("probe.rows('5').length > 5", seconds=60)
    seen = len(other.rows())
    other.until("(n) => probe.rows('5').length > n", seen)
    assert other.js("probe.events.length") == 0
    picture(other, "-other-tab")
    cancel(tab, prompt)
    tab.until(DONE)
    other.until("(n) => probe.rows('5').length === n", len(tab.rows()))
    other.until("/interrupted/i.test(probe.said('5'))")
    assert not other.errors
    other.page.close()


def test_two_workflows_with_the_same_node_id_do_not_mix(tab):
    first, second = text_to_latent(steps=9), text_to_latent(steps=14)
    tab.load(first)
    one = tab.queue()
    tab.js("(workflow) => app.loadGraphData(workflow)", second)
    two = tab.queue()
    tab.server.finished(one)
    tab.server.finished(two)
    tab.until("probe.events.filter((e) => e.detail.status === 'done').length === 2")
    for workflow, steps in ((first, 9), (second, 14)):
        tab.load(workflow)
        assert len(tab.rows()) == steps
        tab.until("probe.onScreen('5')")
        tab.until("(n) => probe.shown('5') === n", steps)


def test_a_failed_run_is_shown_as_failed(tab):
    tab.load(text_to_latent())
    tab.feed(rows_of(7), status="failed", total=20)
    tab.until("/failed/i.test(probe.said('5'))")


def test_worker_killed_in_mid_run(shared):
    tab = shared
    tab.load(text_to_latent(steps=ENDLESS, mode="exact"))
    prompt = tab.queue()
    tab.until("probe.events.some((e) => e.detail.start > 5)", seconds=60)
    (worker,) = workers(tab.server)
    worker.kill()
    tab.until("probe.rows('5').some(({kind}) => kind === 'local')", seconds=60)
    reason = tab.until("probe.events.at(-1).detail.reasons[0]")
    tab.until("(reason) => probe.said('5').includes(reason)", reason)
    cancel(tab, prompt)


def test_a_sampler_in_a_subgraph_shows_its_run(tab):
    tab.load(text_to_latent(steps=10))
    inner = tab.js(
        """() => {
            const {subgraph, node} = app.graph.convertToSubgraph(new Set([probe.node('5')]));
            return `${node.id}:${subgraph.nodes[0].id}`;
        }"""
    )
    tab.frames(3)
    tab.js(
        "(id) => app.canvas.openSubgraph(probe.node(id).subgraph, probe.node(id))",
        inner.split(":")[0],
    )
    tab.run()
    tab.until(DONE)
    assert tab.js("[...new Set(probe.events.map((e) => e.detail.node))]") == [inner]
    assert tab.still(inner)["drawn"] > 0
    assert len(tab.rows(inner)) == 10


def test_a_cached_run_is_shown_again(tab):
    workflow = text_to_latent(steps=8)
    tab.load(workflow)
    tab.run()
    tab.until(DONE)
    tab.load({**workflow, "id": str(uuid.uuid4())})
    tab.until("probe.onScreen('5')")
    entry = tab.run()
    cached = next(d for name, d in entry["status"]["messages"] if name == "execution_cached")
    assert "5" in cached["nodes"]
    tab.until("probe.rows('5').length === 8")

"""The rules about what the plot shows and what that costs: 8 to 13."""

from __future__ import annotations

import json
import uuid

import pytest
from pages_graphs import row_of, rows_of, run_event, text_to_latent


def test_rule_08_runs_outlive_the_widget(tab):
    workflow = text_to_latent()
    tab.load(workflow)
    empty = tab.still()["drawn"]
    tab.feed(rows_of())
    tab.until("(drawn) => probe.pixels('5').drawn > drawn", empty)
    said = tab.said()
    tab.load(text_to_latent())
    tab.until("probe.onScreen('5')")
    tab.until("(drawn) => probe.pixels('5').drawn === drawn", empty)
    tab.load(workflow)
    tab.until("(drawn) => probe.pixels('5')?.drawn > drawn", empty)
    assert tab.said() == said


@pytest.mark.either_renderer
def test_rule_08_runs_are_kept_by_workflow_and_execution_id(tab):
    tab.load(text_to_latent())
    before = tab.still()
    tab.feed(rows_of(), workflow_id=str(uuid.uuid4()))
    tab.feed(rows_of(), node="4:5")
    tab.frames(4)
    assert tab.pixels()["hash"] == before["hash"], "the runs of other nodes are shown"
    tab.feed(rows_of())
    tab.until("(hash) => probe.pixels('5').hash !== hash", before["hash"])


@pytest.mark.either_renderer
def test_rule_09_an_event_before_the_set_up_is_kept(open_tab, server, picture):
    workflow = text_to_latent()
    early = run_event("5", workflow["id"], rows_of(20))
    sent = []

    def hand_over(socket):
        upstream = socket.connect_to_server()
        upstream.on_message(socket.send)
        socket.on_message(upstream.send)
        socket.send(json.dumps({"type": "hybrid_ksampler.run", "data": early}))
        sent.append(early)

    tab = open_tab(prepare=lambda page: page.route_web_socket("**/ws*", hand_over))
    assert sent, "the page opened no socket"
    tab.load(workflow)
    tab.until("probe.onScreen('5')")
    tab.until("/10 full, 10 short steps/.test(probe.said('5'))")
    picture(tab)
    assert not tab.errors
    tab.page.close()


@pytest.mark.once
def test_rule_10_numbers_are_finite_and_none_is_null(tab):
    workflow = text_to_latent(steps=6)
    tab.load(workflow)
    tab.messages.clear()
    tab.run()
    tab.until("probe.events.some((e) => e.detail.status === 'done')")
    ours = [m for m in tab.messages if '"hybrid_ksampler.run"' in m]
    assert ours and not [m for m in ours if "NaN" in m or "Infinity" in m]
    sequence = tab.js("probe.events.map((e) => e.detail.seq)")
    assert sequence == list(range(sequence[0], sequence[0] + len(sequence))), "one was dropped"
    rows = [row_of(i, "local") for i in range(9)]  # the run before may be local too: more cells
    before = tab.still()["hash"]
    tab.feed(rows, ratio=None, ideal=None, tolerance=None, cut=None, total=9, started=9e9)
    tab.until("(hash) => probe.pixels('5').hash !== hash", before)


@pytest.mark.either_renderer
def test_rule_11_a_reload_in_mid_run_leaves_no_gap(tab):
    tab.load(text_to_latent(steps=3000, mode="exact"))
    prompt = tab.queue()
    tab.until("probe.events.some((e) => e.detail.start > 5)", seconds=60)
    tab.reload()
    tab.until("probe.onScreen('5')")
    tab.until("probe.events.length > 2")
    assert tab.js("probe.events[0].detail.start") > 5, "nothing was missed"
    tab.server.post("/interrupt", {})
    tab.server.finished(prompt)
    tab.until("probe.events.at(-1).detail.status === 'interrupted'")
    last = tab.js("probe.events.at(-1).detail")
    tab.until("(n) => probe.rows('5').length === n", last["start"] + len(last["rows"]))
    steps = [row["step"] for row in tab.rows()]
    assert steps == list(range(len(steps)))


def test_rule_12_colours_follow_the_theme(tab):
    tab.load(text_to_latent())
    tab.feed(rows_of())
    tab.until("probe.pixels('5')?.drawn > 0")
    expected = tab.js(
        """() => {
            const probe_ = document.createElement("canvas").getContext("2d");
            probe_.fillStyle = getComputedStyle(document.documentElement)
                .getPropertyValue("--comfy-input-bg").trim();
            return probe_.fillStyle.slice(1);
        }"""
    )
    assert tab.pixels()["background"] == expected
    before = tab.redraws()
    style = "document.documentElement.style"
    tab.js(f"{style}.setProperty('--comfy-input-bg', '#123456')")
    try:
        tab.until("probe.pixels('5').background === '123456'")
        assert tab.redraws() > before
    finally:
        tab.js(f"{style}.setProperty('--comfy-input-bg', '#{expected}')")
    tab.until("(colour) => probe.pixels('5').background === colour", expected)


@pytest.mark.once
def test_rule_13_at_most_fifteen_messages_a_second_and_only_deltas(tab):
    tab.load(text_to_latent(steps=60))
    tab.run()
    tab.until("probe.events.some((e) => e.detail.status === 'done')")
    events = tab.js("probe.events.map((e) => ({at: e.at, start: e.detail.start, "
                    "rows: e.detail.rows.length}))")  # fmt: skip
    seconds = (events[-1]["at"] - events[0]["at"]) / 1000
    assert len(events) <= 15 * seconds + 2
    assert sum(event["rows"] for event in events) <= 60 + 2 * len(events), "rows come again"
    assert len(tab.rows()) == 60


def test_rule_13_one_redraw_a_frame_and_none_without_a_change(tab):
    tab.load(text_to_latent())
    detail = tab.feed(rows_of(2), total=60, status="running")
    tab.still()
    before = tab.js("({...probe.counts('5')})")
    rows = rows_of(60)
    tab.js(
        """([detail, rows]) => {
            for (let i = 2; i < rows.length; i += 1)
                probe.feed({...detail, seq: i, start: i, rows: [rows[i]]});
        }""",
        [detail, rows],
    )
    tab.still()
    after = tab.js("({...probe.counts('5')})")
    assert 1 <= after["redraws"] - before["redraws"] <= 2, "58 events in one task"
    assert after["redraws"] - before["redraws"] == after["frames"] - before["frames"]
    tab.js("(detail) => probe.feed(detail)", {**detail, "seq": 59, "start": 59, "rows": [rows[59]]})
    tab.frames(4)
    assert tab.redraws() == after["redraws"], "the same again is no change"
    tab.feed(rows[59:], run=detail["run"], seq=60, start=59, status="done", total=60)
    tab.until("(n) => probe.counts('5').redraws > n", after["redraws"])

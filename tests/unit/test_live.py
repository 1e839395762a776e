"""What a page is told of runs, and how often."""

from __future__ import annotations

import json
import threading

import pytest

from hybrid_core.telling.live import GAP_SECONDS, KEPT, Address, Live, LiveNode
from hybrid_core.telling.report import Report, StepRecord

ADDRESS = Address("4:2", "p", "w", "page")


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    class Never(threading.Timer):
        def start(self):
            self.args_seen = self.interval  # nothing is sent behind the test's back

    monkeypatch.setattr(threading, "Timer", Never)
    return Clock()


def setting(clock):
    sent = []
    live = Live(lambda client, message: sent.append(message), clock)
    return live, LiveNode(live, lambda: ADDRESS), sent


def step(report, number, **values):
    report.steps.append(StepRecord(number, 1.0 - number / 10, seconds=0.01, **values))


def rebuilt(sent):
    """Rows as a page puts them together."""
    rows = []
    for message in sent:
        rows = rows[: message["start"]] + message["rows"]
    return rows


def test_messages_are_deltas_that_make_the_snapshot(clock):
    live, node, sent = setting(clock)
    report = Report("adaptive", tolerance=0.006, total=4)
    node.began(report)
    for number in range(4):
        clock.now += 1
        live._later()
        if number:
            report.steps[-1].discrepancy = 0.1 * number  # known at the next step
        step(report, number)
        node.stepped(report)
    report.status = "done"
    clock.now += 1
    live._later()
    node.ended(report)
    clock.now += 1
    live._later()
    (snapshot,) = live.snapshots()
    assert rebuilt(sent) == snapshot["rows"] and len(snapshot["rows"]) == 4
    assert [row["discrepancy"] for row in snapshot["rows"]] == [0.1, 0.2, 0.3, None]
    assert [m["seq"] for m in sent] == list(range(1, len(sent) + 1))
    assert all(len(m["rows"]) <= 2 for m in sent), "deltas, not everything each time"
    assert sent[-1]["status"] == "done" and {m["node"] for m in sent} == {"4:2"}
    assert node.shown == snapshot


def test_a_run_is_told_with_the_seconds_that_it_took(clock):
    live, node, _ = setting(clock)
    for seconds in (3, 5):
        report = Report(total=1)
        clock.now += 100  # between two prompts
        node.began(report)
        clock.now += seconds
        node.ended(report)
    assert [run["seconds"] for run in live.snapshots()] == [3, 5]
    alone = LiveNode(live, lambda: ADDRESS)
    clock.now += 7
    alone.did_not_share(Report("off", status="done"))
    assert alone.shown["seconds"] == 7


def test_loading_the_model_is_not_of_the_time(clock):
    live, node, _ = setting(clock)
    report = Report(total=2)
    node.began(report)
    clock.now += 60  # until the first step is done
    report.steps.append(StepRecord(step=0, seconds=4))
    node.stepped(report)
    clock.now += 5
    node.ended(report)
    assert node.shown["seconds"] == 9
    alone = LiveNode(live, lambda: ADDRESS)
    clock.now += 60
    alone.loaded()
    clock.now += 9
    alone.did_not_share(Report("off", status="done"))
    assert alone.shown["seconds"] == 9


def test_no_faster_than_the_pace_and_the_end_is_told(clock):
    live, node, sent = setting(clock)
    report = Report(total=100)
    node.began(report)
    for number in range(100):
        step(report, number)
        node.stepped(report)
    report.status = "done"
    node.ended(report)
    assert len(sent) == 1, "the clock stood still"
    clock.now += GAP_SECONDS
    live._later()
    assert len(sent) == 2 and sent[-1]["status"] == "done"
    assert len(rebuilt(sent)) == 100
    clock.now += 1
    live._later()
    assert len(sent) == 2, "nothing is left to tell"


def test_pace_holds_for_all_runs_together_on_a_real_clock():
    times, done = [], threading.Event()
    nodes = []

    def send(client, message):
        times.append(live._clock())
        if all(node.shown["status"] == "done" for node in nodes):
            done.set()

    live = Live(send)
    nodes += [LiveNode(live, lambda: ADDRESS) for _ in range(3)]
    reports = [Report(total=50) for _ in nodes]
    for node, report in zip(nodes, reports, strict=True):
        node.began(report)
    for number in range(50):
        for node, report in zip(nodes, reports, strict=True):
            step(report, number)
            node.stepped(report)
    for node, report in zip(nodes, reports, strict=True):
        report.status = "done"
        node.ended(report)
    assert done.wait(10)
    pauses = [b - a for a, b in zip(times, times[1:], strict=False)]
    assert pauses and min(pauses) >= GAP_SECONDS * 0.99


def test_what_json_does_not_have_becomes_null(clock):
    live, node, sent = setting(clock)
    report = Report(total=1)
    step(report, 0, discrepancy=float("nan"), drift=float("inf"))
    node.began(report)
    text = json.dumps(sent[0], allow_nan=False)
    (row,) = json.loads(text)["rows"]
    assert row["discrepancy"] is None and row["drift"] is None


def test_a_row_names_the_branch_that_a_pipelined_step_evaluated(clock):
    live, node, sent = setting(clock)
    report = Report(total=2)
    step(report, 0)
    step(report, 1, kind="pipelined", branch="uncond")
    node.began(report)
    assert [row["branch"] for row in sent[0]["rows"]] == [None, "uncond"]


def test_steps_with_another_evaluation_after_them_show_their_discrepancy_too(clock):
    """Perturbed-attention guidance evaluates once more, off the schedule, after each step."""
    live, node, sent = setting(clock)
    report = Report(total=3)
    node.began(report)
    for number in range(3):
        if number:
            report.steps[-2].discrepancy = 0.1 * number
        step(report, number)
        report.steps.append(StepRecord(None, kind="single"))
        clock.now += 1
        live._later()
        node.stepped(report)
    report.steps[-2].discrepancy = 0.3
    clock.now += 1
    live._later()
    node.ended(report)
    (snapshot,) = live.snapshots()
    assert [row["discrepancy"] for row in snapshot["rows"][::2]] == [0.1, 0.2, 0.3]
    assert rebuilt(sent) == snapshot["rows"]


def test_the_latest_runs_are_kept_and_one_workflow_can_be_asked_for(clock):
    live, _, _ = setting(clock)
    for number in range(KEPT + 5):
        workflow = "even" if number % 2 == 0 else "odd"
        address = Address(str(number), "p", workflow)
        LiveNode(live, lambda address=address: address).began(Report())
    assert [s["node"] for s in live.snapshots()] == [str(n) for n in range(5, KEPT + 5)]
    assert {s["workflow_id"] for s in live.snapshots("odd")} == {"odd"}


def test_a_sampler_inside_a_sampler_is_a_run_of_its_own(clock):
    live, node, _ = setting(clock)
    outer, inner = Report(total=2), Report(total=1)
    node.began(outer)
    step(outer, 0)
    node.stepped(outer)
    node.began(inner)
    step(inner, 0)
    node.stepped(inner)
    node.ended(inner)
    step(outer, 1)
    node.ended(outer)
    assert [len(s["rows"]) for s in live.snapshots()] == [2, 1]
    assert len(node.shown["rows"]) == 2


def test_a_page_that_cannot_be_reached_costs_nothing(clock, caplog):
    def broken(client, message):
        raise RuntimeError("the loop is closed")

    live = Live(broken, clock)
    LiveNode(live, lambda: ADDRESS).began(Report())
    assert "could not be shown" in caplog.text and len(live.snapshots()) == 1


def test_a_reused_node_reports_to_the_prompt_that_runs_now(clock):
    live, _, _ = setting(clock)
    prompts = iter(["made", "first", "second"])
    node = LiveNode(live, lambda: Address("4", next(prompts)))
    for _ in "12":
        report = Report()
        node.began(report)
        node.ended(report)
    assert [s["prompt_id"] for s in live.snapshots()] == ["first", "second"]


def test_each_page_hears_of_its_own_runs_only(clock):
    sent = []
    live = Live(lambda client, message: sent.append((client, message["node"])), clock)
    for node, client in (("1", "a"), ("2", None), ("3", "b")):
        LiveNode(live, lambda node=node, client=client: Address(node, "p", "w", client)).began(
            Report()
        )
        clock.now += 1
        live._later()
    assert sent == [("a", "1"), ("b", "3")] and len(live.snapshots()) == 3

"""What a run's report says, by arithmetic done by hand."""

from __future__ import annotations

import pytest

from hybrid_core.telling.report import Report, StepRecord


@pytest.fixture
def report():
    """Three exact steps of 10 ms a branch, four pipelined ones; the first had nothing ahead."""
    made = Report("adaptive", total=7)
    for number, kind in enumerate("EEpppEp"):
        if kind == "E":
            times = {"seconds": 0.011, "own_seconds": 0.010, "worker_seconds": 0.008}
        else:
            times = {"seconds": 0.006, "own_seconds": 0.004}
        if kind == "p" and number > 2:
            times |= {"worker_seconds": 0.004, "waited_seconds": 0.001}
        kind = "exact" if kind == "E" else "pipelined"
        made.steps.append(StepRecord(number, kind=kind, **times))
    return made


def test_ratios_and_stages_follow_from_the_steps(report):
    assert report.ideal == pytest.approx(14 / (3 + 4 / 2))
    assert report.ratio == pytest.approx(7 * 0.020 / (3 * 0.011 + 4 * 0.006))
    assert report.tau == (2, 7)


def test_other_evaluations_of_one_branch_change_no_ratio_of_steps(report):
    report.steps += [StepRecord(kind="single") for _ in range(7)]
    assert report.ideal == pytest.approx((14 + 7) / (3 + 4 / 2 + 7))


def test_means_are_of_what_there_was(report):
    times = report.data()["ms"]
    assert times["worker_stage"] == 4.0, "of three stages that the worker evaluated ahead"
    assert (times["pipelined_own"], times["pipelined_wait"]) == (4.0, 1.0)
    assert (times["exact_own"], times["exact_wait"], times["exact_added"]) == (10.0, None, 1.0)
    assert times["alone"] is None


def test_the_line_says_what_was_shared(report):
    line = report.line()
    assert "7 of 7 steps shared with the second process, 4 of them pipelined" in line
    assert "between step 3 and 7, ideal 2.80x" in line and "steps EEpppEp" in line


def test_nothing_shared_is_no_gain():
    empty = Report("exact", total=4)
    assert (empty.ideal, empty.ratio, empty.tau) == (1.0, None, None)

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


@pytest.fixture
def divided():
    """Three pictures at cfg 1: two here (20 ms), one there; the first step was compared."""
    made = Report("exact", total=4)
    times = {"own_seconds": 0.020, "worker_seconds": 0.010, "waited_seconds": 0.001}
    for number in range(4):
        loads = {-1: 2 / 3, 0: 1 / 3} if number else {-1: 1.0}
        made.steps.append(
            StepRecord(number, kind="shared", share=2 / 3, seconds=0.022, compared=not number,
                       loads=loads, **times)
        )  # fmt: skip
    return made


def test_pictures_that_are_divided_count_by_the_larger_share(divided):
    assert divided.ideal == pytest.approx(4 / (1 + 3 * 2 / 3))
    assert divided.ratio == pytest.approx(4 * 0.030 / (4 * 0.022))
    assert (divided.shared, divided.divided, divided.single) == (4, 4, 0)
    times = divided.data()["ms"]
    assert (times["divided_own"], times["divided_wait"], times["divided_added"]) == (20, 1, 2)
    line = divided.line()
    assert (
        "4 of 4 steps shared with the second process, 4 with the batch's pictures divided" in line
    )
    assert "steps dddd" in line


def test_pictures_that_are_divided_beside_other_steps_are_no_steps_of_their_own(report):
    report.steps += [
        StepRecord(kind="shared", seconds=0.006, own_seconds=0.005, worker_seconds=0.005)
        for _ in range(7)
    ]
    assert report.ideal == pytest.approx((14 + 7) / (3 + 4 / 2 + 7 / 2))
    assert report.ratio == pytest.approx((7 * 0.020 + 7 * 0.010) / (3 * 0.011 + 11 * 0.006))
    assert "7 of 7 steps shared" in report.line()


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

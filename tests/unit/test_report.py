"""What a run's report says, by arithmetic done by hand."""

from __future__ import annotations

import pytest

from hybrid_core.telling.report import Report, StepRecord


@pytest.fixture
def report():
    """Three exact steps of 10 ms a branch, four pipelined ones; the first had nothing ahead."""
    made = Report("adaptive", total=7, partitioned=3, pipelined=4, stages=3, stage_seconds=0.012)
    made.own_stage_seconds, made.stage_wait_seconds = 0.016, 0.004
    for number, kind in enumerate("EEpppEp"):
        exact = kind == "E"
        made.steps.append(
            StepRecord(
                number, kind="exact" if exact else "pipelined", seconds=0.011 if exact else 0.006,
                own_seconds=0.010 if exact else 0.004,
            )
        )  # fmt: skip
    return made


def test_ratios_and_stages(report):
    assert report.ideal == pytest.approx(14 / (3 + 4 / 2))
    assert report.ratio == pytest.approx(7 * 0.020 / (3 * 0.011 + 4 * 0.006))
    assert report.tau == (2, 7)


def test_other_evaluations_of_one_branch_change_no_ratio_of_steps(report):
    report.single = 7
    assert report.ideal == pytest.approx((14 + 7) / (3 + 4 / 2 + 7))


def test_means_are_of_what_there_was(report):
    times = report.data()["ms"]
    assert times["worker_stage"] == 4.0, "of three stages that the worker evaluated ahead"
    assert (times["pipelined_own"], times["pipelined_wait"]) == (4.0, 1.0)
    assert times["alone"] is None


def test_the_line_says_what_was_shared(report):
    line = report.line()
    assert "7 of 7 steps shared with the second process, 4 of them pipelined" in line
    assert "between step 3 and 7, ideal 2.80x" in line and "steps EEpppEp" in line


def test_nothing_shared_is_no_gain():
    empty = Report("exact", total=4)
    assert (empty.ideal, empty.ratio, empty.tau) == (1.0, None, None)

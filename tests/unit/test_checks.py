"""What `dev.py test` says of tests that failed."""

from __future__ import annotations

import pytest

from tooling.checks import Outcome, counted, told

REPORT = """<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest">
  <testcase classname="tests.a" name="test_right"/>
  <testcase classname="tests.a" name="test_wrong[1]">
    <failure message="AssertionError: 1 != 2&#10;second line">trace</failure>
  </testcase>
  <testcase classname="tests.b" name="test_ends_twice">
    <failure message="first">trace</failure>
    <error message="left open">trace</error>
  </testcase>
  <testcase classname="tests.b" name="test_unfit"><skipped message="no GPU"/></testcase>
</testsuite></testsuites>"""


def test_counted_names_each_failed_test_once(tmp_path):
    report = tmp_path / "report.xml"
    report.write_text(REPORT, encoding="utf-8")
    failed = (
        "tests.a::test_wrong[1]: AssertionError: 1 != 2",
        "tests.b::test_ends_twice: first",
    )
    assert counted(report) == (1, failed, 1)


def test_counted_without_a_report_is_nothing(tmp_path):
    assert counted(tmp_path / "missing.xml") == (0, (), 0)


@pytest.mark.parametrize("why", [(), ("tests.a::test_wrong: 1 != 2",)])
def test_told_ends_with_failures_and_the_sum(capsys, why):
    code = told([Outcome("unit", 3, len(why), 1, 2.0, why), Outcome("mypy", 1, 0, 0, 1.0)])
    lines = capsys.readouterr().out.splitlines()
    assert code == len(why)
    assert lines[-1] == f"4 passed, {len(why)} failed, 1 skipped"
    assert lines[:-1] == [f"failed: {line}" for line in why]

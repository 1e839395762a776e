"""What `dev.py test` and `dev.py lint` run, and what each part of it took.

Each linter and each group of tests is a process of its own: a group pins itself to a core, another
keeps an event loop, and none disturbs the others.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from tooling.installed import DEV, PYTHON, ROOT, say

PYTEST = ("pytest", "-c", "tests/pytest.ini")
NO_TESTS_FOUND = 5  # pytest's exit code


class Part(NamedTuple):
    """A linter with its arguments, or a group of tests with its folders."""

    name: str
    words: tuple[str, ...]


class Outcome(NamedTuple):
    name: str
    passed: int
    failed: int
    skipped: int
    seconds: float
    why: tuple[str, ...] = ()  # one line for each that failed

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


LINTERS = (
    Part("ruff check", ("ruff", "check", ".")),
    Part("ruff format", ("ruff", "format", "--check", ".")),
    Part("mypy", ("mypy", "--config-file", "pyproject.toml")),
)
UNIT = Part("unit", ("tests/unit", "tests/web"))
GROUPS = (  # what takes longest begins first
    Part("comfy", ("tests/comfy",)),
    Part("pages", ("tests/pages",)),
    Part("server", ("tests/e2e",)),
    Part("diffusers", ("tests/diffusers_bridge",)),
    Part("cluster", ("tests/cluster",)),
    UNIT,
    Part("gpu", ("tests/gpu", "-W", "default")),
)
AT_ONCE = 2  # every group is made for two cores that it may have to share


def lint(env: dict[str, str]) -> int:
    """Every linter; the exit code."""
    return told(side_by_side(LINTERS, env))


def quick(env: dict[str, str]) -> int:
    """The linters, and the tests that need no ComfyUI; the exit code."""
    return told(side_by_side((UNIT, *LINTERS), env))


def everything(env: dict[str, str]) -> int:
    """The exit code of all there is."""
    return told(side_by_side((*GROUPS, *LINTERS), env))


def chosen(arguments: Sequence[str], env: dict[str, str]) -> int:
    """One pytest with these arguments; its exit code."""
    command = [str(PYTHON), "-m", *PYTEST, *arguments]
    return subprocess.run(command, cwd=ROOT, env=env).returncode


def side_by_side(parts: Sequence[Part], env: dict[str, str]) -> list[Outcome]:
    """Begun in their order, a few at a time."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda part: done(part, env), parts))


def done(part: Part, env: dict[str, str]) -> Outcome:
    """Run it; each line of its output is shown with its name."""
    report = DEV / "reports" / f"{part.name}.xml"
    report.parent.mkdir(exist_ok=True)
    report.unlink(missing_ok=True)
    linter = part in LINTERS
    words = part.words if linter else (*PYTEST, f"--junitxml={report}", *part.words)
    start = time.monotonic()
    with subprocess.Popen(
        [str(PYTHON), "-m", *words], cwd=ROOT, env=env, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace",
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            show(f"{part.name:11} | {line.rstrip()}")
    seconds = time.monotonic() - start
    failed = process.returncode not in ((0,) if linter else (0, NO_TESTS_FOUND))
    if linter:
        return Outcome(part.name, int(not failed), int(failed), 0, seconds)
    passed, why, skipped = counted(report)
    if failed and not why:  # a pytest that did not come to its end counts as one
        why = (f"ended with exit code {process.returncode}",)
    return Outcome(part.name, passed, len(why), skipped, seconds, why)


def show(line: str) -> None:
    print(line, flush=True)  # noqa: T201  this is a command-line tool


def counted(report: Path) -> tuple[int, tuple[str, ...], int]:
    """Tests passed, a line for each that failed, and tests skipped, by a report of pytest's."""
    if not report.is_file():
        return 0, (), 0
    cases = list(ElementTree.parse(report).iter("testcase"))
    failed = tuple(line for case in cases if (line := reason(case)))
    skipped = sum(case.find("skipped") is not None for case in cases)
    return len(cases) - len(failed) - skipped, failed, skipped


def reason(case: ElementTree.Element) -> str:
    """Name of a failed test and the first line of what it said; empty for any other."""
    for end in case:
        if end.tag in ("failure", "error"):
            said = end.get("message", "").partition("\n")[0]
            return f"{case.get('classname')}::{case.get('name')}: {said}"
    return ""


def told(outcomes: list[Outcome]) -> int:
    """Print what each part took, what failed and, on the last line, the sum; the exit code."""
    for outcome in outcomes:
        say(f"{outcome.seconds:6.1f} s  {outcome.name}: {outcome}")
    for outcome in outcomes:
        for line in outcome.why:
            show(f"failed: {line}")
    passed, failed, skipped = (sum(counts) for counts in list(zip(*outcomes, strict=True))[1:4])
    show(f"{passed} passed, {failed} failed, {skipped} skipped")
    return int(failed > 0)

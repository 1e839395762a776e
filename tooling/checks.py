"""What `dev.py test` and `dev.py lint` run, and what each part of it took.

Each linter and each group of tests is a process of its own. What needs one core runs side by side;
a group that shares pictures between two processes, with a core for each, runs alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
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

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


LINTERS = (
    Part("ruff check", ("ruff", "check", ".")),
    Part("ruff format", ("ruff", "format", "--check", ".")),
    Part("mypy", ("mypy", "--config-file", "pyproject.toml")),
)
UNIT = Part("unit", ("tests/unit", "tests/web"))
GPU = Part("gpu", ("tests/gpu",))
TWO_CORES = (
    Part("comfy", ("tests/comfy",)),
    Part("diffusers", ("tests/diffusers_bridge",)),
    Part("server", ("tests/e2e",)),
    Part("pages", ("tests/pages",)),
)


def lint(env: dict[str, str]) -> int:
    """Every linter; the exit code."""
    return told(side_by_side(LINTERS, env))


def quick(env: dict[str, str]) -> int:
    """The linters, and the tests that need neither ComfyUI nor a second process's share."""
    return told(side_by_side((UNIT, *LINTERS), env))


def everything(env: dict[str, str]) -> int:
    outcomes = side_by_side((UNIT, GPU, *LINTERS), env)
    return told(outcomes + [done(part, env) for part in TWO_CORES])


def chosen(arguments: Sequence[str], env: dict[str, str]) -> int:
    """One pytest with these arguments; its exit code."""
    command = [str(PYTHON), "-m", *PYTEST, *arguments]
    return subprocess.run(command, cwd=ROOT, env=env).returncode


def side_by_side(parts: Iterable[Part], env: dict[str, str]) -> list[Outcome]:
    """As many at a time as there are cores; each one's output is shown when it is done."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda part: done(part, env, shown=False), parts))


def done(part: Part, env: dict[str, str], shown: bool = True) -> Outcome:
    """Run it; shown: its output as it comes, otherwise in one piece at the end."""
    report = DEV / "reports" / f"{part.name}.xml"
    report.parent.mkdir(exist_ok=True)
    report.unlink(missing_ok=True)
    linter = part in LINTERS
    words = part.words if linter else (*PYTEST, f"--junitxml={report}", *part.words)
    if shown:
        say(part.name)
    start = time.monotonic()
    process = subprocess.run(
        [str(PYTHON), "-m", *words], cwd=ROOT, env=env,
        stdout=None if shown else subprocess.PIPE, stderr=None if shown else subprocess.STDOUT,
    )  # fmt: skip
    seconds = time.monotonic() - start
    if not shown:
        say(part.name)
        sys.stdout.buffer.write(process.stdout)
        sys.stdout.flush()
    failed = process.returncode not in ((0,) if linter else (0, NO_TESTS_FOUND))
    counts = (int(not failed), 0, 0) if linter else counted(report)
    if failed and not counts[1]:  # a linter, or a pytest that did not come to its end
        counts = (counts[0], 1, counts[2])
    return Outcome(part.name, *counts, seconds)


def counted(report: Path) -> tuple[int, int, int]:
    """Tests that passed, failed and were skipped, by a report of pytest's."""
    if not report.is_file():
        return 0, 0, 0
    ends = [{child.tag for child in case} for case in ElementTree.parse(report).iter("testcase")]
    failed = sum(bool(end & {"failure", "error"}) for end in ends)
    skipped = sum("skipped" in end for end in ends)
    return len(ends) - failed - skipped, failed, skipped


def told(outcomes: list[Outcome]) -> int:
    """Print what each part took and, on the last line, the sum; the exit code."""
    for outcome in outcomes:
        say(f"{outcome.seconds:6.1f} s  {outcome.name}: {outcome}")
    passed, failed, skipped = (sum(counts) for counts in list(zip(*outcomes, strict=True))[1:4])
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)  # noqa: T201
    return int(failed > 0)

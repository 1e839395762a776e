"""The pages' pure modules, by Node's own test runner; Node comes with Playwright."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import playwright

HERE = Path(__file__).resolve().parent
NODE = Path(playwright.__path__[0]) / "driver" / ("node.exe" if os.name == "nt" else "node")


def test_pure_javascript():
    files = sorted(HERE.glob("*.test.mjs"))
    assert files, f"no *.test.mjs in {HERE}"
    command = [str(NODE), "--test", "--test-reporter=tap", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=300)
    report = done.stdout + done.stderr
    assert done.returncode == 0, report[-6000:]
    passed = re.search(r"^# pass (\d+)$", report, re.MULTILINE)
    assert passed and int(passed[1]) >= len(files), report[-2000:]

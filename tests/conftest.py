"""For every group of tests: tests/ on the path, for helpers that several groups use."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
for folder in (str(HERE.parent), str(HERE)):
    if folder not in sys.path:
        sys.path.append(folder)


@pytest.fixture(scope="module")
def first_core():
    """A module's tests run on core 0 alone: the worker gets the next one."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {0})
    yield
    os.sched_setaffinity(0, before)

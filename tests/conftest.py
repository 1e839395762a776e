"""For the groups of tests that share a picture between two processes."""

from __future__ import annotations

import os

import pytest


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

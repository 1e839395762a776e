"""diffusers in the test's own process, on one core; the worker gets the other one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

import torch  # noqa: E402

torch.set_num_threads(1)

from hybrid_core.config import processor_cores  # noqa: E402
from hybrid_core.diffusers_bridge.attach import pool_on  # noqa: E402
from hybrid_core.stages import plan  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def on_the_first_core(first_core):
    """The worker is on the second one."""


@pytest.fixture(autouse=True)
def cut_by_size(monkeypatch):
    """The cut does not follow the clock in these tests, whatever else the machine does."""
    monkeypatch.setattr(plan, "rebalanced", lambda cuts, planned, *_: planned)


@pytest.fixture(scope="session")
def pool():
    """The worker that tests share; a test that harms it makes one of its own."""
    made = pool_on(processor_cores("cpu:1"))
    yield made
    made.stop()


@pytest.fixture
def own_pool():
    made = pool_on(processor_cores("cpu:1"))
    yield made
    made.stop()

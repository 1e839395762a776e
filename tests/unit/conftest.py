"""Tests without ComfyUI."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from hybrid_core.workers.holdings import Holdings
from hybrid_core.workers.inline import InlineWorker

sys.path.append(str(Path(__file__).parent))

from toy_framework import Network, ToyModels  # noqa: E402


@pytest.fixture
def inferring():
    with torch.inference_mode():
        yield


@pytest.fixture
def network():
    return Network()


@pytest.fixture
def worker():
    """In this process."""
    return InlineWorker(ToyModels)


@pytest.fixture
def holdings(worker):
    return Holdings(worker)

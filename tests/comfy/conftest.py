"""A real ComfyUI in the test's own process, on one core; the worker gets the other one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

COMFYUI = os.environ.get("COMFYUI_DIR")

if COMFYUI is None:
    pytest.skip("COMFYUI_DIR is not set; run python dev.py test", allow_module_level=True)

os.environ["HYBRID_KSAMPLER_DEVICE"] = "cpu:1"
sys.path.insert(0, COMFYUI)

import torch  # noqa: E402
import utils  # noqa: E402, F401  ComfyUI's; 0.18: nodes hides it behind comfy/utils.py

torch.set_num_threads(1)

from comfy.cli_args import args  # noqa: E402

args.cpu = True

from hybrid_core.comfy_bridge import demo_models  # noqa: E402
from hybrid_core.comfy_bridge.session import SESSION  # noqa: E402
from hybrid_core.config import Settings  # noqa: E402

sys.path.append(str(Path(__file__).parent))
pytest.register_assert_rewrite("harm", "helpers")

from harm import model, partitioned, reference  # noqa: E402, F401  fixtures
from helpers import EvenSession, started_quickly, unmeasured  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def on_the_first_core(first_core):
    """The worker is on the second one."""


@pytest.fixture(scope="session")
def demo():
    """The demo models by kind, loaded once: changed clones are the tests' own."""
    return {kind: demo_models.load_model(kind) for kind in demo_models.KINDS}


@pytest.fixture(scope="session")
def session():
    """The worker that tests share. One may have harmed it: bring_up starts it again."""
    for holdings in unmeasured(SESSION.every()):
        started_quickly(holdings.worker)
    yield SESSION
    SESSION.stop()


@pytest.fixture
def own_session():
    """Makes sessions with a worker of their own, where settings or a fresh state are the point."""
    made = []

    def make(**settings) -> EvenSession:
        made.append(EvenSession(Settings(**settings)))
        return made[-1]

    yield make
    for one in made:
        one.stop()
        assert one.holdings().worker.pid is None

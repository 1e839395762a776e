"""A real ComfyUI in the test's own process, and a real Ray cluster of two computers' parts."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

COMFYUI = os.environ.get("COMFYUI_DIR")

if COMFYUI is None:
    pytest.skip("COMFYUI_DIR is not set; run python dev.py test", allow_module_level=True)
if not sys.platform.startswith("linux"):
    reason = "two nodes of one machine need two addresses of the loopback, which Linux has"
    pytest.skip(reason, allow_module_level=True)
if importlib.util.find_spec("ray") is None:
    pytest.skip("Ray is not installed: there is no wheel for this system", allow_module_level=True)

os.environ["HYBRID_KSAMPLER_DEVICE"] = "none"
sys.path.insert(0, COMFYUI)

import torch  # noqa: E402

torch.set_num_threads(1)

from comfy.cli_args import args  # noqa: E402

args.cpu = True

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE), str(HERE.parent / "comfy")]
pytest.register_assert_rewrite("helpers")

from harm import KIND  # noqa: E402
from helpers import EvenSession, bring_up  # noqa: E402

from hybrid_core.comfy_bridge import demo_models, elsewhere  # noqa: E402
from hybrid_core.config import Settings  # noqa: E402
from tooling.cluster import Cluster  # noqa: E402


@pytest.fixture(scope="session")
def cluster():
    """Two nodes on the loopback; nothing of them is left afterwards."""
    made = Cluster(COMFYUI)
    try:
        made.start()
        yield made
    finally:
        left = made.stop()
    assert left == [], "processes of the cluster that outlived it"


@pytest.fixture(scope="session")
def model():
    return demo_models.load_model(KIND)


@pytest.fixture
def session(cluster, shared_session, model):
    """With a worker on the other node that is up and has the model."""
    bring_up(shared_session, model)
    return shared_session


@pytest.fixture(scope="session")
def shared_session(cluster):
    made = EvenSession(Settings())
    made.look_elsewhere(elsewhere.chosen(cluster.address))
    yield made
    made.stop()

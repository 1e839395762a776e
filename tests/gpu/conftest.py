"""A real ComfyUI on the GPU in the test's own process; with one GPU the worker shares it.

Without a GPU everything is imported, on the CPU, and every test is skipped.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

COMFYUI = os.environ.get("COMFYUI_DIR")

if COMFYUI is None:
    pytest.skip("COMFYUI_DIR is not set; run python dev.py gpu", allow_module_level=True)

os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")  # fp32 is fp32, in the worker too
TAKEN = "comfy.cli_args" in sys.modules  # by tests/comfy, which sets it up for the CPU
HERE = Path(__file__).resolve().parent
COMFY_TESTS = HERE.parent / "comfy"
for folder in (COMFYUI, str(HERE), str(COMFY_TESTS)):
    if folder not in sys.path:
        sys.path.insert(0, folder) if folder == COMFYUI else sys.path.append(folder)

import torch  # noqa: E402

COUNT = torch.cuda.device_count()
WHY_NOT = None if COUNT else "no GPU"
if COUNT and TAKEN:
    WHY_NOT = "ComfyUI is on the CPU in this process; run python dev.py gpu"

from comfy.cli_args import args  # noqa: E402

if not TAKEN:
    args.cpu = WHY_NOT is not None
    args.fp32_unet = True

from hybrid_core.comfy_bridge import demo_models  # noqa: E402
from hybrid_core.comfy_bridge.session import Session  # noqa: E402
from hybrid_core.config import DEVICE_VARIABLE, Settings  # noqa: E402
from hybrid_core.machine.devices import own_gpu  # noqa: E402

PLANES = ("cuda_ipc", "host_pinned")
if COUNT == 1 and WHY_NOT is None:
    os.environ.setdefault(DEVICE_VARIABLE, own_gpu(torch.device("cuda", 0)).uuid)

pytest.register_assert_rewrite("harm", "helpers")

from harm import model, partitioned, reference  # noqa: E402, F401  fixtures
from helpers import loading_in  # noqa: E402
from reused import REUSED, SLOW  # noqa: E402


class ReusedTests(pytest.File):
    """The tests that reused.py names, with the fixtures of this folder."""

    def collect(self):
        for name in REUSED:
            path, nodeid = COMFY_TESTS / f"{name}.py", f"{self.nodeid}::{name}"
            module = ReusedModule.from_parent(self, path=path, nodeid=nodeid)
            if name in SLOW:
                module.add_marker(pytest.mark.slow)
            yield module


class ReusedModule(pytest.Module):
    def collect(self):
        wanted = REUSED[self.path.stem]
        found = [item for item in super().collect() if item.originalname in wanted]
        gone = set(wanted) - {item.originalname for item in found}
        assert not gone, f"reused.py names tests that {self.path.name} has not: {sorted(gone)}"
        return found


def pytest_collect_file(file_path, parent):
    if file_path == HERE / "reused.py":
        return ReusedTests.from_parent(parent, path=file_path)
    return None


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: starts many workers; run with one allocator only")
    config.addinivalue_line("markers", "alone: measures the whole GPU's memory")


def pytest_collection_modifyitems(items):
    for item in items:
        if WHY_NOT and (HERE in item.path.parents or item.getparent(ReusedTests)):
            item.add_marker(pytest.mark.skip(reason=WHY_NOT))


@pytest.fixture(scope="session")
def demo():
    """The demo models in fp32, by kind."""
    with loading_in("fp32"):
        return {kind: demo_models.load_model(kind) for kind in demo_models.KINDS}


@pytest.fixture(scope="session", params=PLANES)
def plane(request):
    return request.param


@pytest.fixture(scope="session")
def session(plane):
    """The worker that the tests of one data plane share."""
    made = Session(Settings(data_plane=plane))
    with loading_in("fp32"):
        made.holdings()
    yield made
    made.stop()


@pytest.fixture
def own_session(plane):
    """Makes sessions with a worker of their own on this data plane, and ends them."""
    made = []

    def make(kind=Session, **settings):
        made.append(kind(Settings(**{"data_plane": plane, **settings})))
        return made[-1]

    yield make
    for one in made:
        one.stop()
        assert one.holdings().worker.pid is None

"""A parent with dynamic VRAM on a GPU beside a worker with the plain patcher."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_runs_are_shared_with_a_parent_that_has_dynamic_vram():
    if importlib.util.find_spec("comfy_aimdo") is None:
        pytest.skip("this ComfyUI has no dynamic VRAM")
    script = Path(__file__).parent / "dynamic_parent.py"
    done = subprocess.run(
        [sys.executable, str(script)], env=dict(os.environ), capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    if "skip" in told:
        pytest.skip(told["skip"])
    assert told["dynamic"], "the GPU's models have ComfyUI's dynamic patcher"
    for run in told["runs"]:
        assert run["local"] == 0, run
        if run["mode"] == "exact":
            # small weights with a LoRA are rounded to the file's fp16 by the dynamic patcher only
            assert run["relative"] < (5e-3 if run["of"] == "lora" else 1e-3), run

"""A parent with ComfyUI's dynamic VRAM, started as main.py starts it. Prints a JSON object.

Run by test_dynamic_vram.py in a process of its own: dynamic VRAM is on or off for a whole process.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, os.environ["COMFYUI_DIR"])
sys.path += [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "comfy")]

import comfy_aimdo.control  # noqa: E402

comfy_aimdo.control.init()  # before ComfyUI's own modules, as in main.py

import comfy.memory_management  # noqa: E402
import comfy.model_management  # noqa: E402
import comfy.model_patcher  # noqa: E402
import torch  # noqa: E402
from comfy.cli_args import args  # noqa: E402

KIND, STEPS = "unet", 6


def main() -> None:
    args.fp32_unet = True
    device = comfy.model_management.get_torch_device()
    try:
        ready = comfy_aimdo.control.init_devices([(device.index, 0)])
    except TypeError:
        ready = comfy_aimdo.control.init_devices([device.index])
    if not ready:
        print(json.dumps({"skip": "comfy_aimdo does not work on this machine"}))
        return
    comfy.model_patcher.CoreModelPatcher = comfy.model_patcher.ModelPatcherDynamic
    comfy.memory_management.aimdo_enabled = True
    told = {"runs": []}
    from helpers import Watched, bring_up, relative, sample
    from loras import with_lora

    from hybrid_core.comfy_bridge import demo_models
    from hybrid_core.comfy_bridge.session import SESSION

    try:
        base = demo_models.load_model(KIND)
        told["dynamic"] = base.is_dynamic()
        for name, model in (("plain", base), ("lora", with_lora(base)), ("plain again", base)):
            for mode in ("exact", "adaptive"):
                bring_up(SESSION, model)
                watched = Watched(model, SESSION, mode)
                expected = sample(model, KIND, steps=STEPS)
                seen = sample(watched.model, KIND, steps=STEPS)
                (report,) = watched.reports
                run = {"of": name, "mode": mode, "local": report.local, "said": watched.announced}
                told["runs"].append({**run, "relative": relative(seen, expected)})
    finally:
        SESSION.stop()
    told["memory"] = torch.cuda.memory_allocated()
    print(json.dumps(told))


if __name__ == "__main__":
    main()

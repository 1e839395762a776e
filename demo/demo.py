"""The main job: the demo workflow on two devices, beside KSampler: `python dev.py demo`."""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import re
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from demo.server import ROOT, Server, seconds_taken, serving
from demo.workflow import api_prompt

WORKFLOW = ROOT / "example_workflows" / "hybrid_demo.json"
FOLDER = ROOT / ".dev" / "demo"
SAMPLER, SAVE = "Hybrid_KSampler", "SaveImage"


def main() -> None:
    parser = argparse.ArgumentParser(prog="dev.py demo", description=__doc__)
    parser.add_argument("--pairs", type=int, default=3, help="timed runs of each sampler")
    parser.add_argument("--film", action="store_true", help="make the README's pictures instead")
    arguments = parser.parse_args()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    if arguments.film:
        from demo.film import film  # needs a browser

        film(FOLDER, os.environ["HYBRID_BROWSER"])
        return
    say("starting ComfyUI on the CPU: one core is the first device, another one the second")
    with serving(FOLDER) as server:
        prompt = api_prompt(json.loads(WORKFLOW.read_text()), server.get("/object_info"))
        say("first run: the second process starts and loads meanwhile")
        warm_up(server, prompt)
        report = compare(server, prompt, arguments.pairs)
    (FOLDER / "report.json").write_text(json.dumps(report, indent=1))
    pictures = sorted((FOLDER / "output").glob("*.png"))
    say(f"pictures: {len(pictures)} in {FOLDER / 'output'}, for example {pictures[-1].name}")
    say(f"report:   {FOLDER / 'report.json'}")
    say(
        f"Hybrid KSampler against KSampler: {report['ratio']:.2f}x as fast "
        f"(median of {arguments.pairs}), latents differ by {report['latent_error']:.1e} relative, "
        f"PSNR {report['psnr_db']:.1f} dB"
    )


def warm_up(server: Server, prompt: dict[str, Any], seconds: float = 120) -> None:
    """Run until a whole run was shared with the second process, and the plain sampler once."""
    deadline, seed = time.monotonic() + seconds, 1000
    server.run(with_sampler(prompt, "KSampler", seed))
    while not shared(server.log):
        seed += 1
        server.run(with_sampler(prompt, SAMPLER, seed))
        if time.monotonic() > deadline:
            raise TimeoutError(f"the second process took no part:\n{server.log[-3000:]}")


def shared(log: str) -> bool:
    """Whether the last run in the server's log shared all its steps."""
    counts = re.findall(r"(\d+) of (\d+) steps shared", log)
    return bool(counts) and counts[-1][0] == counts[-1][1] != "0"


def compare(server: Server, prompt: dict[str, Any], pairs: int) -> dict[str, Any]:
    """Both samplers in turn with equal seeds: times, and how far apart the latents are."""
    times: dict[str, list[float]] = {"KSampler": [], SAMPLER: []}
    latents: dict[str, torch.Tensor] = {}
    for seed in range(1, pairs + 1):
        for sampler, taken in times.items():
            entry = server.run(with_sampler(prompt, sampler, seed))
            taken.append(seconds_taken(entry))
            latents[sampler] = saved_latent(entry)
            say(f"seed {seed}: {sampler} {taken[-1]:.2f} s")
    reference, seen = latents["KSampler"], latents[SAMPLER]
    ratios = [a / b for a, b in zip(times["KSampler"], times[SAMPLER], strict=True)]
    return {
        "ratio": statistics.median(times["KSampler"]) / statistics.median(times[SAMPLER]),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "seconds": times,
        "latent_error": float((seen - reference).norm() / reference.norm()),
        "psnr_db": psnr(seen, reference),
    }


def psnr(seen: torch.Tensor, reference: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pixels in -1..1 (the demo latents are pixels)."""
    error = float((seen.clamp(-1, 1) - reference.clamp(-1, 1)).square().mean()) / 4
    return math.inf if error == 0 else -10 * math.log10(error)


def with_sampler(prompt: dict[str, Any], sampler: str, seed: int) -> dict[str, Any]:
    """The prompt with another sampler and seed, saving the latents too."""
    changed = copy.deepcopy(prompt)
    ((number, node),) = [(k, n) for k, n in changed.items() if n["class_type"] == SAMPLER]
    node["class_type"] = sampler
    node["inputs"]["seed"] = seed
    if sampler != SAMPLER:
        for name in ("mode", "tolerance"):
            node["inputs"].pop(name)
    changed["latents"] = {
        "class_type": "SaveLatent",
        "inputs": {"samples": [number, 0], "filename_prefix": f"latents/{sampler}"},
    }
    return changed


def saved_latent(entry: dict[str, Any]) -> torch.Tensor:
    (saved,) = entry["outputs"]["latents"]["latents"]
    path = FOLDER / "output" / saved["subfolder"] / saved["filename"]
    return load_file(Path(path))["latent_tensor"]


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  this is a command-line tool


if __name__ == "__main__":
    main()

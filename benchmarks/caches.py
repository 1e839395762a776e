"""ComfyUI's own step caches on one device, as arms of the frontier."""

from __future__ import annotations

from typing import Any

import comfy.utils
import torch
from comfy_extras.nodes_easycache import EasyCacheNode, LazyCacheNode

from benchmarks.together import SCHEDULER, Setting
from hybrid_core.comfy_bridge import demo_models
from hybrid_core.stages.units import layout
from nodes import common_ksampler

NODES = {"easycache": EasyCacheNode, "lazycache": LazyCacheNode}
THRESHOLDS = (0.02, 0.05, 0.1, 0.2, 0.4)
DEFAULTS = {"start_percent": 0.15, "end_percent": 0.95, "verbose": False}  # the nodes' own


def cached(
    setting: Setting, seed: int, words: tuple[str, str], node: str, threshold: float
) -> tuple[torch.Tensor, float]:
    """Final latent, and how many times as fast as without: by what the first block evaluates."""
    network, rows = setting.network, []
    (model,) = NODES[node].execute(network.patcher, threshold, **DEFAULTS).result

    def count(_: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        rows.append(len(inputs[0]))

    first = layout(model.model.diffusion_model).units[0].module
    hook = first.register_forward_pre_hook(count)
    comfy.utils.PROGRESS_BAR_ENABLED = False
    latent: dict[str, Any] = {"samples": torch.zeros(1, 4, 8, 8), "downscale_ratio_spacial": 8}
    prompts = (demo_models.conditioning(network.kind, one) for one in words)
    try:
        with torch.inference_mode():
            (out,) = common_ksampler(
                model, seed, setting.steps, setting.cfg, setting.sampler, SCHEDULER, *prompts,
                latent,
            )  # fmt: skip
    finally:
        hook.remove()
    return out["samples"], 2 * setting.steps / sum(rows)

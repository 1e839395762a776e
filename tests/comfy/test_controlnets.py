"""ControlNets of SDXL's, SD3's and Flux's shapes, with random weights: shared and exact."""

from __future__ import annotations

import gc
import time

import comfy.model_management
import comfy.supported_models
import folder_paths
import pytest
import torch
from helpers import relative

from benchmarks import controlnets
from benchmarks.models import FLUX_CONFIG, SD3_CONFIG, SDXL_CONFIG, Shape, random_model, sample
from hybrid_core.comfy_bridge.attach import attach

STEPS = 3
SDXL = SDXL_CONFIG | {"model_channels": 32, "context_dim": 64, "num_head_channels": 32}
SD3 = SD3_CONFIG | {
    "depth": 2, "num_blocks": 2,
    "context_embedder_config": {
        "target": "torch.nn.Linear", "params": {"in_features": 64, "out_features": 128}
    },
}  # fmt: skip
FLUX = FLUX_CONFIG | {"context_in_dim": 64, "hidden_size": 256, "num_heads": 2, "depth": 3}
KINDS = comfy.supported_models
SHAPES = {
    "SDXL": (KINDS.SDXL, SDXL, lambda: controlnets.of_unet(SDXL), 4, 1280),
    "SD3": (KINDS.SD3, SD3, lambda: controlnets.of_mmdit(SD3, 1), 16, 2048),
    "Flux": (KINDS.Flux, FLUX, lambda: controlnets.of_flux(FLUX), 16, 768),
}


@pytest.fixture
def folder(tmp_path):
    """Without models in ComfyUI's list that other tests hold and whose patchers are gone: ComfyUI
    loads all of its list again after a VAE has made a hint, and fails at those.
    """
    gc.collect()
    loaded = comfy.model_management.current_loaded_models
    loaded[:] = [entry for entry in loaded if entry.model is not None]
    before = list(folder_paths.folder_names_and_paths["controlnet"][0])
    yield tmp_path
    folder_paths.folder_names_and_paths["controlnet"][0][:] = before


@pytest.mark.parametrize("name", SHAPES)
def test_a_controlnet_is_shared(session, folder, name):
    kind, config, state, channels, pooled = SHAPES[name]
    model = random_model(kind, config)
    shape = Shape(lambda: model, (1, channels, 16, 16), (4, 64), pooled, STEPS)
    control, graph = controlnets.loaded(state(), folder, (128, 128))
    reports = []
    attached = attach(model, "exact", len, session, reports.append, graph=graph)

    def decided():
        """The first run of which more is known than that the worker is not ready yet."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            seen = sample(attached, shape, STEPS, control=control)
            if reports[-1].partitioned == STEPS or reports[-1].reasons:
                return seen
            time.sleep(0.3)
        raise AssertionError("the worker is not ready")

    seen = decided()
    assert (reports[-1].partitioned, reports[-1].reasons) == (STEPS, [])
    expected = sample(model, shape, STEPS, control=control)
    assert relative(seen, expected) < 1e-4
    assert relative(sample(model, shape, STEPS), expected) > 1e-3
    with torch.inference_mode():
        for weight in control.control_model.parameters():  # as another node might
            weight.data.mul_(1.3)
    seen = decided()
    assert relative(seen, sample(model, shape, STEPS, control=control)) < 1e-4
    assert reports[-1].partitioned == 0
    assert "with these weights and settings" in reports[-1].reasons[0]

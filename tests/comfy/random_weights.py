"""Random weights in the shapes of SD3 and SD1.5, and runs of such models."""

from __future__ import annotations

import comfy.supported_models
import torch
from comfy.samplers import CFGGuider, sampler_object

SIGMAS = torch.tensor([0.9, 0.6, 0.3, 0.0])
# channels, conditioning (tokens, width), pooled width
SD3_SHAPE = (16, (77, 4096), 2048)
SD15_SHAPE = (4, (77, 768), 768)


def fill(model):
    """Random numbers, a million of them over and over: drawing each anew takes half a minute."""
    numbers = torch.randn(999_983, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for values, scale in ((model.parameters(), 0.02), (model.buffers(), 1.0)):
            for value in values:
                for part in value.view(-1).split(len(numbers)):
                    part.copy_(numbers[: len(part)] * scale)


def sd3_weights():
    """SD3's shape with two blocks: ComfyUI finds depth 2 by itself."""
    config = comfy.supported_models.SD3(
        {
            "in_channels": 16, "patch_size": 2, "depth": 2, "num_blocks": 2, "input_size": None,
            "adm_in_channels": 2048, "pos_embed_max_size": 32, "pos_embed_scaling_factor": None,
            "context_embedder_config": {
                "target": "torch.nn.Linear",
                "params": {"in_features": 4096, "out_features": 128},
            },
        }
    )  # fmt: skip
    model = config.get_model({}, "").diffusion_model
    fill(model)
    return model.state_dict()


def sd15_weights():
    """SD1.5 at full width: its loader knows no other."""
    sd15 = {
        "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320,
        "channel_mult": [1, 2, 4, 4], "num_res_blocks": [2, 2, 2, 2],
        "use_spatial_transformer": True, "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_middle": 1,
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        "context_dim": 768, "use_linear_in_transformer": False, "adm_in_channels": None,
        "legacy": False, "use_temporal_attention": False, "use_temporal_resblock": False,
    }  # fmt: skip
    config = comfy.supported_models.SD15(sd15)
    config.set_inference_dtype(torch.float16, None)
    model = config.get_model({}, "").diffusion_model
    fill(model)
    return model.state_dict()


def sampled(model, channels, context, pooled, sigmas=SIGMAS):
    def conditioning(seed):
        generator = torch.Generator().manual_seed(seed)
        vectors = torch.randn(1, *context, generator=generator)
        return [[vectors, {"pooled_output": torch.randn(1, pooled, generator=generator)}]]

    guider = CFGGuider(model)
    guider.set_conds(conditioning(1), conditioning(2))
    guider.set_cfg(4.0)
    noise = torch.randn(1, channels, 8, 8, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        return guider.sample(
            noise, torch.zeros_like(noise), sampler_object("euler"), sigmas, disable_pbar=True
        )

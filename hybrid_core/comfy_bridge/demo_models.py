"""The demo models in ComfyUI: two small networks trained on emoji, and their VAE.

The files hold diffusers' own keys (demo/networks.py); ComfyUI's converters turn them. The VAE is an
exact rearrangement: 64x64x3 pixels are 16x16x48 latents and back. What a network sees are those
turned and scaled (demo_latents.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import comfy.latent_formats
import comfy.model_detection
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import comfy.utils
import torch

from hybrid_core.comfy_bridge import demo_words
from hybrid_core.comfy_bridge.demo_latents import CHANNELS, PATCH, Latents
from hybrid_core.errors import ConfigError

WEIGHTS = Path(__file__).resolve().parents[2] / "demo" / "weights"
KINDS = ("mmdit", "unet")
MODEL_PREFIX, VOCABULARY = "model.", "vocabulary.weight"


class DemoLatents(comfy.latent_formats.LatentFormat):
    """Rearranged pixels in -1..1, turned and scaled for the network."""

    latent_channels = CHANNELS
    spacial_downscale_ratio = PATCH  # ComfyUI's spelling

    def __init__(self, scales: torch.Tensor) -> None:
        """scales: of the channels, (48,)."""
        self._latents = Latents(scales)
        self.latent_rgb_factors = self._latents.mean_colours().tolist()

    def process_in(self, latent: torch.Tensor) -> torch.Tensor:
        return self._latents.into(latent)

    def process_out(self, latent: torch.Tensor) -> torch.Tensor:
        return self._latents.out_of(latent)


class DemoMMDiT(comfy.supported_models.SD3):
    """SD3's architecture with the demo latents."""

    unet_config = {"in_channels": CHANNELS, "pos_embed_scaling_factor": None}


class DemoUNet(comfy.supported_models.SD15):
    """SD1's architecture with the demo latents."""

    unet_config = {"in_channels": CHANNELS}
    unet_extra_config = {"num_heads": 4, "num_head_channels": -1}

    def inpaint_model(self) -> bool:
        return False  # SD1 tells an inpainting model by its number of channels


UNET_CONFIG = {
    "image_size": 32,
    "in_channels": CHANNELS,
    "out_channels": CHANNELS,
    "model_channels": 128,
    "channel_mult": [1, 1],
    "num_res_blocks": [1, 1],
    "transformer_depth": [0, 1],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [0, 0, 1, 1],
    "use_spatial_transformer": True,
    "use_linear_in_transformer": False,
    "context_dim": 64,
    "adm_in_channels": None,
    "legacy": False,
    "use_temporal_attention": False,
    "use_temporal_resblock": False,
}


def weights_path(kind: str) -> Path:
    """File of a demo model. Raises ConfigError for an unknown kind, FileNotFoundError."""
    if kind not in KINDS:
        raise ConfigError(f"the demo model is '{kind}', expected one of {', '.join(KINDS)}")
    path = WEIGHTS / f"{kind}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing; install the pack again, or train it: demo/training/README.md"
        )
    return path


def load_model(kind: str, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """ComfyUI MODEL of a demo network. Also the factory that the worker calls."""
    state, about = comfy.utils.load_torch_file(
        str(weights_path(kind)), safe_load=True, return_metadata=True
    )
    diffusers = {
        key.removeprefix(MODEL_PREFIX): value
        for key, value in state.items()
        if key.startswith(MODEL_PREFIX)
    }
    if kind == "mmdit":
        converted = comfy.model_detection.convert_diffusers_mmdit(diffusers, "")
        config = DemoMMDiT(comfy.model_detection.detect_unet_config(converted, ""))
    else:
        names = comfy.utils.unet_to_diffusers(UNET_CONFIG)
        converted = {names[key]: value for key, value in diffusers.items()}
        config = DemoUNet(dict(UNET_CONFIG))
    config.latent_format = DemoLatents(torch.tensor(json.loads(about["scales"])))
    device = comfy.model_management.get_torch_device()
    offload = comfy.model_management.unet_offload_device()
    dtype = comfy.model_management.unet_dtype(
        model_params=comfy.utils.calculate_parameters(converted),
        supported_dtypes=config.supported_inference_dtypes,
    )
    cast = comfy.model_management.unet_manual_cast(dtype, device, config.supported_inference_dtypes)
    config.set_inference_dtype(dtype, cast)
    model = config.get_model(converted, "")
    model.to(offload)
    model.load_model_weights(converted, "")
    wrapper = (
        comfy.model_patcher.ModelPatcher
        if disable_dynamic
        else comfy.model_patcher.CoreModelPatcher
    )
    patcher = wrapper(model, load_device=device, offload_device=offload)
    patcher.cached_patcher_init = (load_model, (kind,))
    return patcher


def load_vae() -> comfy.sd.VAE:
    """ComfyUI VAE of both demo models."""
    vae = comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)})
    vae.first_stage_model = Rearrange()
    vae.patcher = comfy.model_patcher.ModelPatcher(
        vae.first_stage_model, load_device=vae.device, offload_device=vae.patcher.offload_device
    )
    vae.latent_channels = CHANNELS
    vae.downscale_ratio = vae.upscale_ratio = PATCH
    return vae


class Rearrange(torch.nn.Module):
    """Pixels (B, 3, 4H, 4W) to latents (B, 48, H, W) and back, without loss."""

    def __init__(self) -> None:
        super().__init__()
        self.pixel_space_vae = torch.nn.Parameter(torch.tensor(1.0))  # carries device and dtype

    def encode(self, pixels: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return torch.nn.functional.pixel_unshuffle(pixels, PATCH)

    def decode(self, latents: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return torch.nn.functional.pixel_shuffle(latents, PATCH)


def kind_of(patcher: comfy.model_patcher.ModelPatcher) -> str:
    """Which demo model this is. Raises ConfigError for any other model."""
    kinds = {DemoMMDiT: "mmdit", DemoUNet: "unet"}
    kind = kinds.get(type(patcher.model.model_config))
    if kind is None:
        raise ConfigError(
            f"this model is a {type(patcher.model).__name__}, expected one of "
            f"Hybrid Demo Model's; other models take their prompts from CLIP Text Encode"
        )
    return kind


def conditioning(kind: str, prompt: str) -> list[Any]:
    """ComfyUI CONDITIONING of a demo prompt for demo model `kind`. Raises UnknownWordError."""
    tokens = torch.tensor([demo_words.encode(prompt)])
    state = comfy.utils.load_torch_file(str(weights_path(kind)), safe_load=True)
    vectors = torch.nn.functional.embedding(tokens, state[VOCABULARY].float())  # (1, 11, 64)
    return [[vectors, {"pooled_output": vectors.mean(1)}]]

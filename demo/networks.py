"""The two demo networks as diffusers builds them, and the file that holds one.

A file is a safetensors file with diffusers' own keys behind "model." and the token table as
"vocabulary.weight"; metadata "kind" is "mmdit" or "unet", "scales" those of its latents.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import SD3Transformer2DModel, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from hybrid_core.comfy_bridge.demo_latents import CHANNELS, Latents
from hybrid_core.comfy_bridge.demo_words import VOCABULARY_SIZE

WEIGHTS = Path(__file__).parent / "weights"
CONTEXT = 64


def build(kind: str) -> nn.Module:
    """A diffusers model with fresh weights: SD3's architecture or SD1's."""
    if kind == "mmdit":
        return SD3Transformer2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            num_layers=4,
            attention_head_dim=64,
            num_attention_heads=4,
            joint_attention_dim=CONTEXT,
            caption_projection_dim=256,
            pooled_projection_dim=CONTEXT,
            pos_embed_max_size=16,
        )
    if kind == "unet":
        return UNet2DConditionModel(
            sample_size=16,
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            layers_per_block=1,
            block_out_channels=(128, 128),  # noise in 48 channels has to pass: 96 at the least
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=CONTEXT,
            attention_head_dim=4,  # diffusers' name for the number of heads here
        )
    raise ValueError(f"kind is '{kind}', expected 'mmdit' or 'unet'")


class Conditional(nn.Module):
    """A network with its token table: what training sees."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind
        self.vocabulary = nn.Embedding(VOCABULARY_SIZE, CONTEXT)
        self.model = build(kind)

    def forward(self, x: torch.Tensor, t: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Prediction (velocity or epsilon), (B, 48, 16, 16), at timesteps `t` in 0..1000."""
        context = self.vocabulary(tokens)  # (B, N, CONTEXT)
        if self.kind == "mmdit":
            return self.model(
                hidden_states=x,
                encoder_hidden_states=context,
                pooled_projections=context.mean(1),
                timestep=t,
                return_dict=False,
            )[0]
        return self.model(x, t, encoder_hidden_states=context, return_dict=False)[0]


def save(network: Conditional, path: Path, **metadata: str) -> None:
    """Write `network` in half precision; metadata: more of what the file says about itself."""
    state = {key: value.half().contiguous() for key, value in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path, metadata={"kind": network.kind, **metadata})


def load(path: Path) -> Conditional:
    """Read a network, in full precision and evaluation mode."""
    with safe_open(path, "pt") as file:
        network = Conditional(file.metadata()["kind"])
        network.load_state_dict({key: file.get_tensor(key).float() for key in list(file.keys())})
    return network.eval()


def described(path: Path) -> dict[str, str]:
    """What a file says about itself: its kind, and what training added."""
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def latents(path: Path) -> Latents:
    """The latents that a file's network takes."""
    return Latents(torch.tensor(json.loads(described(path)["scales"])))

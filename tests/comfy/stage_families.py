"""Families of networks in ComfyUI, each in a small form with random weights."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import Any
from unittest import mock

import comfy.ops
import pytest
import torch
from torch import nn

from hybrid_core.stages.swap import copied

MAKING = {"dtype": torch.float32, "device": "cpu", "operations": comfy.ops.disable_weight_init}


@dataclass(frozen=True)
class Family:
    """How a family's network is built and called, and where its blocks must be found."""

    path: str  # module:class
    config: dict[str, Any]
    latent: tuple[int, ...]
    conditions: dict[str, Any]  # a tuple is the sizes of a random tensor
    blocks: tuple[str, ...]
    time: float = 0.5
    around: Callable[[Any], AbstractContextManager[Any]] = nullcontext  # of its making

    def network(self) -> nn.Module:
        """The network with random weights, the same ones each time."""
        name, _, cls = self.path.partition(":")
        try:
            module = import_module(name)
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("comfy.ldm"):
                raise
            pytest.skip(f"this ComfyUI has no {name}")
        with self.around(module):
            return filled(getattr(module, cls)(**self.config, **MAKING))

    def keywords(self) -> dict[str, Any]:
        return {
            name: noise(*value, seed=seed) if isinstance(value, tuple) else value
            for seed, (name, value) in enumerate(self.conditions.items(), 1)
        }


def noise(*sizes: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed))


def filled(network: nn.Module) -> nn.Module:
    """`network` with every parameter drawn anew: some were made without a value."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            scales = weight.ndim == 1 and not name.endswith("bias")
            weight.normal_(float(scales), 0.1, generator=generator)
    return network.eval()


def runner(
    network: nn.Module, family: Family, seed: int = 0, **more: Any
) -> Callable[[], torch.Tensor]:
    """A call of the network. Some write into what they are given, so each call has its own."""
    x, time = noise(*family.latent, seed=seed), torch.full(family.latent[:1], family.time)
    keywords = family.keywords() | more
    return lambda: network(x.clone(), time.clone(), **copied(keywords))


ROPE = [4, 6, 6]  # of a head with 16 channels
UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "context_dim": 16,
    "use_spatial_transformer": True,
    "legacy": False,
}
SDXL = UNET | {
    "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 2, 4],
    "transformer_depth": [0, 0, 1, 1, 2, 2],
    "transformer_depth_middle": 2,
    "transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2],
    "use_linear_in_transformer": True,
    "num_head_channels": 16,
    "num_classes": "sequential",
    "adm_in_channels": 8,
}
SD15 = UNET | {
    "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 2, 2],
    "transformer_depth": [1, 1, 1, 1, 0, 0],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 0, 0, 0],
    "num_heads": 4,
}


def unet(config: dict[str, Any], **conditions: Any) -> Family:
    """A U-Net. Its units are the layers of its blocks."""
    return Family(
        "comfy.ldm.modules.diffusionmodules.openaimodel:UNetModel",
        config,
        (1, 4, 8, 8),
        {"context": (1, 5, 16)} | conditions,
        ("input_blocks", "middle_block", "output_blocks"),
        time=500.0,
    )


def sd3(**config: Any) -> Family:
    return Family(
        "comfy.ldm.modules.diffusionmodules.mmdit:OpenAISignatureMMDITWrapper",
        {
            "input_size": None,
            "in_channels": 4,
            "depth": 2,
            "num_blocks": 4,
            "adm_in_channels": 8,
            "context_embedder_config": {
                "target": "torch.nn.Linear",
                "params": {"in_features": 16, "out_features": 128},
            },
        }
        | config,
        (1, 4, 8, 8),
        {"context": (1, 5, 16), "y": (1, 8)},
        ("joint_blocks",),
        time=500.0,
    )


STREAMS = {
    "in_channels": 4,
    "out_channels": 4,
    "vec_in_dim": 8,
    "context_in_dim": 16,
    "hidden_size": 32,
    "mlp_ratio": 2.0,
    "num_heads": 2,
    "depth": 2,
    "depth_single_blocks": 3,
    "axes_dim": ROPE,
    "theta": 256,
    "patch_size": 2,
    "qkv_bias": True,
    "guidance_embed": True,
    "txt_ids_dims": [],
}


def flux(conditions: dict[str, Any], **config: Any) -> Family:
    return Family(
        "comfy.ldm.flux.model:Flux",
        STREAMS | config,
        (1, 4, 8, 8),
        {"context": (1, 5, 16)} | conditions,
        ("double_blocks", "single_blocks"),
    )


def chroma() -> Family:
    config = {k: v for k, v in STREAMS.items() if k != "guidance_embed"}
    return Family(
        "comfy.ldm.chroma.model:Chroma",
        config
        | {"in_channels": 16, "out_channels": 16, "vec_in_dim": None}
        | {"in_dim": 64, "hidden_dim": 32, "out_dim": 32, "n_layers": 1},
        (1, 4, 8, 8),
        {"context": (1, 5, 16), "guidance": torch.zeros(1)},
        ("double_blocks", "single_blocks"),
    )


def hunyuan_video(
    latent: tuple[int, ...], conditions: dict[str, Any], patch: list[int], **config: Any
) -> Family:
    shared = {k: v for k, v in STREAMS.items() if k != "txt_ids_dims"}
    flags = ("byt5", "meanflow", "use_cond_type_embedding", "meanflow_sum")
    return Family(
        "comfy.ldm.hunyuan_video.model:HunyuanVideo",
        shared
        | dict.fromkeys(flags, False)
        | {"vision_in_dim": None, "patch_size": patch}
        | config,
        latent,
        {"context": (1, 5, 16)} | conditions,
        ("double_blocks", "single_blocks")
        if config.get("depth_single_blocks", 3)
        else ("double_blocks",),
    )


WAN = {
    "in_dim": 4,
    "out_dim": 4,
    "dim": 32,
    "ffn_dim": 64,
    "freq_dim": 32,
    "text_dim": 16,
    "num_heads": 2,
    "num_layers": 4,
}


def wan(cls: str, conditions: dict[str, Any], **config: Any) -> Family:
    return Family(
        f"comfy.ldm.wan.model:{cls}",
        WAN | config,
        (1, 4, 2, 8, 8),
        {"context": (1, 5, 16)} | conditions,
        ("blocks",),
        time=500.0,
    )


def lumina(**config: Any) -> Family:
    return Family(
        "comfy.ldm.lumina.model:NextDiT",
        {
            "in_channels": 4,
            "dim": 32,
            "n_layers": 3,
            "n_refiner_layers": 2,
            "n_heads": 2,
            "n_kv_heads": 1,
            "multiple_of": 16,
            "ffn_dim_multiplier": 2.0,
            "qk_norm": True,
            "cap_feat_dim": 16,
            "axes_dims": ROPE,
        }
        | config,
        (1, 4, 8, 8),
        {"context": (1, 5, 16), "num_tokens": 5},
        ("noise_refiner", "layers"),
    )


COSMOS = {
    "max_img_h": 16,
    "max_img_w": 16,
    "max_frames": 4,
    "in_channels": 4,
    "out_channels": 4,
    "patch_spatial": 2,
    "patch_temporal": 1,
    "model_channels": 32,
    "num_blocks": 4,
    "num_heads": 2,
    "crossattn_emb_channels": 16,
    "pos_emb_cls": "rope3d",
    "pos_emb_interpolation": "crop",
    "use_adaln_lora": True,
    "adaln_lora_dim": 8,
}


def cosmos(path: str, **config: Any) -> Family:
    return Family(path, COSMOS | config, (1, 4, 2, 8, 8), {"context": (1, 5, 16)}, ("blocks",))


def anima() -> Family:
    """Its text adapter has a fixed size, a hundred million weights: here it is a small one."""
    sizes = {"source_dim": 16, "target_dim": 16, "model_dim": 16, "num_layers": 1, "num_heads": 2}
    return Family(
        "comfy.ldm.anima.model:Anima",
        COSMOS,
        (1, 4, 2, 8, 8),
        {"context": (1, 5, 16), "t5xxl_ids": torch.arange(4)[None]},
        ("blocks",),
        around=lambda module: mock.patch.object(
            module, "LLMAdapter", partial(module.LLMAdapter, **sizes)
        ),
    )


FAMILIES = {
    "sd15": unet(SD15),
    "sd2": unet(
        SD15
        | {"num_heads": -1, "num_head_channels": 16, "use_linear_in_transformer": True}
        | {"attn_precision": torch.float32}
    ),
    "sdxl": unet(SDXL, y=(1, 8)),
    "koala": replace(
        unet(
            SDXL
            | {"num_res_blocks": [1, 1, 1], "transformer_depth": [0, 1, 2]}
            | {"transformer_depth_middle": -2, "transformer_depth_output": [0, 0, 1, 1, 2, 2]},
            y=(1, 8),
        ),
        blocks=("input_blocks", "output_blocks"),
    ),
    "sd3": sd3(),
    "sd35_medium": sd3(qk_norm="rms", x_block_self_attn_layers=[0, 1]),
    "flux": flux({"y": (1, 8), "guidance": (1,)}),
    "flux2": flux(
        {"guidance": (1,)},
        vec_in_dim=None,
        axes_dim=[4, 4, 4, 4],
        patch_size=1,
        qkv_bias=False,
        ops_bias=False,
        global_modulation=True,
        mlp_silu_act=True,
        default_ref_method="index",
        txt_ids_dims=[3],
    ),
    "chroma": chroma(),
    "wan": wan("WanModel", {}),
    "wan_vace": wan(
        "VaceWanModel",
        {"vace_context": (1, 1, 6, 2, 8, 8), "vace_strength": [0.7]},
        vace_layers=2,
        vace_in_dim=6,
    ),
    "qwen_image": Family(
        "comfy.ldm.qwen_image.model:QwenImageTransformer2DModel",
        {
            "in_channels": 16,
            "out_channels": 4,
            "num_layers": 4,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 16,
            "axes_dims_rope": ROPE,
        },
        (1, 4, 1, 8, 8),
        {"context": (1, 5, 16)},
        ("transformer_blocks",),
    ),
    "hunyuan_video": hunyuan_video((1, 4, 2, 8, 8), {"y": (1, 8), "guidance": (1,)}, [1, 2, 2]),
    "hunyuan_video_15": hunyuan_video(
        (1, 4, 2, 4, 4),
        {"clip_fea": (1, 3, 16)},
        [1, 1, 1],
        depth=4,
        depth_single_blocks=0,
        vec_in_dim=None,
        guidance_embed=False,
        use_cond_type_embedding=True,
        vision_in_dim=16,
        meanflow_sum=True,
    ),
    "hunyuan_image_21": hunyuan_video(
        (1, 4, 4, 4), {"guidance": (1,)}, [1, 1], axes_dim=[8, 8], vec_in_dim=None
    ),
    "lumina2": lumina(),
    "z_image": lumina(
        dim=256,
        axes_dims=[32, 48, 48],
        n_kv_heads=2,
        z_image_modulation=True,
        time_scale=1000.0,
        pad_tokens_multiple=8,
    ),
    "ltxv": Family(
        "comfy.ldm.lightricks.model:LTXVModel",
        {
            "in_channels": 8,
            "cross_attention_dim": 32,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "caption_channels": 16,
            "num_layers": 4,
        },
        (1, 8, 2, 4, 4),
        {"context": (1, 5, 16), "attention_mask": None},
        ("transformer_blocks",),
    ),
    "auraflow": Family(
        "comfy.ldm.aura.mmdit:MMDiT",
        {
            "dim": 32,
            "n_layers": 5,
            "n_double_layers": 2,
            "n_heads": 2,
            "global_conddim": 32,
            "cond_seq_dim": 16,
            "max_seq": 64,
        },
        (1, 4, 8, 8),
        {"context": (1, 5, 16)},
        ("double_layers", "single_layers"),
    ),
    "pixart": Family(
        "comfy.ldm.pixart.pixartms:PixArtMS",
        {
            "hidden_size": 48,
            "depth": 4,
            "num_heads": 2,
            "caption_channels": 16,
            "model_max_length": 5,
            "pe_interpolation": 1,
        },
        (1, 4, 8, 64),  # smaller ones have no position embedding
        {"context": (1, 5, 16)},
        ("blocks",),
        time=500.0,
    ),
    "hidream": Family(
        "comfy.ldm.hidream.model:HiDreamImageTransformer2DModel",
        {
            "patch_size": 2,
            "in_channels": 4,
            "num_layers": 2,
            "num_single_layers": 3,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "caption_channels": [16, 16],
            "text_emb_dim": 8,
            "axes_dims_rope": ROPE,
            "max_resolution": [16, 16],
            "llama_layers": [0, 1, 1, 0, 1],
        },
        (1, 4, 8, 8),
        {"context": (1, 5, 16), "y": (1, 8), "encoder_hidden_states_llama3": (1, 2, 5, 16)},
        ("double_stream_blocks", "single_stream_blocks"),
        time=500.0,
    ),
    "cosmos_predict2": cosmos("comfy.ldm.cosmos.predict2:MiniTrainDIT"),
    "anima": anima(),
    "cosmos1": cosmos(
        "comfy.ldm.cosmos.model:GeneralDIT",
        block_x_format="THWBD",
        affline_emb_norm=True,
        extra_per_block_abs_pos_emb=True,
        extra_per_block_abs_pos_emb_type="learnable",
    ),
    "hunyuan_dit": Family(
        "comfy.ldm.hydit.models:HunYuanDiT",
        {
            "hidden_size": 32,
            "depth": 8,
            "num_heads": 2,
            "text_states_dim": 16,
            "text_states_dim_t5": 16,
            "text_len": 5,
            "text_len_t5": 6,
        },
        (1, 4, 8, 8),
        {
            "context": (1, 5, 16),
            "text_embedding_mask": torch.ones(1, 5),
            "encoder_hidden_states_t5": (1, 6, 16),
            "text_embedding_mask_t5": torch.ones(1, 6),
        },
        ("blocks",),
        time=500.0,
    ),
    "hunyuan_3d_21": Family(
        "comfy.ldm.hunyuan3dv2_1.hunyuandit:HunYuanDiTPlain",
        {
            "in_channels": 4,
            "hidden_size": 32,
            "context_dim": 16,
            "depth": 7,
            "num_heads": 2,
            "num_moe_layers": 2,
            "num_experts": 3,
        },
        (2, 4, 9),  # older versions take both branches or none
        {"context": (2, 5, 16)},
        ("blocks",),
    ),
    "mochi": Family(
        "comfy.ldm.genmo.joint_model.asymm_models_joint:AsymmDiTJoint",
        {
            "hidden_size_x": 48,
            "hidden_size_y": 24,
            "depth": 4,
            "num_heads": 2,
            "mlp_ratio_x": 256.0,  # every Mochi's blocks have this hidden size
            "use_t5": True,
            "t5_feat_dim": 16,
            "t5_token_length": 8,
            "learn_sigma": False,
            "qk_norm": True,
            "qkv_bias": False,
            "timestep_scale": 1000.0,
        },
        (1, 4, 2, 8, 8),
        {"context": (1, 8, 16), "attention_mask": torch.ones(1, 8), "num_tokens": 8},
        ("blocks",),
    ),
    "kandinsky5": Family(
        "comfy.ldm.kandinsky5.model:Kandinsky5",
        {
            "in_visual_dim": 4,
            "out_visual_dim": 4,
            "in_text_dim": 16,
            "in_text_dim2": 8,
            "time_dim": 16,
            "model_dim": 32,
            "ff_dim": 64,
            "visual_embed_dim": 16,
            "num_visual_blocks": 4,
            "axes_dims": ROPE,
        },
        (1, 4, 2, 8, 8),
        {"context": (1, 5, 16), "y": (1, 8)},
        ("visual_transformer_blocks",),
        time=500.0,
    ),
    "cogvideox": Family(
        "comfy.ldm.cogvideo.model:CogVideoXTransformer3DModel",
        {
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "in_channels": 4,
            "out_channels": 4,
            "time_embed_dim": 16,
            "text_embed_dim": 16,
            "num_layers": 4,
            "use_rotary_positional_embeddings": True,
        },
        (1, 4, 2, 8, 8),
        {"context": (1, 5, 16)},
        ("blocks",),
        time=500.0,
    ),
    "ernie": Family(
        "comfy.ldm.ernie.model:ErnieImageModel",
        {
            "hidden_size": 32,
            "num_attention_heads": 2,
            "num_layers": 4,
            "ffn_hidden_size": 64,
            "in_channels": 8,
            "out_channels": 8,
            "text_in_dim": 16,
            "rope_axes_dim": ROPE,
        },
        (1, 8, 4, 4),
        {"context": (1, 5, 16)},
        ("layers",),
        time=500.0,
    ),
    "krea2": Family(
        "comfy.ldm.krea2.model:SingleStreamDiT",
        {
            "features": 32,
            "tdim": 32,
            "txtdim": 16,
            "heads": 2,
            "kvheads": 1,
            "multiplier": 2,
            "layers": 4,
            "channels": 4,
            "txtlayers": 2,
            "txtheads": 2,
            "txtkvheads": 2,
        },
        (1, 4, 8, 8),
        {"context": (1, 5, 32)},
        ("blocks",),
    ),
    "omnigen2": Family(
        "comfy.ldm.omnigen.omnigen2:OmniGen2Transformer2DModel",
        {
            "in_channels": 4,
            "hidden_size": 32,
            "num_layers": 3,
            "num_attention_heads": 2,
            "num_kv_heads": 1,
            "multiple_of": 16,
            "axes_dim_rope": ROPE,
            "text_feat_dim": 16,
        },
        (1, 4, 8, 8),
        {"context": (1, 5, 16), "num_tokens": 5, "ref_latents": [noise(1, 4, 4, 4)]},
        ("noise_refiner", "layers"),
    ),
}

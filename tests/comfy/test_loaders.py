"""ComfyUI's own loaders: files with random weights in SD3's and SD1.5's shape."""

from __future__ import annotations

import comfy.conds
import comfy.model_detection
import comfy.sd
import comfy.supported_models
import folder_paths
import pytest
import torch
from comfy.samplers import CFGGuider, sampler_object
from comfy.utils import save_torch_file
from helpers import Watched, bring_up, relative

from hybrid_core.comfy_bridge import demo_models, replica
from nodes import CheckpointLoaderSimple, UNETLoader

SIGMAS = torch.tensor([0.9, 0.6, 0.3, 0.0])


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


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The folder is one of ComfyUI's model folders for as long as the tests run."""
    folder = tmp_path_factory.mktemp("models")
    sd3 = sd3_weights()
    save_torch_file(sd3, str(folder / "sd3.safetensors"))
    as_checkpoint = {f"model.diffusion_model.{key}": value for key, value in sd3.items()}
    save_torch_file(as_checkpoint, str(folder / "sd3_checkpoint.safetensors"))
    save_torch_file(
        {f"model.diffusion_model.{key}": value for key, value in sd15_weights().items()},
        str(folder / "sd15_checkpoint.safetensors"),
    )
    for kind in ("diffusion_models", "checkpoints"):
        folder_paths.add_model_folder_path(kind, str(folder))
    yield folder
    for kind in ("diffusion_models", "checkpoints"):
        folder_paths.folder_names_and_paths[kind][0].remove(str(folder))


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


def shared_equals_plain(session, model, *shape):
    bring_up(session, model)
    watched = Watched(model, session)
    seen, expected = sampled(watched.model, *shape), sampled(model, *shape)
    assert (watched.reports[0].partitioned, watched.announced) == (3, [])
    assert relative(seen, expected) < 1e-4


SD3_SHAPE = (16, (77, 4096), 2048)
SD15_SHAPE = (4, (77, 768), 768)


def test_unet_loader(files, session):
    (model,) = UNETLoader().load_unet("sd3.safetensors", "default")
    assert len(model.model.diffusion_model.joint_blocks) == 2
    assert replica.describe_base(model)["factory"] == "load_diffusion_model"
    shared_equals_plain(session, model, *SD3_SHAPE)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("sd3_checkpoint.safetensors", SD3_SHAPE), ("sd15_checkpoint.safetensors", SD15_SHAPE)],
)
def test_checkpoint_loader(files, session, name, shape):
    model, *_ = CheckpointLoaderSimple().load_checkpoint(name)
    assert replica.describe_base(model)["factory"].startswith("load_checkpoint_guess_config")
    shared_equals_plain(session, model, *shape)


def test_model_without_a_factory_is_sent_by_its_weights(files, session):
    (model,) = UNETLoader().load_unet("sd3.safetensors", "default")
    model.cached_patcher_init = None
    assert replica.describe_base(model)["config"] == "SD3"
    shared_equals_plain(session, model, *SD3_SHAPE)


def test_weights_are_sent_unpatched_while_a_lora_is_in(files, session):
    from test_compatibility import with_lora

    (model,) = UNETLoader().load_unet("sd3.safetensors", "default")
    model.cached_patcher_init = None
    patched = with_lora(model)
    sampled(patched, *SD3_SHAPE)  # the LoRA is now in the weights in place
    shared_equals_plain(session, patched, *SD3_SHAPE)
    shared_equals_plain(session, model, *SD3_SHAPE)


def test_unknown_configuration_without_a_factory_runs_locally(session):
    model = demo_models.load_model("mmdit")
    model.cached_patcher_init = None
    watched = Watched(model, session)
    sampled(watched.model, 48, (6, 64), 64)
    assert "left no factory" in watched.announced[0]
    assert "DemoMMDiT" in watched.announced[0]


def test_file_that_changed_since_the_parent_loaded_it_is_noticed(files, session):
    (model,) = UNETLoader().load_unet("sd3.safetensors", "default")
    state = sd3_weights()
    name = next(key for key in state if key.endswith("qkv.weight"))
    state[name] = state[name] + 1e-3
    save_torch_file(state, str(files / "sd3.safetensors"))
    watched = Watched(model, session)
    with torch.inference_mode():
        assert not session.bring_up(model, 60)
    seen = sampled(watched.model, *SD3_SHAPE)
    assert torch.equal(seen, sampled(model, *SD3_SHAPE))
    assert f"weight {name} differs" in watched.announced[0]

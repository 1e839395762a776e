"""ComfyUI's own loaders: files with random weights in SD3's and SD1.5's shape."""

from __future__ import annotations

import json

import folder_paths
import pytest
import torch
from comfy.utils import save_torch_file
from helpers import Watched, bring_up, relative
from loras import with_lora
from random_weights import SD3_SHAPE, SD15_SHAPE, sampled, sd3_weights, sd15_weights

from hybrid_core.comfy_bridge import demo_models, replica
from nodes import CheckpointLoaderSimple, UNETLoader


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


def shared_equals_plain(session, model, *shape):
    bring_up(session, model)
    watched = Watched(model, session)
    seen, expected = sampled(watched.model, *shape), sampled(model, *shape)
    assert (watched.reports[0].partitioned, watched.announced) == (3, [])
    assert relative(seen, expected) < 1e-4


def test_a_model_of_the_unet_loader_is_shared(files, session):
    (model,) = UNETLoader().load_unet("sd3.safetensors", "default")
    assert len(model.model.diffusion_model.joint_blocks) == 2
    assert replica.describe_base(model)["factory"] == "load_diffusion_model"
    shared_equals_plain(session, model, *SD3_SHAPE)


def quantised(state):
    """Attention's weights in eight bits with a scale, as ComfyUI's quantised files hold them."""
    made = {}
    for key, value in state.items():
        if not (value.ndim == 2 and key.endswith(".weight") and ".attn." in key):
            made[key] = value
            continue
        layer, scale = key.removesuffix("weight"), value.abs().amax().float() / 448
        told = json.dumps({"format": "float8_e4m3fn"}).encode()
        made[key] = (value.float() / scale).to(torch.float8_e4m3fn)
        made[f"{layer}weight_scale"] = scale
        made[f"{layer}comfy_quant"] = torch.tensor(list(told), dtype=torch.uint8)
    return made


@pytest.mark.parametrize("how", ["cast", "in the file"])
def test_a_model_with_eight_bit_weights_is_shared(files, session, how):
    name, dtype = "sd3.safetensors", "fp8_e4m3fn"
    if how == "in the file":
        name, dtype = "sd3_quantised.safetensors", "default"
        save_torch_file(quantised(sd3_weights()), str(files / name))
    with torch.inference_mode():  # as in ComfyUI's executor
        (model,) = UNETLoader().load_unet(name, dtype)
    weights = model.model.diffusion_model.state_dict().values()
    assert torch.float8_e4m3fn in {weight.dtype for weight in weights}
    with torch.inference_mode():
        shared_equals_plain(session, model, *SD3_SHAPE)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("sd3_checkpoint.safetensors", SD3_SHAPE), ("sd15_checkpoint.safetensors", SD15_SHAPE)],
)
def test_a_model_of_the_checkpoint_loader_is_shared(files, session, name, shape):
    model, *_ = CheckpointLoaderSimple().load_checkpoint(name)
    assert replica.describe_base(model)["factory"].startswith("load_checkpoint_guess_config")
    shared_equals_plain(session, model, *shape)


def test_model_without_a_factory_is_sent_by_its_weights(files, session):
    (model,) = UNETLoader().load_unet("sd3.safetensors", "default")
    model.cached_patcher_init = None
    assert replica.describe_base(model)["config"] == "SD3"
    shared_equals_plain(session, model, *SD3_SHAPE)


def test_weights_are_sent_unpatched_while_a_lora_is_in(files, session):
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

"""A parent with dynamic VRAM beside a worker with the plain patcher.

ComfyUI's own dynamic patcher, loader and memory mapping; stand-ins for what needs a GPU: the pinned
buffers, the dynamic patcher's way round processor cores, and patches put in at use.
"""

from __future__ import annotations

import importlib

import comfy.memory_management
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.utils
import pytest
import torch
from comfy.utils import save_torch_file
from helpers import FREE, Watched, bring_up, relative, sample
from loras import with_lora
from random_weights import SD3_SHAPE, sampled, sd3_weights

from hybrid_core.comfy_bridge import demo_models, replica
from hybrid_core.comfy_bridge.portrait import compare, portrait
from hybrid_core.comfy_bridge.weights import total_bytes, weights
from hybrid_core.errors import ReplicaMismatch

control = pytest.importorskip("comfy_aimdo.control", reason="this ComfyUI has no dynamic VRAM")
if not hasattr(comfy.model_patcher, "ModelPatcherDynamic"):
    pytest.skip("this ComfyUI has no dynamic VRAM", allow_module_level=True)

import comfy_aimdo.host_buffer  # noqa: E402
import comfy_aimdo.model_mmap  # noqa: E402

KINDS = ("mmdit", "unet")


class HostBuffer:
    """Pinned memory of which nothing is used."""

    def __init__(self, *_):
        self.size = 0

    def truncate(self, *_, **__):
        pass


class Dynamic(comfy.model_patcher.ModelPatcherDynamic):
    def __new__(cls, *_, **__):
        return object.__new__(cls)

    def partially_unload(self, *_, **__):
        for key in list(self.backup):
            comfy.utils.set_attr_param(self.model, key, self.backup.pop(key).weight)
        for key in list(self.backup_buffers):
            comfy.utils.set_attr_buffer(self.model, key, self.backup_buffers.pop(key))
        return 0

    def load(self, *args, **kwargs):
        super().load(*args, **kwargs)
        for module in self.model.modules():
            for name in ("weight", "bias"):
                patch = getattr(module, f"{name}_lowvram_function", None)
                if hasattr(module, f"{name}_function"):
                    setattr(module, f"{name}_function", [patch] if patch is not None else [])


@pytest.fixture
def dynamic_vram(monkeypatch):
    monkeypatch.setattr(control, "lib", None)
    if not control.init():
        pytest.skip("comfy_aimdo has no library for this system")
    importlib.reload(comfy_aimdo.model_mmap)  # it takes the library at import
    monkeypatch.setattr(comfy_aimdo.host_buffer, "HostBuffer", HostBuffer)
    monkeypatch.setattr(comfy.model_patcher, "CoreModelPatcher", Dynamic)
    monkeypatch.setattr(comfy.memory_management, "aimdo_enabled", True)
    yield
    comfy.model_management.unload_all_models()


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def model(dynamic_vram, kind):
    made = demo_models.load_model(kind)
    assert made.is_dynamic()
    return made


@pytest.fixture(scope="module")
def sd3():
    return sd3_weights()


def pictured(patcher):
    comfy.model_management.load_models_gpu([patcher])
    return portrait(patcher)


def held(patcher):
    """Where everything is that the patcher and its model hold."""
    state = patcher.model.diffusion_model.state_dict()
    return (
        {
            name: (weight.data_ptr(), weight.dtype, weight._version)
            for name, weight in state.items()
        },
        set(patcher.backup),
        set(patcher.backup_buffers),
        patcher.model.current_weight_patches_uuid,
    )


@pytest.mark.parametrize("patched", [False, True])
def test_portrait_leaves_a_dynamic_model_as_it_is(model, patched):
    model = with_lora(model) if patched else model
    comfy.model_management.load_models_gpu([model])
    assert model.backup or model.backup_buffers, "what is small is loaded at once"
    before = held(model)
    portrait(model)
    assert held(model) == before


def test_portrait_equals_the_plain_patchers(model, demo, kind):
    ours, theirs = pictured(model), pictured(demo[kind])
    compare(ours, theirs)
    assert ours["effects"] == {}


def test_portrait_with_a_lora_equals_the_plain_patchers(model, demo, kind):
    ours = pictured(with_lora(model))
    compare(ours, pictured(with_lora(demo[kind])))
    assert {effect["by"] for effect in ours["effects"].values()} == {"cpu, cpu, at use"}
    for other in (with_lora(demo[kind], seed=1), with_lora(demo[kind], scale=0.06)):
        with pytest.raises(ReplicaMismatch, match="patches"):
            compare(ours, pictured(other))
    with pytest.raises(ReplicaMismatch, match="patched weights"):
        compare(ours, pictured(demo[kind]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_weights_are_the_files_and_are_compared_as_the_models(sd3, dynamic_vram, tmp_path, dtype):
    path = str(tmp_path / "sd3.safetensors")
    save_torch_file({key: value.to(dtype) for key, value in sd3.items()}, path)
    options = {"dtype": torch.float16}
    ours = comfy.sd.load_diffusion_model(path, options)
    assert ours.is_dynamic()
    comfy.model_management.load_models_gpu([ours])
    assert {weight.held.dtype for weight in weights(ours) if weight.held.ndim == 2} == {dtype}
    assert {weight.plain().dtype for weight in weights(ours)} == {torch.float16}
    theirs = comfy.sd.load_diffusion_model(path, options, disable_dynamic=True)
    assert not theirs.is_dynamic()
    assert total_bytes(ours) == total_bytes(theirs)
    compare(pictured(ours), pictured(theirs))


@pytest.mark.parametrize("patched", [False, True])
def test_a_run_is_shared(model, demo, kind, session, patched):
    model, plain = (with_lora(m) if patched else m for m in (model, demo[kind]))
    bring_up(session, model)
    watched = Watched(model, session)
    seen = sample(watched.model, kind)
    assert (watched.reports[0].partitioned, watched.announced) == (4, [])
    # the dynamic patcher rounds small patched weights to the file's fp16, the plain one does not
    tolerance = 1e-3 if patched else 1e-5
    assert relative(seen, sample(model, kind)) < tolerance
    assert relative(seen, sample(plain, kind)) < tolerance


def test_a_run_is_pipelined(model, kind, session):
    bring_up(session, model)
    watched = Watched(model, session, "adaptive", **FREE)
    sample(watched.model, kind, steps=20)
    assert watched.reports[0].pipelined > 0 and watched.reports[0].local == 0


def test_a_model_without_a_factory_is_sent_by_its_weights(sd3, dynamic_vram, tmp_path, session):
    path = str(tmp_path / "sd3.safetensors")
    save_torch_file(sd3, path)
    model = comfy.sd.load_diffusion_model(path)
    model.cached_patcher_init = None
    assert replica.describe_base(model)["config"] == "SD3"
    bring_up(session, model)
    watched = Watched(model, session)
    seen = sampled(watched.model, *SD3_SHAPE)
    assert (watched.reports[0].partitioned, watched.announced) == (3, [])
    assert relative(seen, sampled(model, *SD3_SHAPE)) < 1e-4

"""What leaves a mark on a model but changes nothing does not keep a run in this process."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import comfy.model_sampling
import comfy_extras
import pytest
import torch
from comfy.patcher_extension import PatcherInjection
from helpers import Watched, bring_up, relative, sample
from stage_families import FAMILIES

from hybrid_core.comfy_bridge import conds, demo_models, sampling_objects, support
from hybrid_core.comfy_bridge.option_keys import is_nobodys
from hybrid_core.errors import NotPartitionable


@pytest.fixture
def unet():
    return demo_models.load_model("unet")


def block(model):
    return model.model.diffusion_model.middle_block[0]


# methods on instances


def test_a_bound_method_that_was_put_back_is_shared(unet, session):
    for module in unet.model.diffusion_model.modules():
        if hasattr(module, "weight"):
            module.forward = module.forward  # as LoraLoaderBypass and object patches leave it
    bring_up(session, unet)
    watched = Watched(unet, session)
    seen = sample(watched.model, "unet")
    assert watched.announced == []
    assert watched.reports[0].partitioned == 4
    assert relative(seen, sample(unet, "unet")) < 1e-4


def injected(other, forward):
    layer = block(other)

    def eject(_):
        del layer.forward

    def inject(_):
        layer.forward = forward

    other.set_injections("another pack's", [PatcherInjection(inject, eject)])


def patched(other, forward):
    other.add_object_patch("diffusion_model.middle_block.0.forward", forward)


@pytest.mark.parametrize("change", [injected, patched])
def test_what_another_clone_left_on_the_network_is_shared_without(unet, session, change):
    other, own = unet.clone(), block(unet).forward
    change(other, lambda *args, **kwargs: own(*args, **kwargs) * 1.5)
    expected = sample(unet, "unet")
    bring_up(session, unet)
    assert relative(sample(other, "unet"), expected) > 1e-2
    watched = Watched(unet, session)
    seen = sample(watched.model, "unet")
    assert (watched.announced, watched.reports[0].partitioned) == ([], 4)
    assert relative(seen, expected) < 1e-4


@pytest.mark.parametrize("name", ["forward", "_forward"])
def test_another_method_on_a_layer_is_not(unet, name):
    old = getattr(block(unet), name)
    setattr(block(unet), name, lambda *a, **k: old(*a, **k))
    with pytest.raises(NotPartitionable, match="overrides the forward pass of middle_block.0"):
        support.check_model(unet)


def test_the_bound_method_of_another_layer_is_not(unet):
    block(unet).forward = unet.model.diffusion_model.middle_block[2].forward
    with pytest.raises(NotPartitionable, match="overrides the forward pass"):
        support.check_model(unet)


@pytest.mark.parametrize("name", sorted(support.EVALUATION))
def test_another_method_on_the_model_is_not(unet, name):
    old = getattr(unet.model, name)
    setattr(unet.model, name, old)
    support.check_model(unet)
    setattr(unet.model, name, lambda *a, **k: old(*a, **k))
    with pytest.raises(NotPartitionable, match=f"replaces the model's {name}"):
        support.check_model(unet)


@pytest.mark.parametrize("name", FAMILIES)
def test_no_family_hides_a_method_of_its_own(name):
    for path, module in FAMILIES[name].network().named_modules():
        assert support.replaced_method(module, support.methods_of(type(module))) is None, path


# sampling classes of comfy_extras


@pytest.fixture
def as_a_server_loads_it(monkeypatch):
    """nodes_model_advanced under its file's path, as ComfyUI's nodes.py does it."""
    path = str(Path(comfy_extras.__path__[0]) / "nodes_model_advanced.py")
    name = path.removesuffix(".py")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", ["lcm", "x0", "eps", "v_prediction"])
def test_sampling_classes_are_known_by_their_file(unet, as_a_server_loads_it, kind):
    (patched,) = as_a_server_loads_it.ModelSamplingDiscrete().patch(unet, kind, False)
    sampling = patched.get_model_object("model_sampling")
    again = sampling_objects.rebuild(sampling_objects.describe(sampling))
    output, latent = torch.randn(2, 1, 4, 8, 8)
    sigma = sampling.sigmas[10:11]
    assert torch.equal(
        again.calculate_denoised(sigma, output, latent),
        sampling.calculate_denoised(sigma, output, latent),
    )
    assert torch.equal(again.timestep(sigma), sampling.timestep(sigma))


def test_a_class_of_the_same_name_from_another_file_is_not_known(unet):
    class LCM(comfy.model_sampling.EPS):
        pass

    class ModelSamplingAdvanced(comfy.model_sampling.ModelSamplingDiscrete, LCM):
        pass

    with pytest.raises(NotPartitionable, match="another pack's: LCM"):
        sampling_objects.describe(ModelSamplingAdvanced(unet.model.model_config))


def test_a_sampling_whose_own_method_was_put_back_is_described(unet):
    sampling = unet.get_model_object("model_sampling")
    sampling.sigma = sampling.sigma
    assert "sigma" not in sampling_objects.describe(sampling)["values"]
    sampling.sigma = lambda timestep: timestep
    assert "sigma" in sampling_objects.describe(sampling)["values"], "which cannot leave"


# options that nobody reads


def options(**more):
    return {"transformer_options": {"sample_sigmas": torch.ones(3), **more}}


def sent(**more):
    """The transformer options of a context without prompts."""
    return conds.context([None], options(**more), brought=None)["transformer_options"]


def test_an_object_that_no_network_asks_for_stays_here():
    assert sent(regional_clown=object(), plain=3).keys() == {"sample_sigmas", "plain"}


@pytest.mark.parametrize("key", ["optimized_attention_override", "rope_options", "ar_state"])
def test_an_object_that_a_network_asks_for_is_refused(key):
    assert not is_nobodys(key, object())
    assert key in sent(**{key: object()})


def test_plain_data_is_sent_whoever_reads_it():
    assert not is_nobodys("another_packs_number", 3)
    assert not is_nobodys(5, object()), "no name that could be looked for"


def test_an_object_that_nobody_reads_is_shared(unet, session):
    unet.model_options["transformer_options"]["regional_clown"] = {"of": object()}
    bring_up(session, unet)
    watched = Watched(unet, session)
    seen = sample(watched.model, "unet")
    assert (watched.announced, watched.reports[0].partitioned) == ([], 4)
    assert relative(seen, sample(unet, "unet")) < 1e-4

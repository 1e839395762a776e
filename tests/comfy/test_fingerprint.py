"""What a forward pass could notice changes a network's fingerprint, and nothing else does."""

from __future__ import annotations

import copy
import gc
import types
import weakref

import comfy.ldm.flux.layers
import comfy.ldm.modules.attention as attention
import comfy.ldm.modules.diffusionmodules.openaimodel as openaimodel
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import pytest
import torch
from stage_families import FAMILIES, SDXL, STREAMS, runner

from hybrid_core.comfy_bridge import fingerprint as module
from hybrid_core.comfy_bridge.fingerprint import difference, fingerprint
from hybrid_core.errors import NotSplittable
from hybrid_core.stages.network_state import NetworkWatch
from hybrid_core.stages.network_state import difference as network_difference
from hybrid_core.stages.swap import Splitter

FLUX = STREAMS | {
    "image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": 8,
    "context_in_dim": 16, "hidden_size": 32, "mlp_ratio": 2.0, "num_heads": 2, "depth": 2,
    "depth_single_blocks": 3, "axes_dim": [4, 6, 6], "theta": 256, "patch_size": 2,
    "qkv_bias": True, "guidance_embed": True, "txt_ids_dims": [],
}  # fmt: skip


def patcher(kind):
    name, config = ("SDXL", SDXL) if kind == "sdxl" else ("Flux", FLUX)
    family = getattr(comfy.supported_models, name)(copy.deepcopy(config))
    family.set_inference_dtype(torch.float32, None)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(family.get_model({}, ""), cpu, cpu)


@pytest.fixture
def sdxl():
    return patcher("sdxl")


@pytest.fixture
def flux():
    return patcher("flux")


def network(patcher):
    return patcher.model.diffusion_model


def changed(patcher, change):
    """What is said after `change`, which nothing is said before."""
    before = fingerprint(patcher)
    assert fingerprint(patcher) == before
    change()
    after = fingerprint(patcher)
    said = difference(before, after)
    assert (before == after) == (said is None)
    return said


def attention_block(patcher):
    return network(patcher).middle_block[1].transformer_blocks[0].attn1


ATTN1 = "middle_block.1.transformer_blocks.0.attn1"


# what is seen


def test_a_weight_that_is_written_to(sdxl):
    weight = attention_block(sdxl).to_q.weight

    def write():
        with torch.no_grad():
            weight.mul_(1.5)

    assert changed(sdxl, write) == f"{ATTN1}.to_q: weight was written to"


def test_a_weight_that_is_replaced(sdxl):
    layer = attention_block(sdxl).to_q

    def replace():
        layer.weight = torch.nn.Parameter(layer.weight.clone(), requires_grad=False)

    assert changed(sdxl, replace) == f"{ATTN1}.to_q: weight is another tensor"


def test_data_put_under_a_weight(sdxl):
    weight = attention_block(sdxl).to_q.weight

    def put():
        weight.data = weight.data * 2

    assert changed(sdxl, put) == f"{ATTN1}.to_q: weight is another tensor"


def test_an_inference_tensor_that_is_replaced(sdxl):
    layer = attention_block(sdxl).to_q
    with torch.inference_mode():
        layer.weight = torch.nn.Parameter(layer.weight.clone(), requires_grad=False)

        def replace():
            layer.weight = torch.nn.Parameter(layer.weight * 2, requires_grad=False)

        assert changed(sdxl, replace) == f"{ATTN1}.to_q: weight is another tensor"


@pytest.fixture
def inferred():
    """A network as ComfyUI's server makes it: torch does not count the writes to its weights."""
    with torch.inference_mode():
        made = patcher("sdxl")
        for weight in network(made).parameters():
            weight.copy_(torch.randn_like(weight))
        yield made


WRITES = {
    "a factor": lambda weight: weight.mul_(1.001),
    "half of it": lambda weight: weight[: len(weight) // 2].add_(1.0),
    "another's values": lambda weight: weight.copy_(torch.randn_like(weight)),
    "not a number": lambda weight: weight.fill_(torch.nan),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("name", ["weight", "bias"])
def test_an_inference_tensor_that_is_written_to(inferred, write, name):
    weight = getattr(attention_block(inferred).to_out[0], name)
    said = changed(inferred, lambda: WRITES[write](weight))
    assert said == f"{ATTN1}.to_out.0: {name} was written to"
    assert changed(inferred, lambda: None) is None, "also of weights that are no numbers"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_an_inference_tensor_of_few_bits_that_is_written_to(inferred, dtype):
    layer = attention_block(inferred).to_q
    layer.weight = torch.nn.Parameter(layer.weight.to(dtype), requires_grad=False)
    said = changed(inferred, lambda: layer.weight.copy_(torch.ones_like(layer.weight)))
    assert said == f"{ATTN1}.to_q: weight was written to"


def test_weights_that_wait_elsewhere_are_not_read(inferred):
    """They may have to be fetched from a disk for that."""
    watch = NetworkWatch(network(inferred), {}, module.is_loaders, torch.device("cuda:0"))
    before = watch.look()
    attention_block(inferred).to_q.weight.mul_(2)
    assert watch.look() is before


def test_a_weight_written_to_and_back_is_what_it_was(inferred):
    weight = attention_block(inferred).to_q.weight
    before, kept = fingerprint(inferred), weight.clone()
    weight.zero_()
    assert fingerprint(inferred) != before
    weight.copy_(kept)
    assert fingerprint(inferred) == before


def test_the_models_sampling(sdxl):
    sampling = sdxl.model.model_sampling
    said = "the model's sampling"
    assert changed(sdxl, lambda: setattr(sampling, "sigma_data", 0.9)) == said
    assert changed(sdxl, lambda: sampling.sigmas.mul_(1.1)) == said
    other = type("AnotherPacks", (type(sampling),), {"noise_scaling": len})
    assert changed(sdxl, lambda: setattr(sampling, "__class__", other)) == said
    assert changed(sdxl, lambda: setattr(sampling, "sigma_data", 0.8)) == said


def test_a_buffer_that_is_added_or_written_to(sdxl):
    block = attention_block(sdxl)

    def add():
        block.register_buffer("scale_map", torch.ones(3))

    assert changed(sdxl, add) == f"{ATTN1}: scale_map is another tensor"
    assert changed(sdxl, lambda: block.scale_map.add_(1)) == f"{ATTN1}: scale_map was written to"


@pytest.mark.parametrize(
    ("kind", "name"), [("sdxl", "forward"), ("sdxl", "_forward"), ("flux", "forward_orig")]
)
def test_a_method_on_the_networks_instance(kind, name):
    found = patcher(kind)
    old = getattr(network(found), name)
    said = changed(found, lambda: setattr(network(found), name, lambda *a, **k: old(*a, **k)))
    assert said.startswith(f"the network: {name} is ")


def test_a_forward_that_another_wrapper_puts_on_a_block_and_takes_off(sdxl):
    block = network(sdxl).middle_block[1]
    before = fingerprint(sdxl)
    block.forward = lambda *a, **k: 0
    assert difference(before, fingerprint(sdxl)).startswith("middle_block.1: forward is ")
    del block.forward
    assert fingerprint(sdxl) == before


@pytest.mark.parametrize("name", ["apply_model", "_apply_model", "process_timestep"])
def test_a_method_on_the_models_instance(sdxl, name):
    old = getattr(sdxl.model, name)
    said = changed(sdxl, lambda: setattr(sdxl.model, name, lambda *a, **k: old(*a, **k)))
    assert said == f"the model's {name} was replaced"


@pytest.mark.parametrize("name", ["DoubleStreamBlock", "Another"])
def test_a_class_that_is_swapped(flux, name):
    base = comfy.ldm.flux.layers.DoubleStreamBlock
    cls = type(name, (base,), {"forward": lambda self, *a, **k: base.forward(self, *a, **k)})

    def swap():
        network(flux).double_blocks[1].__class__ = cls

    said = changed(flux, swap)
    assert said == f"double_blocks.1: is a {name} now, was a DoubleStreamBlock"


def test_a_layer_that_is_replaced(sdxl):
    def replace():
        network(sdxl).out[1] = torch.nn.GELU()

    assert changed(sdxl, replace) == "out.1: is a GELU now, was a SiLU"


def test_a_layer_that_is_added_or_gone(sdxl):
    def add():
        network(sdxl).out.add_module("more", torch.nn.Identity())

    assert changed(sdxl, add) == "out.more is new"
    assert changed(sdxl, lambda: network(sdxl).out._modules.pop("more")) == "out.more is gone"


def test_plain_attributes(sdxl, flux):
    block = attention_block(sdxl)
    heads = block.heads
    said = changed(sdxl, lambda: setattr(block, "heads", heads + 1))
    assert said == f"{ATTN1}: heads is {heads + 1}, was {heads}"
    said = changed(flux, lambda: setattr(network(flux).pe_embedder, "theta", 50000))
    assert said == "pe_embedder: theta is 50000, was 256"


def test_lists_and_objects_that_attributes_hold(flux):
    embedder, params = network(flux).pe_embedder, network(flux).params
    embedder.axes_dim = list(embedder.axes_dim)
    said = changed(flux, lambda: embedder.axes_dim.append(2))
    assert said == "pe_embedder: axes_dim changed"
    said = changed(flux, lambda: setattr(params, "theta", 1))
    assert said == "the network: params changed"


def test_a_tensor_that_an_attribute_holds(sdxl):
    block = attention_block(sdxl)
    block.bias_map = torch.zeros(4)
    said = changed(sdxl, lambda: block.bias_map.add_(1))
    assert said == f"{ATTN1}: bias_map changed"


def test_a_layer_that_is_hidden_in_a_list(sdxl):
    hidden = torch.nn.Linear(2, 2)
    attention_block(sdxl).extra = [hidden]

    def write():
        with torch.no_grad():
            hidden.weight.zero_()

    assert changed(sdxl, write) == f"{ATTN1}.extra[0]: weight was written to"


@pytest.mark.parametrize("kind", ["register_forward_hook", "register_forward_pre_hook"])
def test_a_hook(sdxl, kind):
    block, handles = attention_block(sdxl), []
    before = fingerprint(sdxl)
    said = changed(sdxl, lambda: handles.append(getattr(block, kind)(lambda *a: None)))
    assert said.startswith(f"{ATTN1}: _forward_")
    handles[0].remove()
    assert fingerprint(sdxl) == before


@pytest.mark.parametrize(
    ("space", "name", "said"),
    [
        (
            attention.CrossAttention,
            "forward",
            "comfy.ldm.modules.attention.CrossAttention.forward was replaced",
        ),
        (
            attention,
            "optimized_attention",
            "comfy.ldm.modules.attention.optimized_attention was replaced",
        ),
        (
            openaimodel,
            "apply_control",
            "comfy.ldm.modules.diffusionmodules.openaimodel.apply_control was replaced",
        ),
        (
            torch.nn.functional,
            "scaled_dot_product_attention",
            "torch.nn.functional.scaled_dot_product_attention was replaced",
        ),
        (torch.nn.functional, "group_norm", "torch.nn.functional.group_norm was replaced"),
        (comfy.model_management, "cast_to", "comfy.model_management.cast_to was replaced"),
        (
            comfy.model_base.BaseModel,
            "_apply_model",
            "comfy.model_base.BaseModel._apply_model was replaced",
        ),
    ],
)
def test_a_function_or_method_that_is_replaced_for_everyone(sdxl, monkeypatch, space, name, said):
    before, old = fingerprint(sdxl), getattr(space, name)
    with monkeypatch.context() as patch:
        patch.setattr(space, name, lambda *a, **k: old(*a, **k))
        assert difference(before, fingerprint(sdxl)) == said
    assert fingerprint(sdxl) == before


def test_a_method_that_a_class_did_not_have(sdxl, monkeypatch):
    before = fingerprint(sdxl)
    monkeypatch.setattr(
        attention.CrossAttention, "__call__", lambda self, *a, **k: 0, raising=False
    )
    assert difference(before, fingerprint(sdxl)) is not None


def test_another_closure_in_the_place_of_one_that_is_gone(sdxl):
    block = attention_block(sdxl)

    def put(value):
        block.forward = lambda *a, **k: value

    put(1)
    for value in range(20):  # the memory of the last one is used again
        assert changed(sdxl, lambda value=value: put(value)) is not None


# what is not


def test_a_forward_that_was_put_back_where_it_always_was(sdxl):
    def put_back():
        for name, block in network(sdxl).named_modules():
            if name.endswith("attn1"):
                block._backup, block.forward = block.forward, block.forward

    assert changed(sdxl, put_back) is None


def test_the_classs_method_under_another_name_is_a_change(flux):
    def bend():
        network(flux)._forward = network(flux).forward_orig

    assert changed(flux, bend) is not None


def test_the_classs_method_of_another_module_is_a_change(sdxl):
    one, other = attention_block(sdxl), network(sdxl).middle_block[1].transformer_blocks[0].attn2

    def bend():
        one.forward = other.forward

    assert changed(sdxl, bend) is not None


def test_loading_again_with_the_same_weights(sdxl):
    comfy.model_management.load_models_gpu([sdxl])
    before = fingerprint(sdxl)
    for layer in network(sdxl).modules():
        if hasattr(layer, "weight_function"):
            layer.weight_function, layer.prev_comfy_cast_weights = [], True
            layer.weight_lowvram_function, layer._v, layer.seed_key = None, object(), "a"
    assert difference(before, fingerprint(sdxl)) is None


def test_the_very_object_comes_back_while_nothing_changes(sdxl):
    assert fingerprint(sdxl).network is fingerprint(sdxl).network


@pytest.mark.parametrize("name", FAMILIES)
def test_running_a_network_in_full_and_in_stages_does_not_change_it(name):
    family = FAMILIES[name]
    with torch.inference_mode():
        made = family.network()
        watch, forward = (
            NetworkWatch(made, {}, module.is_loaders, torch.device("cpu")),
            runner(made, family),
        )
        forward()
        before = watch.look()
        forward()
        try:
            splitter = Splitter(made)
            splitter.record(forward)
            splitter.capture(forward, 0)
        except NotSplittable:
            pass
        assert network_difference(before, watch.look()) is None


def test_two_networks_do_not_know_each_other(sdxl):
    other = patcher("sdxl")
    assert difference(fingerprint(sdxl), fingerprint(other)) is not None
    assert hash(fingerprint(sdxl)) == hash(fingerprint(sdxl))


# what is kept


def test_nothing_keeps_a_model_its_weights_or_another_packs_code_alive():
    found = patcher("sdxl")
    block = attention_block(found)
    weight = weakref.ref(block.to_q.weight)

    model = weakref.ref(found.model)

    def forward(self, *args, holding=found.model):
        return holding

    block.forward = types.MethodType(forward, block)
    function = weakref.ref(forward)
    kept = fingerprint(found)
    del block.forward, forward
    gc.collect()
    assert function() is None
    block.to_q.weight = torch.nn.Parameter(torch.zeros(2), requires_grad=False)
    assert weight() is None
    del block, found
    gc.collect()
    assert model() is None
    assert kept == kept

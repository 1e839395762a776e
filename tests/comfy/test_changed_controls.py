"""What other nodes do to a ControlNet: the worker is told, or the run is local."""

from __future__ import annotations

import comfy.cldm.cldm
import comfy.model_sampling
import comfy.t2i_adapter.adapter
import folder_paths
import pytest
import torch
from comfy.controlnet import ControlLora, StrengthType, T2IAdapter
from helpers import relative

from benchmarks import controlnets
from benchmarks.models import SDXL_CONFIG
from hybrid_core.comfy_bridge import control_models, control_values
from hybrid_core.comfy_bridge.controls import HeldControls, RunsControls
from hybrid_core.errors import NotPartitionable, NotYet, ProtocolError
from hybrid_core.transport.carry import carry, unflatten
from nodes import ControlNetLoader

CONFIG = SDXL_CONFIG | {"model_channels": 32, "context_dim": 64, "num_head_channels": 32}
SHAPE = (1, 4, 16, 16)


class Sampling(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS):
    """SDXL's."""


class Model:
    model_sampling = Sampling()


class Loader:
    """The worker's executor of a graph that loads the file."""

    def output(self, path):
        assert path["graph"]
        return ControlNetLoader().load_controlnet("net.safetensors")[0]


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A control and its graph."""
    before = list(folder_paths.folder_names_and_paths["controlnet"][0])
    state = controlnets.of_unet(CONFIG)
    yield controlnets.loaded(state, tmp_path_factory.mktemp("controlnet"), (128, 128))
    folder_paths.folder_names_and_paths["controlnet"][0][:] = before


@pytest.fixture
def control(first):
    """One with a network of its own."""
    control, _ = first
    other = Loader().output({"graph": "the same"}).copy()
    return other.set_cond_hint(control.cond_hint_original, 0.9)


def told(control, graph):
    return RunsControls([{"control": control}], graph, SHAPE)


def sent(value):
    carried = carry(value)
    return unflatten(carried.tree, carried.tensors)


def in_the_worker(control, graph):
    runs, held = told(control, graph), HeldControls()
    held.load(sent(runs.data()), Loader)
    return held.restore(sent(runs.describe(control)), Model)


def evaluated(control):
    draw = torch.Generator().manual_seed(1)
    x, context, y = (torch.randn(s, generator=draw) for s in (SHAPE, (1, 4, 64), (1, 2816)))
    control.pre_run(Model, Model.model_sampling.percent_to_sigma)
    with torch.no_grad():
        out = control.get_control(x, torch.ones(1), {"c_crossattn": context, "y": y}, 1, {})
    control.cleanup()
    return torch.cat([part.flatten() for parts in out.values() for part in parts])


@pytest.mark.parametrize(
    ("name", "value"),
    [("strength_type", StrengthType.LINEAR_UP), ("global_average_pooling", True)],
)
def test_a_value_that_another_node_sets_is_told(first, name, value):
    control, graph = first[0].copy(), first[1]
    usual = evaluated(control)
    setattr(control, name, value)
    expected = evaluated(control)
    assert relative(usual, expected) > 1e-3
    assert relative(evaluated(in_the_worker(control, graph)), expected) < 1e-6


def times(control, factor):
    with torch.inference_mode():
        for weight in control.control_model.parameters():
            weight.data.mul_(factor)


def set_a_layer(control):
    control.control_model.middle_block[0].use_scale_shift_norm = True


@pytest.mark.parametrize("change", [lambda control: times(control, 1.3), set_a_layer])
@pytest.mark.parametrize("known", [True, False], ids=["after a run", "before the first"])
def test_another_network_is_not_found_in_the_worker(first, control, change, known):
    if known:
        in_the_worker(control, first[1])
    change(control)
    with pytest.raises(NotPartitionable, match="no node of the graph loads a ControlNet"):
        in_the_worker(control, first[1])


def patch(control):
    name, weight = next(iter(control.control_model.named_parameters()))
    control.control_model_wrapped.add_patches({name: ("diff", (torch.ones_like(weight),))}, 1.0)


def other_forward(control):
    layer = control.control_model.middle_block[0]
    layer.forward = lambda *args: type(layer).forward(layer, *args)


HARM = {
    "another node patches a ControlNet .patches.": patch,
    "another node patches a ControlNet .object_patches.": lambda control: (
        control.control_model_wrapped.add_object_patch("dtype", torch.float16)
    ),
    "other code overrides middle_block.0 in a ControlNet": other_forward,
    "other code overrides time_embed in": lambda control: (
        control.control_model.time_embed.register_forward_hook(lambda *_: None)
    ),
    "other code replaces a ControlNet's get_control": lambda control: setattr(
        control, "get_control", lambda *_: None
    ),
    "hint is prepared by code": lambda control: setattr(
        control, "preprocess_image", lambda picture: 1.0 - picture
    ),
    "a ControlNet's strength_type is": lambda control: setattr(control, "strength_type", "up"),
}


@pytest.mark.parametrize("reason", HARM)
def test_code_in_a_control_is_refused(first, control, reason):
    told(control, first[1])
    HARM[reason](control)
    with pytest.raises(NotPartitionable, match=reason):
        told(control, first[1]).describe(control)


def test_an_unchanged_network_is_not_read_again(first, control, monkeypatch):
    before = told(control, first[1])
    evaluated(control)
    monkeypatch.setattr(control_models, "checksums", None)
    after = told(control.copy(), first[1])
    assert (after.key, after.code, after.changed()) == (before.key, before.code, None)


def test_a_change_within_a_run_is_told_at_its_end(first, control):
    runs = told(control, first[1])
    times(control, 1.001)
    assert runs.changed().endswith("was written to")


def test_code_that_is_replaced_is_seen(first, monkeypatch):
    before = told(*first).code
    old = comfy.cldm.cldm.ControlNet.forward
    monkeypatch.setattr(comfy.cldm.cldm.ControlNet, "forward", lambda *a, **k: old(*a, **k))
    assert told(*first).code != before


def test_a_hint_that_a_vae_would_make_anew_is_not_the_earlier_one(first):
    control, graph = first[0].copy(), first[1]
    control.vae = controlnets.PlainVAE(4)
    runs = told(control, graph)
    control.cond_hint = torch.zeros(1, 4, *(8 * side for side in SHAPE[-2:]))
    runs.describe(control)
    control.cond_hint = None
    assert runs.describe(control)["made"] is not None
    control.cond_hint_original = control.cond_hint_original * 0.5
    with pytest.raises(NotYet):
        runs.describe(control)


def test_the_weights_of_a_control_lora_are_looked_at():
    control = ControlLora({"input_hint_block.0.weight": torch.ones(4, 3, 3, 3)})
    before = control_models.look(control)
    assert control_models.look(control) is before
    control.control_weights["input_hint_block.0.weight"].data.mul_(2)
    assert control_models.look(control).name != before.name
    assert "was written to" in control_models.changed(control, before)


def adapter(**values):
    network = comfy.t2i_adapter.adapter.Adapter_light(channels=[8] * 4, nums_rb=1, cin=64)
    made = T2IAdapter(network, 1, 8, "nearest-exact")
    vars(made).update(values)
    return made


def test_what_a_t2i_adapter_reads_is_told():
    values = {"channels_in": 3, "compression_ratio": 32, "upscale_algorithm": "bilinear"}
    restored = adapter()
    control_values.restore(restored, sent(control_values.describe(adapter(**values))))
    assert vars(restored).items() >= values.items()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("strength", "1"), ("timestep_percent_range", (0.0,)), ("cond_hint_original", [1]),
        ("extra_concat_orig", [1]), ("extra_conds", [1]), ("extra_args", None),
        ("global_average_pooling", 1), ("compression_ratio", 0), ("upscale_algorithm", None),
        ("strength_type", "SQUARE"), ("strength_type", []), ("manual_cast_dtype", "fp16"),
    ],
)  # fmt: skip
def test_a_malformed_value_is_refused_in_the_worker(first, name, value):
    values = control_values.describe(first[0]) | {name: value}
    with pytest.raises(ProtocolError, match=f"a ControlNet's {name} is"):
        control_values.restore(first[0].copy(), values)

"""docs/compatibility.md, row by row: what is shared, what runs locally and why it says so."""

from __future__ import annotations

import re
import time
from pathlib import Path

import comfy.hooks
import comfy.weight_adapter
import pytest
import torch
from comfy.controlnet import ControlBase
from comfy.patcher_extension import CallbacksMP, WrappersMP
from comfy.samplers import CFGGuider, sampler_object
from comfy_extras import (
    nodes_cfg,
    nodes_freelunch,
    nodes_model_advanced,
    nodes_model_merging,
    nodes_pag,
    nodes_perpneg,
)
from helpers import NEGATIVE, POSITIVE, Watched, bring_up, empty_latent, relative, sample
from loras import lora, with_lora

from hybrid_core.comfy_bridge import demo_models
from hybrid_core.comfy_bridge.session import Session
from hybrid_core.config import Settings

DOC = Path(__file__).resolve().parents[2] / "docs" / "compatibility.md"
TOLERANCE = 1e-4


def classic(node, **inputs):
    """Run a node of either API on keyword inputs; its first output."""
    if hasattr(node, "define_schema"):
        return node.execute(**inputs).result[0]
    made = node()
    return getattr(made, node.FUNCTION)(**inputs)[0]


def sampling_patch(name, **inputs):
    return lambda model: classic(getattr(nodes_model_advanced, name), model=model, **inputs)


def merged(model):
    other = with_lora(model)
    return classic(nodes_model_merging.ModelMergeSimple, model1=model, model2=other, ratio=0.5)


def patch_function(model):
    """Weights changed by code, as packs for block weights do it."""
    clone = model.clone()
    state = model.model.diffusion_model.state_dict()
    names = [name for name in state if name.endswith("to_q.weight")]
    diffs = {f"diffusion_model.{name}": (torch.ones_like(state[name]),) for name in names}
    clone.add_patches({(key, None, lambda a: a * 0.02): diff for key, diff in diffs.items()})
    return clone


class Adapter(comfy.weight_adapter.WeightAdapterBase):
    """An adapter that only this process has."""

    name = "another pack's"

    def __init__(self):
        self.loaded_keys, self.weights = set(), ()

    def calculate_weight(self, weight, key, strength, *_):
        return weight * (1 + 0.3 * strength)


def other_adapter(model):
    clone = model.clone()
    names = [n for n in model.model.diffusion_model.state_dict() if n.endswith("to_q.weight")]
    clone.add_patches({f"diffusion_model.{name}": Adapter() for name in names}, 1.0)
    return clone


def wrapped(kind):
    def change(model):
        clone = model.clone()
        clone.add_wrapper_with_key(
            kind, "another_pack", lambda executor, *a, **k: executor(*a, **k)
        )
        return clone

    return change


def patched_attention(model):
    clone = model.clone()
    clone.set_model_attn2_patch(lambda q, k, v, extra_options: (q, k, v))
    return clone


def function_wrapper(model):
    clone = model.clone()
    clone.set_model_unet_function_wrapper(
        lambda apply, args: apply(args["input"], args["timestep"], **args["c"])
    )
    return clone


def object_patch(model):
    clone = model.clone()
    clone.add_object_patch("diffusion_model.out", model.model.diffusion_model.out)
    return clone


def load_callback(model):
    clone = model.clone()
    clone.add_callback_with_key(CallbacksMP.ON_PRE_RUN, "another_pack", lambda *_: None)
    return clone


def overridden_forward(model):
    changed = demo_models.load_model("unet")
    block = changed.model.diffusion_model.middle_block[0]
    forward = block.forward
    block.forward = lambda *a, **k: forward(*a, **k)
    return changed


# name in the document: (model kind, change of the model)
SHARED = {
    "LoRA": ("unet", with_lora),
    "LoRA (DiT)": ("mmdit", with_lora),
    "two LoRAs": ("unet", lambda m: with_lora(with_lora(m), seed=1)),
    "ModelSamplingSD3": ("mmdit", sampling_patch("ModelSamplingSD3", shift=1.5)),
    "ModelSamplingAuraFlow": ("mmdit", sampling_patch("ModelSamplingAuraFlow", shift=1.7)),
    "ModelSamplingFlux": (
        "mmdit",
        sampling_patch("ModelSamplingFlux", max_shift=1.2, base_shift=0.5, width=1024, height=1024),
    ),
    "ModelSamplingDiscrete": (
        "unet",
        sampling_patch("ModelSamplingDiscrete", sampling="v_prediction", zsnr=True),
    ),
    "ModelSamplingDiscrete lcm": (
        "unet",
        sampling_patch("ModelSamplingDiscrete", sampling="lcm", zsnr=False),
    ),
    "ModelSamplingContinuousEDM": (
        "unet",
        sampling_patch(
            "ModelSamplingContinuousEDM", sampling="eps", sigma_max=14.0, sigma_min=0.03
        ),
    ),
    "RescaleCFG": ("unet", sampling_patch("RescaleCFG", multiplier=0.7)),
    "CFG-Zero*": ("mmdit", lambda m: classic(nodes_cfg.CFGZeroStar, model=m)),
    "model merge": ("unet", merged),
    "patch function": ("unet", patch_function),
    "adapter of another pack": ("unet", other_adapter),
    "PAG": ("unet", lambda m: classic(nodes_pag.PerturbedAttentionGuidance, model=m, scale=1.0)),
}
LOCAL = {
    "FreeU": (
        "unet",
        lambda m: classic(nodes_freelunch.FreeU_V2, model=m, b1=1.1, b2=1.1, s1=0.9, s2=0.9),
        None,  # FreeU_V2 looks for SDXL's and SD1's widths and changes nothing here
    ),
    "attention patches": ("unet", patched_attention, "patches the network"),
    "model function wrapper": ("unet", function_wrapper, "wraps the model function"),
    "wrapper inside the forward pass": (
        "unet",
        wrapped(WrappersMP.DIFFUSION_MODEL),
        "wraps 'diffusion_model'",
    ),
    "wrapper of the evaluation": (
        "unet",
        wrapped(WrappersMP.CALC_COND_BATCH),
        "wraps 'calc_cond_batch'",
    ),
    "object patch": ("unet", object_patch, "replaces parts of this model"),
    "callback that runs before sampling": ("unet", load_callback, "runs code at 'on_pre_run'"),
    "overridden forward": ("unet", overridden_forward, "overrides the forward pass"),
}


def documented(heading):
    text = DOC.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    return set(re.findall(r"^\| `([^`]+)`", text, re.M))


def test_every_row_of_the_document_has_a_test():
    assert documented("Models") == (SHARED | LOCAL).keys()
    assert documented("Conditioning and guiders") == CONDS.keys() | GUIDERS.keys()


@pytest.mark.parametrize("name", SHARED)
def test_model_feature_is_shared(demo, session, name):
    kind, change = SHARED[name]
    model = change(demo[kind])
    bring_up(session, model)
    watched = Watched(model, session)
    seen = sample(watched.model, kind)
    expected = sample(model, kind)
    assert watched.announced == []
    assert (watched.reports[0].partitioned, watched.reports[0].local) == (4, 0)
    assert relative(seen, expected) < TOLERANCE


@pytest.mark.parametrize("name", [n for n in SHARED if n not in ("PAG",)])
def test_model_feature_has_an_effect(demo, name):
    kind, change = SHARED[name]
    assert relative(sample(change(demo[kind]), kind), sample(demo[kind], kind)) > 1e-3


@pytest.mark.parametrize("name", LOCAL)
def test_model_feature_runs_locally_and_says_why(demo, session, name):
    kind, change, reason = LOCAL[name]
    model = change(demo[kind])
    expected = sample(model, kind)
    watched = Watched(model, session)
    seen = sample(watched.model, kind)
    if reason is None:
        assert relative(seen, expected) < TOLERANCE
        return
    assert torch.equal(seen, expected)
    assert watched.reports[0].partitioned == 0
    (said,) = watched.announced
    assert reason in said
    assert said.startswith("runs as KSampler, on one device: ") or "in this process alone" in said


def test_lora_changed_between_two_prompts(demo, session):
    seen = []
    for how in ({"seed": 1}, {"seed": 2}, {"seed": 1}):
        model = with_lora(demo["unet"], **how)
        bring_up(session, model)
        watched = Watched(model, session)
        seen.append(sample(watched.model, "unet"))
        assert watched.reports[0].local == 0
        assert relative(seen[-1], sample(model, "unet")) < TOLERANCE
    assert torch.equal(seen[0], seen[2])
    assert relative(seen[0], seen[1]) > 1e-3


def test_load_that_ends_while_another_lora_is_in_place(demo, session):
    bring_up(session, demo["unet"])
    first, other = with_lora(demo["unet"], seed=1), with_lora(demo["unet"], seed=2)
    sample(Watched(first, session).model, "unet", steps=1)  # its replica is being loaded
    sample(other, "unet", steps=1)
    time.sleep(1)
    watched = Watched(first, session)
    seen = sample(watched.model, "unet")
    assert watched.announced == []
    assert watched.reports[0].partitioned == 4
    assert relative(seen, sample(first, "unet")) < TOLERANCE


def test_a_replica_with_other_weights_is_a_named_error_and_a_local_run(demo, session, monkeypatch):
    from hybrid_core.comfy_bridge import replica

    describe = replica.describe_patches

    def without_the_last(patcher):
        return describe(patcher)[:-1]

    monkeypatch.setattr(replica, "describe_patches", without_the_last)
    model = with_lora(demo["unet"], seed=5)
    with torch.inference_mode():
        assert not session.bring_up(model, 60)
    watched = Watched(model, session)
    seen = sample(watched.model, "unet")
    assert torch.equal(seen, sample(model, "unet"))
    assert "patched weights" in watched.announced[0]
    monkeypatch.undo()
    bring_up(session, demo["unet"])


def entry(kind, text, **extra):
    ((vectors, data),) = demo_models.conditioning(kind, text)
    return [[vectors, {**data, **extra}]]


def hooked(kind):
    group = comfy.hooks.create_hook_lora(
        lora=lora(demo_models.load_model(kind)), strength_model=1.0, strength_clip=0.0
    )
    return entry(kind, POSITIVE, hooks=group)


class Control(ControlBase):
    """A ControlNet without a network: its residuals are nothing."""

    def get_control(self, *_):
        return None

    def get_models(self):
        return []


# name in the document: (positive of a kind, reason or None when it is shared)
CONDS = {
    "areas, masks, several prompts": (
        lambda kind: entry(kind, POSITIVE) + entry(kind, "red", area=(8, 8, 4, 4), strength=0.5),
        None,
    ),
    "prompt scheduling by steps": (
        lambda kind: (
            entry(kind, POSITIVE, start_percent=0.0, end_percent=0.5)
            + entry(kind, "green square", start_percent=0.5, end_percent=1.0)
        ),
        None,
    ),
    "ControlNet": (
        lambda kind: entry(kind, POSITIVE, control=Control(), control_apply_to_uncond=False),
        "a ControlNet is another pack's (Control)",
    ),
    "hooks on conditioning": (hooked, None),
}


@pytest.mark.parametrize("name", CONDS)
def test_conditioning_feature_is_shared_or_says_why_not(demo, session, name):
    positive, reason = CONDS[name]
    model = demo["unet"]
    bring_up(session, model)
    expected = sample(model, "unet", positive=positive("unet"))
    watched, given = Watched(model, session), positive("unet")
    seen = sample(watched.model, "unet", positive=given)
    if reason is None:
        deadline = time.monotonic() + 60
        while watched.reports[-1].partitioned < 4 and time.monotonic() < deadline:
            time.sleep(0.3)  # hooks come with the model
            seen = sample(watched.model, "unet", positive=given)
        assert (watched.reports[-1].partitioned, watched.announced) == (4, [])
        assert relative(seen, expected) < TOLERANCE
    else:
        assert torch.equal(seen, expected)
        assert watched.reports[0].partitioned == 0
        assert reason in watched.announced[0]


def dual_cfg(model, kind):
    from comfy_extras.nodes_custom_sampler import Guider_DualCFG

    made = Guider_DualCFG(model)
    made.set_conds(entry(kind, POSITIVE), entry(kind, "green square"), entry(kind, NEGATIVE))
    made.set_cfg(4.0, 3.0)
    return made


def perp_neg(model, kind):
    made = nodes_perpneg.Guider_PerpNeg(model)
    made.set_conds(entry(kind, POSITIVE), entry(kind, NEGATIVE), entry(kind, ""))
    made.set_cfg(4.0, 1.0)
    return made


def plain_guider(model, kind):
    made = CFGGuider(model)
    made.set_conds(entry(kind, POSITIVE), entry(kind, NEGATIVE))
    made.set_cfg(5.0)
    return made


GUIDERS = {"CFGGuider": plain_guider, "DualCFGGuider": dual_cfg, "PerpNegGuider": perp_neg}


@pytest.mark.parametrize("name", GUIDERS)
def test_guider_is_shared(demo, session, name):
    model = demo["unet"]
    bring_up(session, model)
    watched = Watched(model, session)
    sigmas = torch.linspace(10, 0, 5)
    noise, empty = torch.randn(1, 48, 16, 16), torch.zeros(1, 48, 16, 16)
    results = []
    for one in (watched.model, model):
        guider = GUIDERS[name](one, "unet")
        with torch.inference_mode():
            results.append(guider.sample(noise, empty, sampler_object("euler"), sigmas, seed=1))
    assert (watched.reports[0].partitioned, watched.reports[0].local) == (4, 0)
    assert relative(*results) < TOLERANCE


def test_no_second_device_runs_locally_and_says_so(demo, monkeypatch):
    monkeypatch.delenv("HYBRID_KSAMPLER_DEVICE")
    watched = Watched(demo["unet"], Session(Settings()))
    assert torch.equal(sample(watched.model, "unet"), sample(demo["unet"], "unet"))
    assert "there is no second GPU" in watched.announced[0]


def test_a_wrong_device_setting_runs_locally_and_says_so(demo, monkeypatch):
    monkeypatch.setenv("HYBRID_KSAMPLER_DEVICE", "cuda:1")
    watched = Watched(demo["unet"], Session(Settings()))
    sample(watched.model, "unet")
    assert "HYBRID_KSAMPLER_DEVICE is 'cuda:1', expected cpu:" in watched.announced[0]


def test_empty_latents_of_any_node_fit(demo):
    assert sample(demo["unet"], "unet", steps=1, latent=empty_latent(2)).shape == (2, 48, 16, 16)

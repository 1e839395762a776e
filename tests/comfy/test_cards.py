"""Two cards that are not alike, and a worker's device that is too small."""

from __future__ import annotations

import time

import comfy.model_management
import pytest
import torch
from helpers import Watched, bring_up, sample
from loras import with_lora

from hybrid_core.comfy_bridge import parent_process, support, worker_side
from hybrid_core.comfy_bridge import portrait as portrait_module
from hybrid_core.comfy_bridge.naming import spoken_name
from hybrid_core.comfy_bridge.overview import overview
from hybrid_core.comfy_bridge.portrait import compare, portrait
from hybrid_core.comfy_bridge.replica import ReplicaSource
from hybrid_core.comfy_bridge.session import Session
from hybrid_core.config import VISIBLE, Settings, WorkerDevice
from hybrid_core.errors import NotPartitionable, ReplicaMismatch, WorkerDied
from hybrid_core.machine.devices import Choice
from hybrid_core.workers.process.host import Host

KIND = "unet"


@pytest.fixture
def ours(demo):
    model = with_lora(demo[KIND])
    comfy.model_management.load_models_gpu([model])
    return portrait(model)


def on_another_card(seen, by="NVIDIA B, cuda"):
    effects = {name: {**effect, "by": by} for name, effect in seen["effects"].items()}
    return {**seen, "effects": effects}


def with_effects(seen, **factors):
    effects = {
        name: {**effect, **{key: effect[key] * factor for key, factor in factors.items()}}
        for name, effect in seen["effects"].items()
    }
    return {**seen, "effects": effects}


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("dtype", "torch.float16", "start it with --fp16-unet"),
        ("manual cast dtype", "torch.float16", "start it with --fp16-unet"),
        ("operations", "fp8_ops", "start it without --fast"),
        ("attention", "attention_sage", "start it with --use-pytorch-cross-attention"),
    ],
)
def test_what_comfyui_chooses_by_the_card_is_told_in_words(ours, name, value, advice):
    with pytest.raises(ReplicaMismatch) as caught:
        compare(ours, {**ours, name: value})
    said = str(caught.value)
    assert f"{name} {ours[name]} here, {value} there" in said
    assert advice in said and "or name a GPU like the first in HYBRID_KSAMPLER_DEVICE" in said


def test_every_difference_of_the_cards_is_told(ours):
    theirs = {**ours, "dtype": "torch.float16", "attention": "attention_sage"}
    with pytest.raises(ReplicaMismatch, match="dtype .* attention .* and with --use-pytorch"):
        compare(ours, theirs)


def test_patched_weights_of_equal_cards_are_compared_exactly(ours):
    compare(ours, ours)
    name = next(iter(ours["effects"]))
    theirs = {**ours, "effects": {**ours["effects"]}}
    theirs["effects"][name] = {**ours["effects"][name], "checksum": 1}
    with pytest.raises(ReplicaMismatch, match=f"weight {name} with its patches"):
        compare(ours, theirs)


def test_patched_weights_of_other_cards_may_round_otherwise(ours):
    theirs = with_effects(on_another_card(ours), checksum=2, change=1.01)
    compare(ours, theirs)
    compare(theirs, ours)


@pytest.mark.parametrize("factor", [0.0, 0.9, 1.1, float("nan"), float("inf")])
def test_patches_with_another_effect_are_refused_on_any_card(ours, factor):
    with pytest.raises(ReplicaMismatch, match="with its patches"):
        compare(ours, with_effects(on_another_card(ours), change=factor))


@pytest.mark.parametrize("effect", [None, {}, {"by": "NVIDIA B"}, 3])
def test_malformed_effects_are_refused(ours, effect):
    theirs = {**ours, "effects": dict.fromkeys(ours["effects"], effect)}
    with pytest.raises(ReplicaMismatch, match="with its patches"):
        compare(ours, theirs)
    with pytest.raises(ReplicaMismatch, match="did not describe"):
        compare(ours, {**ours, "effects": [effect]})


def test_unpatched_weights_and_patches_are_compared_exactly_on_any_card(ours):
    theirs = on_another_card(ours)
    name = next(iter(ours["weights"]))
    with pytest.raises(ReplicaMismatch, match=f"weight {name} differs"):
        compare(ours, {**theirs, "weights": {**ours["weights"], name: 1}})
    with pytest.raises(ReplicaMismatch, match="has patches"):
        compare(ours, {**theirs, "patches": "0"})


def test_the_effect_of_a_lora_in_half_precision_is_within_its_rounding():
    """Arithmetic in fp32 and in fp16, both stored in fp16: what two cards may differ by."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(256, 256, generator=generator).half()
    for scale in (1e-1, 1e-2, 1e-3, 1e-5):
        up = torch.randn(256, 8, generator=generator) * scale
        down = torch.randn(8, 256, generator=generator) * 0.05
        one = (base.float() + up @ down).half()
        other = base + up.half() @ down.half()
        a, b = (portrait_module._effect(base, w, by) for w, by in ((one, "A"), (other, "B")))
        assert portrait_module._same_effect(a, b)
    without = portrait_module._effect(base, base, "B")
    strong = portrait_module._effect(base, (base.float() + 0.1).half(), "A")
    assert not portrait_module._same_effect(strong, without)


def test_a_patch_that_widens_a_weight_is_compared_too():
    plain, wide = torch.zeros(4, 4), torch.ones(4, 8)
    a, b = (portrait_module._effect(plain, w, by) for w, by in ((wide, "A"), (wide * 1.01, "B")))
    assert portrait_module._same_effect(a, b)
    assert not portrait_module._same_effect(a, portrait_module._effect(plain, plain, "B"))


def test_a_model_that_cannot_be_compared_is_a_named_error_and_a_local_run(
    demo, own_session, monkeypatch
):
    from hybrid_core.comfy_bridge import replica

    def fails(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    session, model = own_session(), demo[KIND]
    monkeypatch.setattr(replica, "portrait", fails)
    with torch.inference_mode():
        assert not session.bring_up(model, 60)
    watched = Watched(model, session)
    assert torch.equal(sample(watched.model, KIND), sample(model, KIND))
    assert "cannot be compared: CUDA out of memory" in watched.announced[0]


def test_a_replica_that_does_not_fit_runs_locally_and_is_asked_for_once_a_run(
    demo, own_session, monkeypatch
):
    session, model = own_session(), demo[KIND]
    post, asked = Host.post, []

    def watched_post(self, op, fields, *rest):
        asked.append(op)
        return post(self, op, fields, *rest)

    monkeypatch.setattr(Host, "post", watched_post)
    with monkeypatch.context() as patch:
        patch.setattr(comfy.model_management, "EXTRA_RESERVED_VRAM", 1 << 50)
        with torch.inference_mode():
            assert not session.bring_up(model, 60)
        pid = session.holdings().worker.pid
        for _ in range(2):
            asked.clear()
            watched = Watched(model, session)
            assert torch.equal(sample(watched.model, KIND), sample(model, KIND))
            (said,) = watched.announced
            assert f"{spoken_name(model)} needs 1125" in said
            assert "GB on cpu:1, " in said and " GB are free there" in said
            assert asked == ["status"]
    assert session.holdings().worker.pid == pid, "the worker is sound"
    bring_up(session, model)
    watched = Watched(model, session)
    sample(watched.model, KIND)
    assert watched.reports[0].partitioned == 4


def test_what_a_replica_needs(demo):
    model = demo[KIND]
    (small, large) = (
        ReplicaSource(model, lambda _: None, shape).needed_bytes()
        for shape in ((1, 48, 16, 16), (8, 48, 256, 256))
    )
    weights = sum(p.numel() * p.element_size() for p in model.model.diffusion_model.parameters())
    reserve = comfy.model_management.minimum_inference_memory()
    assert weights + reserve - 1 <= small < 1.01 * (weights + reserve)
    activations = model.model.memory_required([8, 48, 256, 256])
    assert large >= weights + activations > small


def test_a_worker_whose_gpu_is_not_there_says_so():
    """CUDA reads its environment once: it was set before torch was imported."""
    device = WorkerDevice("GPU 1, NVIDIA X", {VISIBLE: "GPU-1"}, uuid="GPU-1")
    host = Host(device, Settings(), worker_side.models, parent_process.describe())
    host.start()
    try:
        with pytest.raises(WorkerDied, match="was given GPU-1 and CUDA shows it no GPU"):
            deadline = time.monotonic() + 120
            while not host.ready() and time.monotonic() < deadline:
                time.sleep(0.05)
    finally:
        host.end(None)


def test_a_model_on_the_workers_own_gpu_runs_locally(demo, monkeypatch):
    model = demo[KIND].clone()
    worker = WorkerDevice("GPU 1, NVIDIA X", uuid="GPU-b")
    support.check_place(model, worker)  # where ComfyUI samples
    uuids = {torch.device("cuda", 1): "GPU-b", torch.device("cuda", 2): "GPU-c"}
    monkeypatch.setattr(comfy.model_management, "get_torch_device", lambda: torch.device("cuda", 0))
    monkeypatch.setattr(support, "own_gpu", lambda device: type("", (), {"uuid": uuids[device]}))
    for place, shared in (("cuda:0", True), ("cuda:2", True), ("cuda:1", False), ("cpu", False)):
        model.load_device = torch.device(place)
        if shared:
            support.check_place(model, worker)
        else:
            with pytest.raises(NotPartitionable, match=f"another node put this model on {place}"):
                support.check_place(model, worker)


def test_the_panel_is_told_of_both_cards(monkeypatch):
    session = Session(Settings())
    differs = "NVIDIA X (compute capability 8.6, 24.0 GB) beside NVIDIA Y (8.9, 24.0 GB)"
    device = WorkerDevice("GPU 1, NVIDIA X", {}, uuid="GPU-1", differs=differs)
    monkeypatch.setattr(session, "devices", lambda: Choice((device,)))
    before = overview(session)["worker"]
    session.holdings()
    after = overview(session)["worker"]
    assert before.keys() == after.keys()
    assert (before["device"], before["differs"]) == (None, None)
    assert (after["device"], after["differs"]) == (device.label, differs)
    assert {"data_plane", "data_plane_reason"} <= after.keys()

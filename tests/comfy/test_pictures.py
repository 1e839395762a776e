"""A batch at cfg 1 is divided by pictures, and is KSampler's."""

from __future__ import annotations

import os
import signal

import comfy.conds
import pytest
import torch
from comfy.samplers import KSampler, sampler_object
from harm import KIND, next_run_works
from helpers import FORESEEN, Watched, bring_up, empty_latent, guider, relative, sample

from hybrid_core.comfy_bridge import conds, demo_models
from hybrid_core.comfy_bridge.call import ComfyCall
from hybrid_core.telling.report import kinds
from hybrid_core.workers.contract import Pictures
from hybrid_core.workers.process.host import Host

EQUAL = 1e-5  # relative, fp32
CLOSE = 0.1  # with steps that are foreseen
KINDS = list(demo_models.KINDS)
SAMPLERS = ["euler", "dpmpp_2m", "euler_ancestral", "heun"]
BATCHES = [2, 3, 4]


def shared_and_reference(demo, session, kind, batch=2, **settings):
    """Final latents of a shared run and of KSampler; every evaluation of the first was shared."""
    bring_up(session, demo[kind])
    watched = Watched(demo[kind], session)
    settings = {"cfg": 1.0, "latent": empty_latent(batch), **settings}
    seen = sample(watched.model, kind, **settings)
    (report,) = watched.reports
    assert kinds(report.steps) == "d" * len(report.steps) and report.reasons == []
    assert watched.announced == []
    return seen, sample(demo[kind], kind, **settings), report


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("batch", BATCHES)
def test_a_batch_equals_ksampler(demo, session, kind, sampler, batch):
    seen, expected, report = shared_and_reference(demo, session, kind, batch, sampler=sampler)
    assert report.divided >= 4
    assert relative(seen, expected) < EQUAL


@pytest.mark.parametrize("kind", KINDS)
def test_mode_adaptive_divides_what_it_does_not_foresee(demo, session, kind):
    bring_up(session, demo[kind])
    watched = Watched(demo[kind], session, "adaptive", **FORESEEN)
    settings = {"cfg": 1.0, "steps": 12, "scheduler": "simple", "latent": empty_latent(4)}
    seen = sample(watched.model, kind, **settings)
    (report,) = watched.reports
    assert kinds(report.steps) == "dddFdFFdFddd" and report.reasons == []
    first = sum(step.compared for step in report.steps)
    assert report.ideal == pytest.approx(12 / (8 / 2 + first / 2))
    assert EQUAL < relative(seen, sample(demo[kind], kind, **settings)) < CLOSE


@pytest.mark.parametrize("kind", KINDS)
def test_mode_adaptive_divides_every_step_of_a_sampler_that_adds_noise(demo, session, kind):
    bring_up(session, demo[kind])
    watched = Watched(demo[kind], session, "adaptive")
    settings = {"cfg": 1.0, "sampler": "euler_ancestral", "latent": empty_latent(2)}
    seen = sample(watched.model, kind, **settings)
    (report,) = watched.reports
    assert kinds(report.steps) == "dddd" and "adds noise" in report.unshortened
    assert relative(seen, sample(demo[kind], kind, **settings)) < EQUAL


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_with_an_inpaint_mask_equals_ksampler(demo, session, kind):
    latent = {"samples": torch.randn(3, 48, 16, 16), "noise_mask": torch.zeros(3, 64, 64)}
    for at in range(3):
        latent["noise_mask"][at, :, 16 * at :] = 1.0
    seen, expected, _ = shared_and_reference(demo, session, kind, latent=latent)
    assert relative(seen, expected) < EQUAL


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_with_areas_masks_and_timestep_ranges_equals_ksampler(demo, session, kind):
    whole = demo_models.conditioning(kind, "red circle")
    tensor, extra = demo_models.conditioning(kind, "green square, sand")[0]
    masks = torch.zeros(2, 64, 64)
    masks[0, :, :32] = masks[1, 32:] = 1.0
    positive = [
        *whole,
        [tensor, {**extra, "area": (8, 8, 4, 4), "strength": 0.7}],
        [tensor, {**extra, "mask": masks, "mask_strength": 0.8}],
        [tensor, {**extra, "start_percent": 0.0, "end_percent": 0.5}],
    ]
    seen, expected, _ = shared_and_reference(demo, session, kind, 4, positive=positive, steps=6)
    assert relative(seen, expected) < EQUAL


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("prompts", "batch"), [(2, 3), (3, 3), (2, 4), (5, 3)])
def test_pictures_get_the_prompts_that_comfyui_gives_them(demo, session, kind, prompts, batch):
    words = ["red circle", "blue square, sky", "green ring", "white cross, navy", "yellow circle"]
    each = [demo_models.conditioning(kind, text)[0] for text in words[:prompts]]
    extra = {
        name: torch.cat([more[name] for _, more in each]) if torch.is_tensor(value) else value
        for name, value in each[0][1].items()
    }
    positive = [[torch.cat([tensor for tensor, _ in each]), extra]]
    seen, expected, _ = shared_and_reference(demo, session, kind, batch, positive=positive)
    assert relative(seen, expected) < EQUAL
    one = sample(demo[kind], kind, cfg=1.0, latent=empty_latent(batch), positive=[each[0]])
    assert relative(expected, one) > 0.01, "the prompts make other pictures"


def test_one_picture_of_a_unet_is_not_divided(demo, session):
    watched = Watched(demo["unet"], session)
    seen = sample(watched.model, "unet", cfg=1.0)
    assert torch.equal(seen, sample(demo["unet"], "unet", cfg=1.0))
    assert kinds(watched.reports[0].steps) == "ssss"


def test_above_cfg_1_a_batch_goes_by_branch(demo, session):
    bring_up(session, demo[KIND])
    watched = Watched(demo[KIND], session)
    sample(watched.model, KIND, latent=empty_latent(4))
    assert kinds(watched.reports[0].steps) == "EEEE"


def test_a_worker_killed_in_mid_run_gives_the_same_bits(demo, session, partitioned, monkeypatch):
    settings = {"cfg": 1.0, "latent": empty_latent(3), "steps": 5}
    bring_up(session, demo[KIND])
    expected = sample(Watched(demo[KIND], session).model, KIND, **settings)
    post, steps = Host.post, []

    def deadly(self, asked, fields, *rest):
        number = post(self, asked, fields, *rest)
        if asked == "evaluate" and len(steps.append(number) or steps) == 3:
            os.kill(self.pid, signal.SIGKILL)
        return number

    monkeypatch.setattr(Host, "post", deadly)
    watched = Watched(demo[KIND], session)
    assert torch.equal(sample(watched.model, KIND, **settings), expected)
    assert kinds(watched.reports[0].steps) == "ddsss"
    (said,) = watched.announced
    assert "the other process is gone" in said
    monkeypatch.undo()
    next_run_works(session, demo[KIND], partitioned)


def test_contexts_are_sent_once(demo, session):
    bring_up(session, demo[KIND])
    watched = Watched(demo[KIND], session)
    sample(watched.model, KIND, cfg=1.0, latent=empty_latent(4), steps=8)
    (report,) = watched.reports
    picture = 48 * 16 * 16 * 4
    assert report.bytes_received <= (8 * 2 + 2) * picture, "two pictures a step"
    assert report.bytes_sent < 8 * 2 * picture + 400_000


def test_each_class_of_conditioning_is_cut_as_comfyui_repeats_it():
    two, five = torch.arange(2.0)[:, None], torch.arange(5.0)[:, None]
    one, mask = torch.ones(1, 3), torch.arange(4.0)[:, None, None]
    entry = {
        "uuid": 1, "mask": mask, "strength": 0.5,
        "model_conds": {
            "regular": comfy.conds.CONDRegular(two), "one": comfy.conds.CONDRegular(one),
            "noise": comfy.conds.CONDNoiseShape(five), "cross": comfy.conds.CONDCrossAttn(five),
            "constant": comfy.conds.CONDConstant(7), "list": comfy.conds.CONDList([two, one]),
        },
    }  # fmt: skip
    (none, (cut,)) = conds.of_pictures([None, [entry]], Pictures(1, 4, 4))
    made = cut["model_conds"]
    assert none is None and cut["strength"] == 0.5 and cut["mask"].flatten().tolist() == [1, 2, 3]
    assert made["regular"].cond.flatten().tolist() == [1, 0, 1]
    assert made["one"].cond is one and made["constant"].cond == 7
    assert made["noise"].cond.flatten().tolist() == [1, 2, 3]
    assert type(made["noise"]) is comfy.conds.CONDNoiseShape
    assert made["cross"].cond.flatten().tolist() == [1, 2, 3]
    assert made["list"].cond[0].flatten().tolist() == [1, 0, 1] and made["list"].cond[1] is one


def test_pictures_at_levels_of_their_own_go_together_where_prompts_have_a_schedule():
    x, equal, own = torch.zeros(2, 4, 8, 8), torch.tensor([5.0, 5.0]), torch.tensor([5.0, 4.0])
    plain, ending = [[{"uuid": 1}]], [[{"uuid": 1, "timestep_end": 4.5}]]
    seen = [
        ComfyCall(None, None, prompts, x, sigma, {}).pictures
        for prompts in (plain, ending) for sigma in (equal, own)
    ]  # fmt: skip
    assert seen == [2, 2, 2, 1]


def test_a_sampler_of_its_own_with_a_guider_is_divided(demo, session):
    bring_up(session, demo["unet"])
    watched = Watched(demo["unet"], session)
    sigmas = KSampler(demo["unet"], 5, demo["unet"].load_device, scheduler="normal").sigmas
    noise, empty = torch.randn(2, 48, 16, 16), torch.zeros(2, 48, 16, 16)
    results = []
    for model in (watched.model, demo["unet"]):
        made = guider(model, "unet", cfg=1.0)
        with torch.inference_mode():
            results.append(made.sample(noise, empty, sampler_object("euler"), sigmas, seed=3))
    assert kinds(watched.reports[0].steps) == "ddddd"
    assert relative(*results) < EQUAL

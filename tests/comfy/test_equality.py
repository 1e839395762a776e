"""mode off is KSampler bit for bit; mode exact equals it up to rounding of separate batches."""

from __future__ import annotations

import pytest
import torch
from comfy.samplers import KSAMPLER, KSampler, sampler_object
from helpers import Watched, bring_up, empty_latent, guider, quiet, relative, sample

from hybrid_core.comfy_bridge import demo_models
from hybrid_core.comfy_bridge.attach import attach
from hybrid_core.errors import ConfigError

SAMPLERS = [
    "euler", "euler_ancestral", "heun", "dpm_2", "dpmpp_2m",
    "dpmpp_sde", "dpmpp_2m_sde", "ddim", "uni_pc", "lcm",
]  # fmt: skip
SCHEDULERS = ["normal", "karras", "simple"]
TOLERANCE = 1e-4  # relative, fp32
KINDS = list(demo_models.KINDS)


def exact_and_reference(demo, session, kind, **settings):
    """Final latents of mode exact and of KSampler; every step of the first was shared."""
    model = demo[kind]
    bring_up(session, model)
    watched = Watched(model, session)
    seen = sample(watched.model, kind, **settings)
    assert watched.announced == []
    (report,) = watched.reports
    assert report.local == 0
    return seen, sample(model, kind, **settings), report


def pairs():
    """Every two of a sampler, a scheduler and a number of pictures."""
    for one, sampler in enumerate(SAMPLERS):
        for other, scheduler in enumerate(SCHEDULERS):
            yield sampler, scheduler, (1, 3)[(one + other) % 2]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("sampler", "scheduler", "batch"), pairs())
def test_exact_equals_ksampler(demo, session, kind, sampler, scheduler, batch):
    cfg = 7.0 if batch == 1 else 1.5
    seen, expected, report = exact_and_reference(
        demo,
        session,
        kind,
        sampler=sampler,
        scheduler=scheduler,
        cfg=cfg,
        latent=empty_latent(batch),
    )
    assert report.partitioned >= 4
    assert relative(seen, expected) < TOLERANCE


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_exact_at_cfg_1_is_ksampler_bit_for_bit_on_a_unet(demo, session, sampler):
    seen, expected, report = exact_and_reference(demo, session, "unet", sampler=sampler, cfg=1.0)
    assert report.partitioned == 0
    assert report.single >= 4
    assert torch.equal(seen, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_off_is_ksampler_bit_for_bit(demo, session, kind, sampler):
    off = attach(demo[kind], "off", quiet, session)
    assert torch.equal(
        sample(off, kind, sampler=sampler), sample(demo[kind], kind, sampler=sampler)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sampler", ["euler", "ddim", "dpmpp_2m"])
def test_exact_with_an_inpaint_mask_equals_ksampler(demo, session, kind, sampler):
    latent = {"samples": torch.randn(1, 48, 16, 16), "noise_mask": torch.zeros(1, 64, 64)}
    latent["noise_mask"][:, :, 32:] = 1.0
    seen, expected, report = exact_and_reference(
        demo, session, kind, sampler=sampler, latent=latent
    )
    assert report.partitioned == 4
    assert relative(seen, expected) < TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("start", "end", "full"), [(0, 3, False), (2, 6, True), (3, 10000, True)])
def test_a_part_of_the_steps_equals_ksampler(demo, session, kind, start, end, full):
    latent = {"samples": torch.randn(1, 48, 16, 16)}
    seen, expected, report = exact_and_reference(
        demo, session, kind, steps=6, latent=latent, start_step=start, last_step=end,
        force_full_denoise=full, disable_noise=start > 0,
    )  # fmt: skip
    assert report.partitioned == min(end, 6) - start
    assert relative(seen, expected) < TOLERANCE


def masked(cond, mask):
    return [[cond[0][0], {**cond[0][1], "mask": mask, "mask_strength": 0.8}]]


@pytest.mark.parametrize("kind", KINDS)
def test_two_masked_positives_against_one_negative_equal_ksampler(demo, session, kind):
    left = torch.zeros(1, 64, 64)
    left[:, :, :32] = 1.0
    positive = masked(demo_models.conditioning(kind, "red circle, sky"), left)
    positive += masked(demo_models.conditioning(kind, "green square, sand"), 1 - left)
    seen, expected, report = exact_and_reference(demo, session, kind, positive=positive)
    assert report.partitioned == 4
    assert relative(seen, expected) < TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_areas_and_timestep_ranges_equal_ksampler(demo, session, kind):
    whole = demo_models.conditioning(kind, "red circle")
    area = [[whole[0][0], {**whole[0][1], "area": (8, 8, 4, 4), "strength": 0.7}]]
    early = [[whole[0][0], {**whole[0][1], "start_percent": 0.0, "end_percent": 0.5}]]
    seen, expected, _ = exact_and_reference(
        demo, session, kind, positive=whole + area, negative=whole + early, steps=6
    )
    assert relative(seen, expected) < TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_custom_sampling_with_an_attached_model_is_shared(demo, session, kind):
    bring_up(session, demo[kind])
    watched = Watched(demo[kind], session)
    sigmas = KSampler(demo[kind], 5, demo[kind].load_device, scheduler="normal").sigmas
    noise, empty = torch.randn(2, 48, 16, 16), torch.zeros(2, 48, 16, 16)
    results = []
    for model in (watched.model, demo[kind]):
        sampler: KSAMPLER = sampler_object("dpmpp_2m")
        with torch.inference_mode():
            results.append(guider(model, kind).sample(noise, empty, sampler, sigmas, seed=3))
    assert watched.reports[0].partitioned == 5
    assert relative(*results) < TOLERANCE


def test_attaching_twice_replaces_the_first_attachment(demo, session):
    bring_up(session, demo["unet"])
    inner, outer = Watched(demo["unet"], session), None
    outer = Watched(inner.model, session)
    sample(outer.model, "unet")
    assert inner.reports == []
    assert outer.reports[0].partitioned == 4
    off = attach(outer.model, "off", quiet, session)
    assert torch.equal(sample(off, "unet"), sample(demo["unet"], "unet"))


def test_second_run_with_the_same_model_reloads_nothing(demo, session):
    bring_up(session, demo["unet"])
    holdings = session.holdings()
    pid, loads, epoch = holdings.worker.pid, holdings.loads, holdings.worker.epoch
    for seed in (1, 2):
        sample(Watched(demo["unet"], session).model, "unet", seed=seed)
    assert (holdings.worker.pid, holdings.loads, holdings.worker.epoch) == (pid, loads, epoch)


def test_unknown_mode_is_an_error_that_lists_the_modes(demo):
    expected = "mode is 'fast', expected one of adaptive, paper, exact, off"
    with pytest.raises(ConfigError, match=expected):
        attach(demo["unet"], "fast", quiet)

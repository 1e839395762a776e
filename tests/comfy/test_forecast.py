"""Forecast steps: where they run, what they give, on two devices and on one."""

from __future__ import annotations

import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from helpers import FORESEEN, Watched, bring_up, empty_latent, relative, sample

from hybrid_core.comfy_bridge import demo_models
from hybrid_core.telling.report import kinds

KINDS = list(demo_models.KINDS)
SETTINGS = {"steps": 12, "cfg": 2.0, "scheduler": "simple"}
CLOSE = 0.1  # relative, of latents that a fixed schedule is to leave alike


def foreseen(demo, session, kind, tuning=None, **settings):
    """Latents and report of a run, every evaluated step shared, and KSampler's latents."""
    bring_up(session, demo[kind])
    watched = Watched(demo[kind], session, "adaptive", **(tuning or FORESEEN))
    seen = sample(watched.model, kind, **{**SETTINGS, **settings})
    (report,) = watched.reports
    assert watched.announced == [] and report.local == 0 and report.reasons == []
    return seen, sample(demo[kind], kind, **{**SETTINGS, **settings}), report


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("sampler", ["euler", "ddim", "dpmpp_2m", "res_multistep", "deis"])
def test_samplers_of_one_call_a_step(demo, session, kind, sampler, batch):
    seen, expected, report = foreseen(
        demo, session, kind, sampler=sampler, latent=empty_latent(batch)
    )
    assert kinds(report.steps) == "EEEFEFFEFEEE"
    assert 1e-4 < relative(seen, expected) < CLOSE
    assert (report.partitioned, report.forecast) == (8, 4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sampler", ["heun", "dpm_2", "exp_heun_2_x0"])
def test_samplers_of_two_calls_a_step(demo, session, kind, sampler):
    seen, expected, report = foreseen(demo, session, kind, sampler=sampler, steps=10)
    assert report.forecast >= 6 and report.forecast + report.partitioned == 19
    assert relative(seen, expected) < CLOSE


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sampler", ["euler_cfg_pp", "dpmpp_2m_cfg_pp", "res_multistep_cfg_pp"])
def test_samplers_that_take_the_uncond_branch_by_itself(demo, session, kind, sampler):
    tuning = {"tolerance": 0.03, "kinds": FORESEEN["kinds"]}
    seen, expected, report = foreseen(
        demo, session, kind, tuning, sampler=sampler, steps=24, cfg=1.5
    )
    assert report.forecast >= 1
    assert relative(seen, expected) < CLOSE


def wrapped(model):
    """As another pack does it, and nothing comes of it but that the run stays here."""
    clone = model.clone()
    clone.set_model_unet_function_wrapper(
        lambda apply, given: apply(given["input"], given["timestep"], **given["c"])
    )
    return clone


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cfg", [1.0, 2.0])
def test_a_run_that_stays_here_is_forecast_too(demo, session, kind, cfg):
    model = wrapped(demo[kind])
    watched = Watched(model, session, "adaptive", **FORESEEN)
    seen = sample(watched.model, kind, **{**SETTINGS, "cfg": cfg})
    (report,) = watched.reports
    assert kinds(report.steps).replace("L", "E").replace("s", "E") == "EEEFEFFEFEEE"
    assert report.partitioned == 0 and report.ideal == pytest.approx(12 / 8)
    assert 1e-4 < relative(seen, sample(demo[kind], kind, **{**SETTINGS, "cfg": cfg})) < CLOSE
    (said,) = watched.announced
    assert said.startswith("on one device") and "wraps the model function" in said


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_stays_here_at_no_tolerance_is_ksamplers(demo, session, kind):
    model = wrapped(demo[kind])
    watched = Watched(model, session, "adaptive", tolerance=0.0)
    seen = sample(watched.model, kind, **SETTINGS)
    assert torch.equal(seen, sample(demo[kind], kind, **SETTINGS))


@pytest.mark.parametrize("kind", KINDS)
def test_inpainting(demo, session, kind):
    latent = {"samples": torch.randn(1, 48, 16, 16), "noise_mask": torch.zeros(1, 64, 64)}
    latent["noise_mask"][:, :, 32:] = 1.0
    seen, expected, report = foreseen(demo, session, kind, latent=latent)
    assert report.forecast >= 4
    assert relative(seen, expected) < CLOSE
    assert torch.allclose(seen[..., :8], latent["samples"][..., :8], atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_guidance_functions_have_their_say_in_every_step(demo, session, kind):
    """RescaleCFG and the like: what the sampler gets is not the plain sum of the branches."""
    calls, images = [], []

    def rescaled(args):
        calls.append(1)
        plain = args["uncond"] + args["cond_scale"] * (args["cond"] - args["uncond"])
        return plain * (args["cond"].std() / plain.std())

    bring_up(session, demo[kind])
    for attached in (True, False):
        model = demo[kind].clone()
        model.set_model_sampler_cfg_function(rescaled)
        if attached:
            watched = Watched(model, session, "adaptive", **FORESEEN)
            model = watched.model
        images.append(sample(model, kind, **SETTINGS))
    (report,) = watched.reports
    assert kinds(report.steps) == "EEEFEFFEFEEE" and len(calls) == 24
    assert 1e-4 < relative(*images) < CLOSE


@pytest.mark.parametrize("cfg", [5.0, 1.0])
def test_further_evaluations_are_made_in_every_step(demo, session, cfg):
    """PAG evaluates the cond branch once more, with attention that sees nothing."""
    kind, images = "unet", []
    bring_up(session, demo[kind])
    watched = Watched(demo[kind], session, "adaptive", **FORESEEN)
    for model in (watched.model, demo[kind]):
        guided = PerturbedAttentionGuidance.execute(model, 1.0).result[0]
        images.append(sample(guided, kind, **{**SETTINGS, "cfg": cfg}))
    steps = watched.reports[0].steps
    main, more = steps[::2], steps[1::2]
    assert kinds(more) == "s" * 12 and kinds(main).count("F") >= 4
    assert relative(*images) < CLOSE


@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_not_foreseen(demo, session, kind):
    bring_up(session, demo[kind])
    watched = Watched(demo[kind], session, "adaptive", **FORESEEN)
    sample(watched.model, kind, **{**SETTINGS, "sampler": "euler_ancestral"})
    assert watched.reports[0].forecast == 0
    assert "adds noise" in watched.reports[0].unshortened


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_of_a_schedule(demo, session, kind):
    """SplitSigmas, KSampler (Advanced): each part begins and ends exact."""
    bring_up(session, demo[kind])
    watched, images = Watched(demo[kind], session, "adaptive", **FORESEEN), []
    for model in (watched.model, demo[kind]):
        first = sample(model, kind, **SETTINGS, last_step=6)
        images.append(
            sample(
                model, kind, **SETTINGS, start_step=6, latent={"samples": first}, disable_noise=True
            )
        )
    assert all(kinds(r.steps)[:3] == "EEE" == kinds(r.steps)[-3:] for r in watched.reports)
    assert relative(*images) < CLOSE


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", range(1, 13))
def test_few_steps(demo, session, kind, steps):
    seen, expected, report = foreseen(demo, session, kind, {"tolerance": 0.01}, steps=steps)
    assert report.partitioned + report.forecast + report.pipelined == steps
    assert relative(seen, expected) < CLOSE


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_run_gives_the_same_bits(demo, session, kind):
    first, _, _ = foreseen(demo, session, kind)
    again, _, _ = foreseen(demo, session, kind)
    assert torch.equal(first, again)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_neighbours_in_a_schedule(demo, session, kind):
    """A pack's own schedule, or a short denoise on a model of few noise levels."""
    bring_up(session, demo[kind])
    watched, images = Watched(demo[kind], session, "adaptive", **FORESEEN), []
    sigmas = comfy.samplers.KSampler(demo[kind], 14, torch.device("cpu"), "euler", "simple").sigmas
    sigmas[6] = sigmas[5]
    for model in (watched.model, demo[kind]):
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(*(demo_models.conditioning(kind, words) for words in ("red", "blue")))
        guider.set_cfg(2.0)
        noise = torch.randn(1, 48, 16, 16, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            images.append(
                guider.sample(
                    noise,
                    torch.zeros_like(noise),
                    comfy.samplers.sampler_object("euler"),
                    sigmas,
                    seed=1,
                )
            )
    assert watched.reports[0].forecast >= 3
    assert relative(*images) < CLOSE

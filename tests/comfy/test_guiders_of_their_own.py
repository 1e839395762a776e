"""Guiders and samplers that make more of the model than its prompts' predictions at one scale."""

from __future__ import annotations

from itertools import pairwise

import comfy.sampler_helpers
import comfy.samplers
import pytest
import torch
from comfy_extras import nodes_custom_sampler
from helpers import FORESEEN, Watched, bring_up, guider, relative, sample

from hybrid_core.comfy_bridge import demo_models
from hybrid_core.telling.report import kinds

EQUAL = 1e-4
POSITIVE, NEGATIVE = "cat, noto, sky background", "blue, sand"


@pytest.fixture(scope="module")
def weaker():
    """Another model beside the run's."""
    made = demo_models.load_model("unet")
    with torch.no_grad():
        for weight in made.model.diffusion_model.parameters():
            weight.mul_(0.97)
    return made


class OneByOne(comfy.samplers.CFGGuider):
    """Never told a cfg: it joins what it has evaluated by its own."""

    def predict_noise(self, x, timestep, model_options={}, seed=None):  # noqa: B006  ComfyUI's
        cond, uncond = (
            comfy.samplers.calc_cond_batch(
                self.inner_model, [self.conds[name]], x, timestep, model_options
            )[0]
            for name in ("positive", "negative")
        )
        return uncond + 7.0 * (cond - uncond)


class Guided(comfy.samplers.CFGGuider):
    """Away from what a weaker model predicts, both prompts of both."""

    def outer_sample(self, noise, *args, **kwargs):
        conds = {name: [entry.copy() for entry in some] for name, some in self.conds.items()}
        self.other, self.others, _ = comfy.sampler_helpers.prepare_sampling(
            self.weaker, noise.shape, conds, self.weaker.model_options
        )
        self.weaker.pre_run()
        return super().outer_sample(noise, *args, **kwargs)

    def predict_noise(self, x, timestep, model_options={}, seed=None):  # noqa: B006  ComfyUI's
        good, bad = (
            comfy.samplers.sampling_function(
                model, x, timestep, self.conds["negative"], self.conds["positive"], self.cfg,
                model_options=model_options, seed=seed,
            )
            for model in (self.inner_model, self.other)
        )  # fmt: skip
        return good + 0.7 * (good - bad)


def away_from(weaker, cfg):
    def made(model):
        one = Guided(model)
        one.original_conds, one.weaker = guider(model, "unet").original_conds, weaker
        one.set_cfg(cfg)
        return one

    return made


def one_by_one(model):
    made = OneByOne(model)
    made.original_conds = guider(model, "unet").original_conds
    return made


def both(demo, session, make, mode, batch=1, steps=8):
    """The run's report, and the latents with and without it."""
    bring_up(session, demo["unet"])
    watched, made = Watched(demo["unet"], session, mode, **FORESEEN), []
    noise = torch.randn(batch, 48, 16, 16, generator=torch.Generator().manual_seed(1))
    sigmas = comfy.samplers.KSampler(
        demo["unet"], steps, torch.device("cpu"), "euler", "normal"
    ).sigmas
    for model in (watched.model, demo["unet"]):
        with torch.inference_mode():
            made.append(
                make(model).sample(
                    noise, torch.zeros_like(noise), comfy.samplers.sampler_object("euler"), sigmas,
                    seed=1,
                )
            )  # fmt: skip
    return watched.reports[0], *made


@pytest.mark.skipif(
    not hasattr(nodes_custom_sampler, "DualModelGuider"), reason="this ComfyUI has no such node"
)
@pytest.mark.parametrize("mode", ["exact", "adaptive"])
def test_the_negative_prompt_of_another_model(demo, session, weaker, mode):
    positive, negative = (demo_models.conditioning("unet", text) for text in (POSITIVE, NEGATIVE))

    def make(model):
        node = nodes_custom_sampler.DualModelGuider
        return node.execute(model, positive, 4.0, weaker, negative).result[0]

    report, seen, expected = both(demo, session, make, mode, batch=2, steps=4)
    assert relative(seen, expected) < EQUAL
    assert any("a second model" in reason for reason in report.reasons)


@pytest.mark.parametrize(("mode", "cfg"), [("exact", 4.0), ("adaptive", 4.0), ("adaptive", 1.0)])
def test_both_prompts_of_another_model_too(demo, session, weaker, mode, cfg):
    report, seen, expected = both(demo, session, away_from(weaker, cfg), mode)
    assert relative(seen, expected) < EQUAL and report.forecast == 0
    (reason,) = report.reasons
    assert "a second model" in reason
    assert report.partitioned == (8 if cfg > 1 else 0)


def test_prompts_that_are_joined_by_an_unknown_scale_are_not_foreseen(demo, session):
    report, seen, expected = both(demo, session, one_by_one, "adaptive")
    assert relative(seen, expected) < EQUAL
    assert kinds(report.steps) == "s" * 16 and report.reasons == []
    assert "does not say how it joins them" in report.unshortened


def towards(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Euler's method, with each prediction moved against the gradient of a loss on it."""
    for sigma, following in pairwise(sigmas):
        with torch.enable_grad():
            at = x.detach().requires_grad_(True)
            denoised = model(at, sigma.expand(len(x)), **extra_args)
            (slope,) = torch.autograd.grad(((denoised - 0.7) ** 2).mean(), at)
        x = x + (x - denoised.detach() + 200.0 * slope) / sigma * (following - sigma)
    return x


@pytest.mark.parametrize("batch", [1, 2])
def test_a_sampler_that_asks_for_gradients(demo, session, batch):
    bring_up(session, demo["unet"])
    model = demo_models.load_model("unet")
    watched, made = Watched(model, session), []
    noise = torch.randn(batch, 48, 16, 16, generator=torch.Generator().manual_seed(1))
    for one in (watched.model, model):
        run = guider(one, "unet", 1.0 if batch > 1 else 5.0)
        sampler = comfy.samplers.KSAMPLER(towards)
        sigmas = torch.linspace(10, 0, 5)
        made.append(run.sample(noise, torch.zeros_like(noise), sampler, sigmas, seed=1).detach())
    assert torch.equal(*made)
    (reason,) = watched.reports[0].reasons
    assert "asks for gradients" in reason


def test_autocast_is_not_known_to_the_second_process(demo, session):
    bring_up(session, demo["mmdit"])
    watched = Watched(demo["mmdit"], session)
    sample(watched.model, "mmdit")
    with torch.autocast("cpu", torch.bfloat16):
        seen, expected = (sample(model, "mmdit") for model in (watched.model, demo["mmdit"]))
    assert torch.equal(seen, expected)
    assert relative(seen, sample(demo["mmdit"], "mmdit")) > 1e-3
    assert watched.reports[0].partitioned == 4
    (reason,) = watched.reports[1].reasons
    assert "torch.autocast is on" in reason

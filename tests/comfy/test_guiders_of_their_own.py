"""Guiders that evaluate another model too, or join their prompts by a scale of their own."""

from __future__ import annotations

import comfy.sampler_helpers
import comfy.samplers
import pytest
import torch
from comfy_extras import nodes_custom_sampler
from helpers import FORESEEN, Watched, bring_up, guider, relative

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

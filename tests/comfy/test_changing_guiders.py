"""Guiders that change prompts or cfg in mid-run: no step is foreseen across the change."""

from __future__ import annotations

import comfy.conds
import comfy.controlnet
import comfy.samplers
import pytest
import torch
from comfy_extras import nodes_custom_sampler
from helpers import FORESEEN, Watched, bring_up, guider, relative, sample

from hybrid_core.comfy_bridge import demo_models
from hybrid_core.comfy_bridge.call import ComfyCall
from hybrid_core.telling.report import kinds

STEPS, CHANGED = 12, 6  # the first call that is another
CLOSE = 0.1  # relative


class Later(comfy.samplers.CFGGuider):
    """From CHANGED on with the positive prompt or the cfg of `later`."""

    def set_later(self, positive=None, cfg=None):
        self.calls, self.later_cfg = 0, cfg
        if positive is not None:
            self.inner_set_conds({"later": positive})

    def predict_noise(self, x, timestep, model_options={}, seed=None):  # noqa: B006  ComfyUI's
        changed, self.calls = self.calls >= CHANGED, self.calls + 1
        key = "later" if changed and "later" in self.conds else "positive"
        cfg = self.later_cfg if changed and self.later_cfg is not None else self.cfg
        return comfy.samplers.sampling_function(
            self.inner_model, x, timestep, self.conds["negative"], self.conds[key], cfg,
            model_options=model_options, seed=seed,
        )  # fmt: skip


def images(demo, session, **later):
    """Kinds of the steps, and the images with and without forecasts."""
    bring_up(session, demo["mmdit"])
    watched, made = Watched(demo["mmdit"], session, "adaptive", **FORESEEN), []
    noise = torch.randn(1, 48, 16, 16, generator=torch.Generator().manual_seed(1))
    sigmas = comfy.samplers.KSampler(
        demo["mmdit"], STEPS, torch.device("cpu"), "euler", "simple"
    ).sigmas
    for model in (watched.model, demo["mmdit"]):
        changing = Later(model)
        changing.original_conds = guider(model, "mmdit").original_conds
        changing.set_cfg(2.0)
        changing.set_later(**later)
        with torch.inference_mode():
            made.append(
                changing.sample(
                    noise, torch.zeros_like(noise), comfy.samplers.sampler_object("euler"), sigmas,
                    seed=1,
                )
            )  # fmt: skip
    return kinds(watched.reports[0].steps), *made


def test_another_prompt_is_followed_at_once(demo, session):
    other = demo_models.conditioning("mmdit", "green square, forest")
    steps, seen, expected = images(demo, session, positive=other)
    assert steps == "EEEFEF" + "EEEEEE"
    assert 0 < relative(seen, expected) < CLOSE


def test_a_cfg_that_a_guider_names_nowhere_is_followed_when_it_has_shown(demo, session):
    steps, seen, expected = images(demo, session, cfg=4.0)
    assert steps == "EEEFEFF" + "EEEEE"
    assert 0 < relative(seen, expected) < CLOSE


@pytest.mark.skipif(
    not hasattr(nodes_custom_sampler, "CFGOverride"), reason="this ComfyUI has no CFGOverride"
)
def test_cfg_override_is_followed_and_weighed(demo, session):
    """Nothing may be foreseen at its cfg, nearly all at the run's own."""
    bring_up(session, demo["mmdit"])
    watched, made = Watched(demo["mmdit"], session, "adaptive", tolerance=0.03), []
    for model in (watched.model, demo["mmdit"]):
        model = nodes_custom_sampler.CFGOverride.execute(model, 8.0, 0.4, 1.0).result[0]
        made.append(sample(model, "mmdit", steps=20, cfg=1.1))
    steps, schedule = kinds(watched.reports[0].steps), watched.reports[0].steps
    changed = next(i for i, step in enumerate(schedule) if step.sigma <= schedule[0].sigma * 0.6)
    assert "F" in steps[:changed] and steps[changed:] == "E" * (20 - changed)
    assert relative(*made) < 0.02


class Shift(comfy.controlnet.ControlBase):
    """A ControlNet that adds a number."""

    def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
        start, end = self.timestep_range
        if not end <= t[0] <= start:
            return None
        added = torch.full((1, 1, 1, 1), 0.3)
        return {"middle": [added], "input": [], "output": []}

    def copy(self):
        made = Shift()
        self.copy_to(made)
        return made

    def get_models(self):
        return []


@pytest.mark.parametrize(("end", "expected"), [(1.0, "EEEFEFFEFEEE"), (0.7, "EEEFEFFEEEEE")])
def test_a_controlnet_that_ends_is_followed(demo, session, end, expected):
    ((words, options),) = demo_models.conditioning("unet", "cat, noto, sky background")
    control = Shift().set_cond_hint(torch.zeros(1, 3, 8, 8), 1.0, (0.0, end))
    control.previous_controlnet = Shift().set_cond_hint(torch.zeros(1, 3, 8, 8), 1.0)
    positive = [[words, options | {"control": control, "control_apply_to_uncond": True}]]
    watched, made = Watched(demo["unet"], session, "adaptive", **FORESEEN), []
    for model in (watched.model, demo["unet"]):
        made.append(sample(model, "unet", steps=12, cfg=2.0, positive=positive))
    assert kinds(watched.reports[0].steps).replace("L", "E") == expected
    assert 0 < relative(*made) < CLOSE


def prompts(*entries):
    x, sigma = torch.zeros(1, 4, 8, 8), torch.ones(1)
    return ComfyCall(None, None, [list(entries), None], x, sigma, {}).prompts


def test_prompts_are_the_same_while_they_say_the_same():
    words = torch.ones(1, 3, 8)
    entry = {"model_conds": {"c_crossattn": comfy.conds.CONDCrossAttn(words)}, "uuid": 1}
    again = {"model_conds": {"c_crossattn": comfy.conds.CONDCrossAttn(words.clone())}}
    assert prompts(entry) == prompts(again)
    blended = {"model_conds": {"c_crossattn": comfy.conds.CONDCrossAttn(words * 0.9)}, "uuid": 1}
    assert prompts(entry) != prompts(blended)
    assert prompts(entry) != prompts({**entry, "strength": 0.5}) != prompts(entry, entry)
    before, entry["strength"] = prompts(entry), 0.5
    assert before != prompts(entry), "a prompt that is changed in place"

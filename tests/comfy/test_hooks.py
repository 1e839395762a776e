"""A LoRA or a model's weights bound to a prompt: shared, and KSampler's image."""

from __future__ import annotations

import time

import comfy.hooks
import pytest
import torch
from helpers import FORESEEN, NEGATIVE, POSITIVE, Watched, bring_up, relative, sample
from loras import lora

from hybrid_core.comfy_bridge import demo_models

STEPS = 5
TOLERANCE = 1e-4


def bound(network, seed, *keyframes):
    """A hook with a LoRA; keyframes: (from which part of the run, strength, steps it lasts)."""
    made = comfy.hooks.create_hook_lora(lora(network, seed=seed), 1.0, 0.0)
    if keyframes:
        group = comfy.hooks.HookKeyframeGroup()
        for start, strength, steps in keyframes:
            group.add(comfy.hooks.HookKeyframe(strength, start, steps))
        made.set_keyframes_on_hooks(group)
    return made


def weights_of(network):
    """A hook with another model's weights in place of a LoRA."""
    state = comfy.hooks.get_patch_weights_from_model(network)
    other = {name: weight * 1.05 for name, weight in state.items() if "to_q" in name}
    return comfy.hooks.create_hook_model_as_lora(other, None, 0.5, 0.0)


def prompt(text, hooks=None, **extra):
    ((vectors, data),) = demo_models.conditioning("unet", text)
    if hooks is not None:
        extra["hooks"] = hooks
    return [[vectors, {**data, **extra}]]


def changing(network):
    return bound(network, 2, (0.0, 0.2, 1), (0.3, 1.0, 2), (0.6, -0.5, 1))


# positive and negative of a run
PROMPTS = {
    "on the positive prompt": lambda m: (prompt(POSITIVE, bound(m, 1)), prompt(NEGATIVE)),
    "with keyframes on the negative prompt": lambda m: (
        prompt(POSITIVE),
        prompt(NEGATIVE, changing(m)),
    ),
    "another on each, with keyframes": lambda m: (
        prompt(POSITIVE, bound(m, 1)),
        prompt(NEGATIVE, changing(m)),
    ),
    "two in one prompt, by time and area": lambda m: (
        prompt(POSITIVE, bound(m, 1), end_percent=0.5)
        + prompt("red", weights_of(m), area=(8, 8, 4, 4), strength=0.7),
        prompt(NEGATIVE),
    ),
}


def shared(network, session, **given):
    """Latents of the first run that is shared from its first step on."""
    watched, deadline = Watched(network, session), time.monotonic() + 60
    while time.monotonic() < deadline:
        seen = sample(watched.model, "unet", steps=STEPS, **given)
        if watched.reports[-1].partitioned == STEPS:
            return seen
        time.sleep(0.5)
    raise AssertionError(watched.reports[-1].line())


@pytest.mark.parametrize("name", PROMPTS)
def test_hooks_are_shared(demo, session, name):
    network = demo["unet"]
    bring_up(session, network)
    positive, negative = PROMPTS[name](network)
    given = {"positive": positive, "negative": negative}
    expected = sample(network, "unet", steps=STEPS, **given)
    assert relative(shared(network, session, **given), expected) < TOLERANCE
    plain = sample(
        network, "unet", steps=STEPS, positive=prompt(POSITIVE), negative=prompt(NEGATIVE)
    )
    assert relative(plain, expected) > 1e-3


def test_a_model_with_and_without_hooks_in_turn(demo, session):
    network = demo["unet"]
    positive = prompt(POSITIVE, bound(network, 3))
    for given in ({"positive": positive}, {}, {"positive": positive}):
        expected = sample(network, "unet", steps=STEPS, **given)
        assert relative(shared(network, session, **given), expected) < TOLERANCE


def test_keyframes_count_foreseen_steps(demo, session):
    network = demo["unet"]
    bring_up(session, network)
    ends = []
    for watched in (Watched(network, session, "adaptive", **FORESEEN), None):
        hooks = bound(network, 4, (0.0, 1.0, 1), (0.2, 0.5, 9), (0.3, 0.0, 1))
        model = network if watched is None else watched.model
        sample(model, "unet", positive=prompt(POSITIVE, hooks), steps=12)
        keyframes = hooks.hooks[0].hook_keyframe
        ends.append((keyframes._current_index, keyframes._current_used_steps))
        if watched is not None:
            assert watched.reports[-1].forecast
    assert ends[0] == ends[1]


def test_a_hook_with_code_is_local_and_says_so(demo, session):
    network = demo["unet"]
    group = comfy.hooks.HookGroup()
    group.add(
        comfy.hooks.TransformerOptionsHook(
            {"patches": {"attn1_patch": [lambda q, k, v, extra_options: (q * 0.5, k, v)]}},
            comfy.hooks.EnumHookScope.HookedOnly,
        )
    )
    watched = Watched(network, session)
    positive = prompt(POSITIVE, group)
    seen = sample(watched.model, "unet", positive=positive)
    assert torch.equal(seen, sample(network, "unet", positive=positive))
    assert "code of another pack (TransformerOptionsHook)" in watched.announced[0]

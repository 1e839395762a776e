"""One picture at cfg 1 is divided by tokens, and is KSampler's."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from comfy_extras import nodes_custom_sampler
from helpers import FORESEEN, Watched, bring_up, relative, sample
from loras import with_lora

from hybrid_core.driver import tokens
from hybrid_core.telling.report import kinds
from hybrid_core.transport.exchange import Exchange

EQUAL = 1e-5  # relative, fp32
CLOSE = 0.1  # with steps that are foreseen
KIND = "mmdit"
SAMPLERS = [
    "euler", "euler_ancestral", "heun", "dpm_2", "dpmpp_2m",
    "dpmpp_sde", "dpmpp_2m_sde", "ddim", "uni_pc", "lcm",
]  # fmt: skip


@pytest.fixture(autouse=True)
def whatever_it_costs(monkeypatch):
    """A small model's tokens may not pay on a busy machine: that decides nothing here."""
    monkeypatch.setattr(tokens, "TRIES", 10**6)


def shared_and_reference(model, session, **settings):
    """Final latents of a run whose every evaluation was shared, and of KSampler."""
    bring_up(session, model)
    watched = Watched(model, session)
    settings = {"cfg": 1.0, **settings}
    seen = sample(watched.model, KIND, **settings)
    (report,) = watched.reports
    assert kinds(report.steps) == "d" * len(report.steps) and report.reasons == []
    assert all(step.divides == "tokens" and step.gathers > 0 for step in report.steps)
    return seen, sample(model, KIND, **settings), report


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_one_picture_equals_ksampler(demo, session, sampler):
    seen, expected, report = shared_and_reference(demo[KIND], session, sampler=sampler)
    assert report.divided >= 4 and relative(seen, expected) < EQUAL


@pytest.mark.parametrize("steps", [1, 8, 20])
def test_runs_of_any_length_equal_ksampler(demo, session, steps):
    seen, expected, _ = shared_and_reference(demo[KIND], session, steps=steps)
    assert relative(seen, expected) < EQUAL


def test_a_lora_and_an_inpaint_mask_equal_ksampler(demo, session):
    latent = {"samples": torch.randn(1, 48, 16, 16), "noise_mask": torch.zeros(1, 64, 64)}
    latent["noise_mask"][:, :, 32:] = 1.0
    model = with_lora(demo[KIND])
    seen, expected, _ = shared_and_reference(model, session, latent=latent)
    assert relative(seen, expected) < EQUAL


def test_only_what_the_other_process_misses_is_sent(demo, session):
    shared_and_reference(demo[KIND], session)
    _, _, report = shared_and_reference(demo[KIND], session)
    step = report.steps[-1]
    network = demo[KIND].model.diffusion_model
    blocks, width, count = len(network.joint_blocks), network.hidden_size, 64 + 11
    keys_and_values = 2 * blocks * width * count * 4
    assert not step.compared
    assert keys_and_values <= step.gathered_bytes <= keys_and_values + width * count * 4


def test_a_worker_killed_inside_a_gather_gives_the_same_image(demo, session, monkeypatch):
    bring_up(session, demo[KIND])
    expected = sample(Watched(demo[KIND], session).model, KIND, cfg=1.0, steps=6)
    swap, asked = Exchange.swap, []

    def deadly(self, at, mine, wanted):
        asked.append(at)
        if len(asked) == 20:
            os.kill(session.worker.pid, signal.SIGKILL)
        return swap(self, at, mine, wanted)

    monkeypatch.setattr(Exchange, "swap", deadly)
    watched = Watched(demo[KIND], session)
    seen = sample(watched.model, KIND, cfg=1.0, steps=6)
    (report,) = watched.reports
    assert relative(seen, expected) < EQUAL
    assert kinds(report.steps).strip("d") == kinds(report.steps).lstrip("d") != ""
    assert "the other process is gone" in watched.announced[0]
    monkeypatch.undo()
    bring_up(session, demo[KIND])


@pytest.mark.parametrize("sampler", ["euler_ancestral", "heun"])
def test_steps_without_a_negative_prompt_equal_ksampler(demo, session, sampler):
    """Noise and two evaluations a step; cfg is 1 in the middle of the run."""
    if not hasattr(nodes_custom_sampler, "CFGOverride"):
        pytest.skip("this ComfyUI has no CFGOverride")
    settings = {"sampler": sampler, "steps": 8}
    bring_up(session, demo[KIND])
    watched, images = Watched(demo[KIND], session), []
    for model in (watched.model, demo[KIND]):
        overridden = nodes_custom_sampler.CFGOverride.execute(model, 1.0, 0.3, 0.8).result[0]
        images.append(sample(overridden, KIND, **settings))
    (report,) = watched.reports
    assert set(kinds(report.steps)) == {"E", "d"} and report.reasons == []
    assert report.by_tokens and all(step.gathers for step in report.by_tokens)
    assert relative(*images) < EQUAL


def test_mode_adaptive_divides_what_it_does_not_foresee(demo, session):
    bring_up(session, demo[KIND])
    watched = Watched(demo[KIND], session, "adaptive", **FORESEEN)
    settings = {"cfg": 1.0, "steps": 12, "scheduler": "simple"}
    seen = sample(watched.model, KIND, **settings)
    (report,) = watched.reports
    assert kinds(report.steps) == "dddFdFFdFddd" and report.reasons == []
    assert EQUAL < relative(seen, sample(demo[KIND], KIND, **settings)) < CLOSE

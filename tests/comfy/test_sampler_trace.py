"""ComfyUI's samplers as matrices, against what they really do with a network that is not linear."""

from __future__ import annotations

import gc
import weakref

import comfy.k_diffusion.sampling
import comfy.samplers
import pytest
import torch

from hybrid_core.comfy_bridge import sampler_trace
from hybrid_core.comfy_bridge.sampler_trace import matrix
from hybrid_core.errors import NotLinear

CFG = 5.0
REFUSED = {"dpm_adaptive"}  # chooses its steps by what it sees


class Watched:
    """A guider with branches by formula, and what a sampler asked of it."""

    def __init__(self, patcher):
        self.model_patcher, self.inner_model, self.cfg = patcher, patcher.model, CFG
        self.latents, self.sigmas, self.denoised, self.uncond = [], [], [], []

    def __call__(self, x, sigma, model_options, seed=None):
        level = float(sigma[0])
        cond = torch.tanh(x / (1 + level)) * 0.7 + 0.1 * torch.sin(3 * x)
        uncond = cond * 0.8 + 0.05 * torch.cos(x)
        self.latents.append(x.clone())
        self.sigmas.append(level)
        self.uncond.append(uncond)
        self.denoised.append(
            comfy.samplers.cfg_function(
                self.inner_model, cond, uncond, CFG, x, sigma, model_options=model_options
            )
        )
        return self.denoised[-1]


@pytest.fixture(params=["mmdit", "unet"])
def patcher(request, demo):
    return demo[request.param]


def schedule(patcher, sampler, steps=12):
    return comfy.samplers.KSampler(patcher, steps, torch.device("cpu"), sampler, "normal").sigmas


def run(patcher, name, sigmas):
    """What a run drew and asked for, and the first and final latents."""
    watched, noises = Watched(patcher), []
    sampler = comfy.samplers.sampler_object(name)
    options = {}
    if sampler_trace.takes_noise(sampler.sampler_function):
        generator = torch.Generator().manual_seed(3)

        def noise(sigma, after):
            noises.append(torch.randn(2, 4, 6, 6, generator=generator))
            return noises[-1]

        options["noise_sampler"] = noise
    first = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(1)) * sigmas[0]
    model = comfy.samplers.KSamplerX0Inpaint(watched, sigmas)
    final = sampler.sampler_function(
        model, first, sigmas, extra_args={"denoise_mask": None, "model_options": {}, "seed": 1},
        callback=lambda _: None, disable=True, **options,
    )  # fmt: skip
    return watched, noises, first, final


@pytest.mark.parametrize("name", [n for n in comfy.samplers.SAMPLER_NAMES if n not in REFUSED])
def test_a_samplers_latents_are_the_sums_that_its_matrix_says(patcher, name):
    sigmas = schedule(patcher, name)
    found = matrix(comfy.samplers.sampler_object(name), Watched(patcher), sigmas)
    watched, noises, first, final = run(patcher, name, sigmas)
    assert found.sigmas == pytest.approx(watched.sigmas, rel=1e-6)
    assert len(found.drawn) == len(noises)
    parts = torch.stack([first, *watched.denoised, *watched.uncond, *noises]).double()
    sums = torch.tensordot(found.rows, parts, dims=1)
    for seen, foreseen in zip([*watched.latents, final], sums, strict=True):
        assert float((seen - foreseen).abs().max()) <= 1e-4 * float(seen.abs().max())
    for start in range(1, found.calls):
        terms = found.between(start, start + 1)
        ahead = terms.latent * watched.latents[start].double()
        for weights, values in (
            (terms.denoised, watched.denoised), (terms.uncond, watched.uncond),
            (terms.noises, noises),
        ):  # fmt: skip
            ahead = sum((weight * values[j] for j, weight in weights.items()), ahead)
        seen = [*watched.latents, final][start + 1]
        assert float((seen - ahead).abs().max()) <= 1e-4 * float(seen.abs().max())


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_sampler_that_acts_on_what_it_sees_is_refused(patcher, name):
    with pytest.raises(NotLinear):
        matrix(comfy.samplers.sampler_object(name), Watched(patcher), schedule(patcher, name))


def test_options_that_draw_noise_by_themselves_are_refused(patcher):
    churned = comfy.samplers.ksampler("euler", {"s_churn": 5.0})
    with pytest.raises(NotLinear):
        matrix(churned, Watched(patcher), schedule(patcher, "euler"))


def test_a_matrix_is_traced_once(patcher, monkeypatch):
    sigmas = schedule(patcher, "dpmpp_2m", 17)
    first = matrix(comfy.samplers.sampler_object("dpmpp_2m"), Watched(patcher), sigmas)
    monkeypatch.setattr(sampler_trace, "trace", None)
    again = matrix(comfy.samplers.sampler_object("dpmpp_2m"), Watched(patcher), sigmas)
    assert again is first


def test_a_samplers_closure_is_not_kept_alive(patcher):
    held = torch.zeros(1)

    def closure(model, x, sigmas, extra_args, callback, disable):
        return comfy.k_diffusion.sampling.sample_euler(
            model, x, sigmas, extra_args=extra_args, callback=callback, disable=bool(len(held))
        )

    sampler, gone = comfy.samplers.KSAMPLER(closure), weakref.ref(closure)
    matrix(sampler, Watched(patcher), schedule(patcher, "euler"))
    del closure, sampler
    gc.collect()
    assert gone() is None


def test_a_sampler_that_is_none_of_comfyuis_is_refused(patcher):
    class Other(comfy.samplers.Sampler):
        pass

    with pytest.raises(NotLinear, match="Other"):
        matrix(Other(), Watched(patcher), schedule(patcher, "euler"))


def test_another_packs_sampler_that_fails_on_small_latents_is_refused(patcher):
    def sampler(model, x, sigmas, extra_args, callback, disable):
        if x.shape[-1] % 8 or x.shape[1] != 4:
            raise ValueError("latents of four channels, please")
        return x

    with pytest.raises(NotLinear, match="four channels"):
        matrix(comfy.samplers.KSAMPLER(sampler), Watched(patcher), schedule(patcher, "euler"))

"""The demo models in ComfyUI against the same weights in diffusers."""

from __future__ import annotations

import pytest
import torch

from demo import networks
from hybrid_core.comfy_bridge import demo_models, demo_words
from hybrid_core.errors import ConfigError, UnknownWordError

PROMPT = "fox, noto, navy background"


@pytest.mark.parametrize("kind", demo_models.KINDS)
@pytest.mark.parametrize("timestep", [20.0, 500.0, 980.0])
def test_prediction_equals_diffusers(kind, timestep):
    reference = networks.load(demo_models.weights_path(kind))
    model = demo_models.load_model(kind).model
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 48, 16, 16, generator=generator)
    t = torch.full((2,), timestep)
    tokens = torch.tensor([demo_words.encode(PROMPT)] * 2)
    ((context, extra),) = demo_models.conditioning(kind, PROMPT)
    y = {"y": extra["pooled_output"].repeat(2, 1)} if kind == "mmdit" else {}
    with torch.inference_mode():
        expected = reference(x, t, tokens)
        seen = model.diffusion_model(x, t, context=context.repeat(2, 1, 1), **y)
    assert (seen - expected).norm() / expected.norm() < 1e-5


@pytest.mark.parametrize("kind", demo_models.KINDS)
def test_noise_schedule_equals_training(kind):
    sampling = demo_models.load_model(kind).get_model_object("model_sampling")
    if kind == "unet":
        from demo.training.objectives import alphas_cumprod

        alphas = alphas_cumprod()
        torch.testing.assert_close(sampling.sigmas, ((1 - alphas) / alphas).sqrt())
    else:
        assert sampling.shift == 3.0
        assert float(sampling.timestep(torch.tensor(0.5))) == 500.0


def test_vae_gives_back_the_pixels():
    vae = demo_models.load_vae()
    pixels = torch.rand(2, 64, 64, 3)
    latents = vae.encode(pixels)
    assert latents.shape == (2, 48, 16, 16)
    torch.testing.assert_close(vae.decode(latents).cpu(), pixels, atol=2e-7, rtol=0)


def test_conditioning_of_an_unknown_word_lists_the_known_ones():
    with pytest.raises(UnknownWordError, match="do not know the word 'hexagon'.*circle"):
        demo_models.conditioning("unet", "red hexagon")


def test_kind_of_a_demo_model_and_of_another():
    patcher = demo_models.load_model("unet")
    assert demo_models.kind_of(patcher) == "unet"
    patcher.model.model_config = object()
    with pytest.raises(ConfigError, match="expected one of Hybrid Demo Model's"):
        demo_models.kind_of(patcher)

"""Nodes that sample with a MODEL that they are given."""

from __future__ import annotations

import torch
from comfy.samplers import KSAMPLER

from nodes import common_ksampler


class Tiles:
    """As upscalers do: one short run for each tile."""

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "model": ("MODEL",), "positive": ("CONDITIONING",), "negative": ("CONDITIONING",),
                "latent_image": ("LATENT",), "tiles": ("INT", {"default": 4}),
                "seed": ("INT", {"default": 0}),
            }
        }  # fmt: skip

    RETURN_TYPES, FUNCTION, CATEGORY = ("LATENT",), "run", "tests"

    def run(self, model, positive, negative, latent_image, tiles, seed):
        made = [
            common_ksampler(
                model, seed + tile, 6, 5.0, "euler", "normal", positive, negative, latent_image,
                denoise=0.5,
            )[0]["samples"]
            for tile in range(tiles)
        ]  # fmt: skip
        return ({"samples": torch.cat(made)},)


class OtherSigma:
    """A sampler whose model sees another noise level than the step's, as Detail Daemon's."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"amount": ("FLOAT", {"default": 0.1})}}

    RETURN_TYPES, FUNCTION, CATEGORY = ("SAMPLER",), "run", "tests"

    def run(self, amount):
        def sample(model, x, sigmas, extra_args=None, callback=None, disable=None, **_):
            for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
                seen = (sigma * (1 - amount)).expand(len(x))
                denoised = model(x, seen, **extra_args)
                x = x + (x - denoised) / sigma * (following - sigma)
            return x

        return (KSAMPLER(sample),)


class Turning:
    """A sampler that turns what Dialled goes by, before some steps."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"dial": ("STRING", {}), "steps": ("STRING", {"default": ""})}}

    RETURN_TYPES, FUNCTION, CATEGORY = ("SAMPLER",), "run", "tests"

    def run(self, dial, steps):
        def sample(model, x, sigmas, extra_args=None, callback=None, disable=None, **_):
            dials = extra_args["model_options"]["transformer_options"]["acting_pack"]
            dials["number"], dials["object"].value = 0.5, 1.0
            for step, (sigma, following) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
                if str(step) in steps.split():
                    if dial == "number":
                        dials["number"] *= 1.5
                    else:
                        dials["object"].value *= 1.5
                denoised = model(x, sigma.expand(len(x)), **extra_args)
                x = x + (x - denoised) / sigma * (following - sigma)
            return x

        return (KSAMPLER(sample),)


NODES = (Tiles, OtherSigma, Turning)

"""diffusers' schedulers as matrices."""

from __future__ import annotations

import copy
from typing import Any

import torch

from hybrid_core.course.discrepancy import Tensor
from hybrid_core.course.matrix import Matrix, Noise, Predict, trace
from hybrid_core.diffusers_bridge.space import Schedule
from hybrid_core.errors import NotLinear


def matrix(scheduler: Any, schedule: Schedule) -> Matrix:
    """Of a scheduler after its set_timesteps. Raises NotLinear."""
    device, levels = scheduler.timesteps.device, schedule.sigmas

    def run(predict: Predict, x: Tensor, noise: Noise) -> Tensor:
        own = copy.deepcopy(scheduler)
        sigma = torch.full((1,), levels[0], device=device)
        x = x.to(device)
        share = _scaled(own, torch.ones_like(x), own.timesteps[0])
        latents = schedule.network_input(x, sigma, x.dtype) / share
        keeps = torch.allclose(latents, x)  # in the course's space already
        for level, timestep in zip(levels[:-1], own.timesteps, strict=True):
            sigma = torch.full((1,), level, device=device)
            x = schedule.latents(_scaled(own, latents, timestep), sigma)
            denoised, _ = predict(x, sigma)
            out = schedule.prediction(x, sigma, denoised, x.dtype)
            latents = own.step(out, timestep, latents, return_dict=False)[0]
        sigma = torch.full((1,), levels[-1], device=device)
        return latents if keeps else schedule.latents(latents, sigma)

    try:
        return trace(run, levels[0], len(levels))
    except NotLinear:
        raise
    except Exception as error:  # noqa: BLE001  any pipeline's scheduler, on other numbers
        raise NotLinear(f"a {type(scheduler).__name__} cannot be tried: {error}") from error


def _scaled(scheduler: Any, latents: Tensor, timestep: Any) -> Tensor:
    """What the network gets of `latents`."""
    if not hasattr(scheduler, "scale_model_input"):
        return latents
    return scheduler.scale_model_input(latents, timestep)  # type: ignore[no-any-return]

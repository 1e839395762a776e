"""A scheduler's steps in the stepper's space, and the way there and back.

The stepper sees what ComfyUI's samplers see: latents in variance-exploding form (x0 + sigma *
noise) and denoised latents; of flow models the latents as they are. A network of epsilons or
v-predictions takes its latents divided by sqrt(1 + sigma^2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from hybrid_core.errors import NotPartitionable

Tensor = torch.Tensor
# the noise and the velocity of each other, at latents x in the network's scale s = sqrt(1+sigma^2)
TO_NOISE: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "epsilon": lambda out, x, sigma, s: out,
    "v_prediction": lambda out, x, sigma, s: (out + sigma * x) / s,
}
FROM_NOISE: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "epsilon": lambda noise, x, sigma, s: noise,
    "v_prediction": lambda noise, x, sigma, s: noise * s - sigma * x,
}


class Space(Protocol):
    """Where a pipeline call's latents are for the course, and the way there and back."""

    def sigma(self, timestep: Tensor, batch: int) -> Tensor: ...
    def timestep(self, sigma: Tensor, like: Tensor) -> Tensor: ...
    def latents(self, x: Tensor, sigma: Tensor) -> Tensor: ...
    def network_input(self, latents: Tensor, sigma: Tensor, dtype: torch.dtype) -> Tensor: ...
    def denoised(self, latents: Tensor, sigma: Tensor, out: Tensor) -> Tensor: ...

    def prediction(
        self, latents: Tensor, sigma: Tensor, denoised: Tensor, dtype: torch.dtype
    ) -> Tensor: ...


class Elsewhere:
    """Of a scheduler that is not known: nothing is measured there and nothing changed."""

    def sigma(self, timestep: Tensor, batch: int) -> Tensor:
        return timestep.reshape(-1)[:1].float().expand(batch)

    def timestep(self, sigma: Tensor, like: Tensor) -> Tensor:
        return sigma.to(like)

    def latents(self, x: Tensor, sigma: Tensor) -> Tensor:
        return x

    def network_input(self, latents: Tensor, sigma: Tensor, dtype: torch.dtype) -> Tensor:
        return latents

    def denoised(self, latents: Tensor, sigma: Tensor, out: Tensor) -> Tensor:
        return out

    def prediction(
        self, latents: Tensor, sigma: Tensor, denoised: Tensor, dtype: torch.dtype
    ) -> Tensor:
        return denoised


class Schedule:
    """The steps of one pipeline call. All in fp32; sigma is (B,) and is read nowhere."""

    def __init__(self, scheduler: Any, device: torch.device):
        """After the scheduler's set_timesteps. Raises NotPartitionable."""
        self.flow = isinstance(scheduler, FlowMatchEulerDiscreteScheduler)
        self._kind = "flow" if self.flow else scheduler.config.get("prediction_type", "epsilon")
        if not self.flow and (
            self._kind not in TO_NOISE or not hasattr(scheduler, "alphas_cumprod")
        ):
            raise NotPartitionable(
                f"a {type(scheduler).__name__} of prediction type '{self._kind}' is not known, "
                f"expected {' or '.join(TO_NOISE)}, or a FlowMatchEulerDiscreteScheduler"
            )
        self._timesteps = scheduler.timesteps.to(device)
        table = _sigmas(scheduler).to(device, torch.float32)
        if len(table) != len(self._timesteps) + 1:
            raise NotPartitionable(
                f"a {type(scheduler).__name__} has {len(table)} noise levels for "
                f"{len(self._timesteps)} evaluations, expected one more than evaluations"
            )
        self._table = table[:-1]
        self.sigmas: list[float] = table.tolist()

    def sigma(self, timestep: Tensor, batch: int) -> Tensor:
        """Noise level (B,) of a timestep () or (B,); 0 for one that is not on the schedule."""
        same = self._timesteps == timestep.reshape(-1)[:1].to(self._timesteps)
        return torch.where(same, self._table, 0.0).amax().expand(batch)

    def timestep(self, sigma: Tensor, like: Tensor) -> Tensor:
        """The timestep of noise level (B,), in the shape and dtype of `like`."""
        index = (self._table - sigma[0]).abs().argmin().reshape(1)
        return self._timesteps.index_select(0, index).to(like).expand(like.numel()).view_as(like)

    def latents(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The stepper's latents of the network's `x`."""
        return x.float() * self._scale(x, sigma)

    def network_input(self, latents: Tensor, sigma: Tensor, dtype: torch.dtype) -> Tensor:
        """What the network takes for the stepper's latents."""
        return (latents / self._scale(latents, sigma)).to(dtype)

    def denoised(self, latents: Tensor, sigma: Tensor, out: Tensor) -> Tensor:
        """Denoised latents from the network's prediction."""
        noise, sigma_here = out.float(), _level(sigma, latents)
        if not self.flow:
            scale = self._scale(latents, sigma)
            noise = TO_NOISE[self._kind](noise, latents / scale, sigma_here, scale)
        return latents - sigma_here * noise

    def prediction(
        self, latents: Tensor, sigma: Tensor, denoised: Tensor, dtype: torch.dtype
    ) -> Tensor:
        """The network's prediction that gives `denoised`."""
        sigma_here = _level(sigma, latents)
        noise = (latents - denoised) / sigma_here
        if not self.flow:
            scale = self._scale(latents, sigma)
            noise = FROM_NOISE[self._kind](noise, latents / scale, sigma_here, scale)
        return noise.to(dtype)

    def _scale(self, latents: Tensor, sigma: Tensor) -> Tensor:
        level = _level(sigma, latents)
        return torch.ones_like(level) if self.flow else (1 + level**2).sqrt()


def _level(sigma: Tensor, latents: Tensor) -> Tensor:
    return sigma.reshape(-1, *[1] * (latents.ndim - 1))


def _sigmas(scheduler: Any) -> Tensor:
    """Noise levels (steps + 1,): the scheduler's own, or those of its whole-numbered timesteps."""
    own = getattr(scheduler, "sigmas", None)
    if own is not None:
        return torch.as_tensor(own)
    if scheduler.timesteps.is_floating_point():
        raise NotPartitionable(
            f"the timesteps of a {type(scheduler).__name__} are {scheduler.timesteps.dtype}, "
            "expected whole numbers"
        )
    signal = scheduler.alphas_cumprod.cpu().double()
    end = torch.as_tensor(getattr(scheduler, "final_alpha_cumprod", 1.0)).cpu().double()
    signal = torch.cat([signal[scheduler.timesteps.cpu()], end.reshape(1)])
    return ((1 - signal) / signal).sqrt()

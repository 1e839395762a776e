"""What the two kinds of model learn, and Euler's way back from noise to a picture."""

from __future__ import annotations

from collections.abc import Callable

import torch

from demo.networks import Conditional
from demo.training import words

SHIFT = 3.0  # SD3's shift of the times, in training and in sampling
SNR_LIMIT = 5.0
Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def alphas_cumprod() -> torch.Tensor:
    """DDPM's cumulative alphas, "scaled_linear" from 0.00085 to 0.012, (1000,)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    return torch.cumprod(1 - betas, 0)


def draw(
    kind: str, x: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A random point of the forward process: (input, timestep, target, weight of the loss).

    Rectified flow with logit-normal times (Esser et al. 2024, eq. 19), shifted. The U-Net's loss
    is on the noise with "SNR+1" weights (Salimans & Ho 2022, section 4), held at SNR_LIMIT: without
    them an error of the picture counts next to nothing where noise is most.
    """
    noise = torch.randn(x.shape, generator=generator)
    if kind == "mmdit":
        t = _shifted(torch.sigmoid(torch.randn(len(x), generator=generator)))
        at = t[:, None, None, None]
        return (1 - at) * x + at * noise, t * 1000, noise - x, torch.ones(len(x))
    t = torch.randint(0, 1000, (len(x),), generator=generator)
    alphas = alphas_cumprod()[t]
    a = alphas[:, None, None, None]
    snr = alphas / (1 - alphas)
    return a.sqrt() * x + (1 - a).sqrt() * noise, t, noise, (snr + 1).clamp(max=SNR_LIMIT) / snr


def sigmas(kind: str, steps: int) -> torch.Tensor:
    """From the most noise to none, (steps + 1,)."""
    if kind == "mmdit":
        return _shifted(torch.linspace(1, 0, steps + 1))
    alphas = alphas_cumprod()
    table = ((1 - alphas) / alphas).sqrt()
    at = torch.linspace(999, 0, steps).round().long()
    return torch.cat([table[at], torch.zeros(1)])


def euler(kind: str, predict: Predict, noise: torch.Tensor, steps: int) -> torch.Tensor:
    """Latents that Euler's method makes of `noise`, (B, 48, H, W), of unit spread.

    predict: velocity or noise of an input as in training at timesteps in 0..1000.
    """
    path = sigmas(kind, steps)
    alphas = alphas_cumprod()
    table = ((1 - alphas) / alphas).sqrt()
    x = noise if kind == "mmdit" else noise * path[0]
    for sigma, following in zip(path, path[1:], strict=False):
        if kind == "mmdit":
            slope = predict(x, sigma.expand(len(x)) * 1000)
        else:
            t = (table - sigma).abs().argmin().expand(len(x))
            slope = predict(x / (1 + sigma**2).sqrt(), t)
        x = x + (following - sigma) * slope
    return x


@torch.inference_mode()
def sample(
    network: Conditional, labels: torch.Tensor, seed: int, steps: int = 25, cfg: float = 3.0
) -> torch.Tensor:
    """Latents, (B, 48, 16, 16), for word indices, (B, 4), against the empty prompt."""
    both = words.tokens(torch.cat([labels, torch.full_like(labels, -1)]))

    def guided(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        cond, uncond = network(x.repeat(2, 1, 1, 1), t.repeat(2), both).chunk(2)
        return uncond + cfg * (cond - uncond)

    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(labels), 48, 16, 16, generator=generator)
    return euler(network.kind, guided, noise, steps)


def _shifted(t: torch.Tensor) -> torch.Tensor:
    return SHIFT * t / (1 + (SHIFT - 1) * t)

"""Train one demo model from a fixed seed: `python -m demo.train mmdit`.

Logs to standard output and to demo/weights/<kind>.log; writes demo/weights/<kind>.safetensors.
"""

from __future__ import annotations

import argparse
import copy
import logging
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from demo import pictures
from demo.networks import LATENT_SCALE, PATCH, WEIGHTS, Conditional, load, save

log = logging.getLogger("demo.train")
SETTINGS = {  # batch, steps, peak learning rate: about an hour on one core each
    "mmdit": (32, 7500, 6e-4),
    "unet": (24, 6000, 8e-4),
}
WHOLE_PROMPT_DROPPED, WORD_DROPPED = 0.12, 0.04
EMA_DECAY = 0.998
WARM_UP, COOL_DOWN = 200, 0.45  # steps; share of the run in which the rate falls
ATTENTION = SDPBackend.MATH  # on CPU its backward pass is the faster one at 64 tokens


def alphas_cumprod() -> torch.Tensor:
    """DDPM's cumulative alphas, "scaled_linear" from 0.00085 to 0.012, (1000,)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    return torch.cumprod(1 - betas, 0)


def noised(kind: str, x: torch.Tensor, alphas: torch.Tensor, generator: torch.Generator):
    """A random point of the forward process: (input, timestep, target)."""
    noise = torch.randn(x.shape, generator=generator)
    if kind == "mmdit":  # rectified flow, logit-normal times (Esser et al. 2024, eq. 19), shift 3
        t = torch.sigmoid(torch.randn(len(x), generator=generator))
        t = 3 * t / (1 + 2 * t)
        at = t[:, None, None, None]
        return (1 - at) * x + at * noise, t * 1000, noise - x
    t = torch.randint(0, 1000, (len(x),), generator=generator)
    a = alphas[t][:, None, None, None]
    return a.sqrt() * x + (1 - a).sqrt() * noise, t, noise


def rate(step: int, share: float, peak: float) -> float:
    """Learning rate: linear rise, plateau, linear fall to 2 % of the peak."""
    fall = min(1.0, max(0.02, (1 - share) / COOL_DOWN))
    return peak * min(1.0, (step + 1) / WARM_UP) * fall


def train(kind: str, steps: int, seed: int, resume: bool) -> None:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    batch, _, peak = SETTINGS[kind]
    network = load(WEIGHTS / f"{kind}.safetensors").train() if resume else Conditional(kind)
    average = copy.deepcopy(network).requires_grad_(False)
    optimizer = torch.optim.AdamW(network.parameters(), lr=peak, weight_decay=1e-3)
    alphas = alphas_cumprod()
    log.info("%s: %.2f M parameters", kind, sum(p.numel() for p in network.parameters()) / 1e6)
    start, smooth = time.monotonic(), None
    for step in range(steps):
        labels = pictures.random_labels(batch, generator)
        tokens = pictures.drop_prompts(
            pictures.labels_to_tokens(labels), WHOLE_PROMPT_DROPPED, WORD_DROPPED, generator
        )
        x = F.pixel_unshuffle(pictures.draw(labels, generator), PATCH) * LATENT_SCALE[kind]
        x, t, target = noised(kind, x, alphas, generator)
        with sdpa_kernel(ATTENTION), torch.autocast("cpu", torch.bfloat16):
            prediction = network(x, t, tokens)
        loss = F.mse_loss(prediction.float(), target)
        for group in optimizer.param_groups:
            group["lr"] = rate(step, step / steps, peak)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        decay = min(EMA_DECAY, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
        smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
        if (step + 1) % 100 == 0:
            seconds = (time.monotonic() - start) / (step + 1)
            log.info("step %d loss %.4f, %.3f s a step", step + 1, smooth, seconds)
        if (step + 1) % 500 == 0:
            save(average, WEIGHTS / f"{kind}.safetensors")
    save(average, WEIGHTS / f"{kind}.safetensors")
    log.info("done: %d steps of %d pictures, loss %.4f", step, batch, smooth)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=sorted(SETTINGS))
    parser.add_argument("--steps", type=int, help="another length than the usual")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from the weights there are")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    WEIGHTS.mkdir(exist_ok=True)
    handlers = [
        logging.StreamHandler(),
        logging.FileHandler(
            WEIGHTS / f"{arguments.kind}.log", mode="a" if arguments.resume else "w"
        ),
    ]
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers)
    steps = arguments.steps or SETTINGS[arguments.kind][1]
    train(arguments.kind, steps, arguments.seed, arguments.resume)


if __name__ == "__main__":
    main()

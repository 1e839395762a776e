"""Samplers by formula. Each is run(predict, x, noise) on a schedule of noise levels."""

from __future__ import annotations

import torch


def each(sigmas):
    return zip(sigmas, sigmas[1:], strict=False)


def at(sigma, x):
    return torch.full((len(x),), sigma)


def euler(sigmas):
    def run(predict, x, noise=None):
        for sigma, after in each(sigmas):
            denoised, _ = predict(x, at(sigma, x))
            x = denoised + (x - denoised) * (after / sigma)
        return x

    return run


def euler_cfg_pp(sigmas):
    """The way on is the uncond branch's."""

    def run(predict, x, noise=None):
        for sigma, after in each(sigmas):
            denoised, uncond = predict(x, at(sigma, x))
            x = denoised + (x - uncond) * (after / sigma)
        return x

    return run


def adams_bashforth(sigmas):
    """Of order 2: remembers a prediction."""

    def run(predict, x, noise=None):
        slope = None
        for sigma, after in each(sigmas):
            new = (x - predict(x, at(sigma, x))[0]) / sigma
            x = x + (new if slope is None else 1.5 * new - 0.5 * slope) * (after - sigma)
            slope = new
        return x

    return run


def heun(sigmas):
    """Two calls a step."""

    def run(predict, x, noise=None):
        for sigma, after in each(sigmas):
            first = (x - predict(x, at(sigma, x))[0]) / sigma
            ahead = x + first * (after - sigma)
            if after == 0:
                return ahead
            second = (ahead - predict(ahead, at(after, x))[0]) / after
            x = x + (first + second) / 2 * (after - sigma)
        return x

    return run


def ancestral(sigmas):
    """Adds noise."""

    def run(predict, x, noise):
        for sigma, after in each(sigmas):
            denoised, _ = predict(x, at(sigma, x))
            x = denoised + 0.5 * after * noise(torch.tensor(sigma), torch.tensor(after))
        return x

    return run

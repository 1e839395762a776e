"""How far the two branches are apart, and how fast that changes.

Every function returns tensors without dimensions on the device of its input: nothing here waits for
the device. A mask weighs each element; None weighs all alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

Tensor = torch.Tensor
PLAIN = 0.01  # of the branches' difference: what a sum of the two may miss
UNSEEN = -1.0  # in place of a measure that an exact step did not give


def mean(value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Weighted mean over all elements, batch and frames included; in fp32 at the least."""
    value = value.float()
    if mask is None:
        return value.mean()
    weights = mask.to(value).expand_as(value)
    return (value * weights).sum() / weights.sum().clamp_min(1e-12)


def fits(mask: Tensor, value: Tensor) -> bool:
    """Whether `mask` can be spread over `value`."""
    sizes = zip(reversed(mask.shape), reversed(value.shape), strict=False)
    return mask.ndim <= value.ndim and all(m in (1, v) for m, v in sizes)


def prediction(x: Tensor, denoised: Tensor, sigma: Tensor) -> Tensor:
    """(x - denoised) / sigma: epsilon, or a flow model's velocity. Shapes (B, ...), sigma (B,)."""
    return (x - denoised) / spread(sigma, x)


def spread(one_each: Tensor, like: Tensor) -> Tensor:
    """A number for each latent of the batch, (B,), in a shape that goes with `like`, (B, ...)."""
    return one_each.reshape(-1, *[1] * (like.ndim - 1)).to(like)


def rel_mae(cond: Tensor, uncond: Tensor, mask: Tensor | None = None) -> Tensor:
    """Denoising discrepancy, mean|cond - uncond| / mean|uncond| (Hybridiff, eq. for rel-MAE).

    0 for equal branches, also when both are zero; infinite when only `uncond` is zero; not a number
    when an element is not finite.
    """
    difference, scale = mean((cond - uncond).abs(), mask), mean(uncond.abs(), mask)
    return torch.where(difference == 0, difference, difference / scale)


def guidance_scale(guided: Tensor, cond: Tensor, uncond: Tensor) -> Tensor:
    """The s of guided = uncond + s (cond - uncond), (1,); not a number where it is another sum."""
    apart, given = (cond - uncond).float(), (guided - uncond).float()
    scale = (given * apart).sum() / (apart * apart).sum()
    plain = (given - scale * apart).abs().mean() <= PLAIN * apart.abs().mean()
    return torch.where(plain, scale, torch.nan).reshape(1)


def projection(changes: Sequence[Tensor], slopes: Sequence[Tensor]) -> Tensor:
    """The share of `slopes` that is in `changes`, least squares, held within 0..1."""
    pairs = [(c.float(), s.float()) for c, s in zip(changes, slopes, strict=True)]
    common = torch.stack([(c * s).sum() for c, s in pairs]).sum()
    length = torch.stack([(s * s).sum() for _, s in pairs]).sum()
    return (common / length.clamp_min(1e-30)).nan_to_num(0.0, 0.0, 0.0).clamp(0.0, 1.0)


def difference(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Sum over tensor pairs of mean|a - b|."""
    return torch.stack([mean((p - q).abs()) for p, q in zip(a, b, strict=True)]).sum()

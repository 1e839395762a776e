"""Latents of 4x4 pixels: an orthonormal transform and one fixed scale a channel.

Over space it is the DCT, over colour brightness and two colour differences; both are orthonormal,
so latents are turned back by the transpose. Scales bring every channel to a similar spread, so the
mean colour does not outweigh detail, and an error in fine detail costs little of the picture.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

PATCH = 4
CHANNELS = 3 * PATCH * PATCH
LEAST = 0.05  # spread below which a channel is not raised further: it holds next to nothing


def basis() -> torch.Tensor:
    """Orthonormal rows, (48, 48): channel by (colour, row, column) of a patch."""
    at = (torch.arange(PATCH, dtype=torch.float64) + 0.5) * math.pi / PATCH
    dct = torch.stack([torch.cos(at * k) for k in range(PATCH)])
    dct = dct / dct.norm(dim=1, keepdim=True)
    colours = torch.tensor([[1, 1, 1], [1, 0, -1], [1, -2, 1]], dtype=torch.float64)
    colours = colours / colours.norm(dim=1, keepdim=True)
    return torch.kron(colours, torch.kron(dct, dct)).float()


class Latents:
    """Pixels in -1..1 to latents of about unit spread, and back."""

    def __init__(self, scales: torch.Tensor) -> None:
        """scales: spread of each channel of the transform, (48,)."""
        self.scales = scales
        self._basis = basis()

    @classmethod
    def fitted(cls, pictures: torch.Tensor) -> Latents:
        """With the spreads of `pictures`, (B, 3, H, W)."""
        plain = cls(torch.ones(CHANNELS)).encode(pictures)
        return cls(plain.pow(2).mean((0, 2, 3)).sqrt().clamp(min=LEAST))

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, 3, 4H, 4W) to (B, 48, H, W)."""
        rows = self._basis / self.scales[:, None]
        return F.conv2d(F.pixel_unshuffle(pixels, PATCH), rows[:, :, None, None])

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """(B, 48, H, W) to (B, 3, 4H, 4W)."""
        columns = (self._basis * self.scales[:, None]).T
        return F.pixel_shuffle(F.conv2d(latents, columns[:, :, None, None]), PATCH)

    def weights(self) -> torch.Tensor:
        """Weights of the loss, (48, 1, 1), mean 1: what is seen more counts more."""
        root = self.scales.sqrt()
        return (root / root.mean())[:, None, None]

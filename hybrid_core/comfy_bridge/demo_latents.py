"""Latents of the demo models: of 4x4 pixels an orthonormal transform, and one scale a channel.

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


def _dct() -> torch.Tensor:
    at = (torch.arange(PATCH, dtype=torch.float64) + 0.5) * math.pi / PATCH
    rows = torch.stack([torch.cos(at * k) for k in range(PATCH)])
    return rows / rows.norm(dim=1, keepdim=True)


def _colours() -> torch.Tensor:
    rows = torch.tensor([[1, 1, 1], [1, 0, -1], [1, -2, 1]], dtype=torch.float64)
    return rows / rows.norm(dim=1, keepdim=True)


def basis() -> torch.Tensor:
    """Orthonormal rows, (48, 48): channel by (colour, row, column) of a patch."""
    return torch.kron(_colours(), torch.kron(_dct(), _dct())).float()


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

    def into(self, patches: torch.Tensor) -> torch.Tensor:
        """Latents of pixels that are only rearranged, (B, 48, H, W) both."""
        return _turned(self._basis / self.scales[:, None], patches)

    def out_of(self, latents: torch.Tensor) -> torch.Tensor:
        """The rearranged pixels of latents, (B, 48, H, W) both."""
        return _turned((self._basis * self.scales[:, None]).T, latents)

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, 3, 4H, 4W) to (B, 48, H, W)."""
        return self.into(F.pixel_unshuffle(pixels, PATCH))

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """(B, 48, H, W) to (B, 3, 4H, 4W)."""
        return F.pixel_shuffle(self.out_of(latents), PATCH)

    def mean_colours(self) -> torch.Tensor:
        """Red, green and blue that a latent adds to the mean of its pixels, (48, 3)."""
        columns = (self._basis * self.scales[:, None]).T  # (48 pixels, 48 channels)
        return columns.reshape(3, PATCH * PATCH, CHANNELS).mean(1).T

    def weights(self) -> torch.Tensor:
        """Weights of the loss, (48, 1, 1), mean 1: what is seen more counts more."""
        root = self.scales.sqrt()
        return (root / root.mean())[:, None, None]


def _turned(rows: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return F.conv2d(x, rows.to(x)[:, :, None, None])

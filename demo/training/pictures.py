"""Captioned pictures made of rendered emoji: one emoji, in its colours or tinted, on a ground.

No two are the same: an emoji is shifted, turned and scaled a little, and the ground has a slope.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

SIDE = 64  # pixels
COLOURS = torch.tensor(
    [
        [0.90, 0.10, 0.10], [0.10, 0.75, 0.20], [0.15, 0.30, 0.95], [0.95, 0.85, 0.10],
        [0.70, 0.15, 0.80], [0.10, 0.85, 0.85], [0.96, 0.96, 0.96], [0.04, 0.04, 0.04],
    ]
)  # fmt: skip
BACKGROUNDS = torch.tensor(
    [
        [0.38, 0.42, 0.48], [0.76, 0.66, 0.48], [0.16, 0.36, 0.20], [0.52, 0.24, 0.18],
        [0.12, 0.14, 0.40], [0.92, 0.88, 0.76], [0.16, 0.16, 0.17], [0.52, 0.68, 0.84],
    ]
)  # fmt: skip
SHARE = 0.86  # of a picture's side that an emoji takes
LUMA = torch.tensor([0.299, 0.587, 0.114])


class Album:
    """Draws pictures from emoji, (styles, subjects, 4, S, S), premultiplied, in 0..1."""

    def __init__(self, emoji: torch.Tensor) -> None:
        self.emoji = emoji

    def draw(self, labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Pictures in -1..1, (B, 3, 64, 64), of word indices, (B, 4)."""
        subject, style, colour, background = labels.unbind(1)
        placed = _placed(self.emoji[style, subject], generator)
        paint, cover = placed[:, :3], placed[:, 3:]
        paint = torch.where((colour > 0)[:, None, None, None], _tinted(paint, cover, colour), paint)
        picture = paint + (1 - cover) * _ground(background, generator)
        return picture.clamp(0, 1) * 2 - 1


def _placed(emoji: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    batch = len(emoji)

    def noise(scale: float) -> torch.Tensor:
        return torch.randn(batch, generator=generator) * scale

    size = SHARE * (1 + noise(0.03))
    angle, x, y = noise(0.06), noise(0.03), noise(0.03)
    cos, sin = angle.cos() / size, angle.sin() / size
    matrix = torch.stack([cos, -sin, x, sin, cos, y], 1).reshape(batch, 2, 3)
    grid = F.affine_grid(matrix, [batch, 4, SIDE, SIDE], align_corners=False)
    return F.grid_sample(emoji, grid, align_corners=False)


def _tinted(paint: torch.Tensor, cover: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
    """The same drawing in shades of one colour: dark, the colour itself, light."""
    light = torch.einsum("bchw,c->bhw", paint, LUMA)[:, None] / cover.clamp(min=1e-3)
    middle = COLOURS[colour - 1]  # natural has index 0 among labels
    white, black = (colour == 7)[:, None], (colour == 8)[:, None]
    middle = torch.where(white, 0.8, torch.where(black, 0.16, middle))[:, :, None, None]
    dark = torch.where(white, 0.4, middle[:, :, 0, 0] * 0.2)[:, :, None, None]
    high = torch.where(black, 0.5, middle[:, :, 0, 0] * 0.3 + 0.7)[:, :, None, None]
    low = dark + (middle - dark) * (light * 2).clamp(max=1)
    return (low + (high - middle) * (light * 2 - 1).clamp(min=0)) * cover


def _ground(background: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    axis = (torch.arange(SIDE) + 0.5) / SIDE * 2 - 1
    slopes = torch.randn(len(background), 2, 1, 1, generator=generator) * 0.1
    slope = slopes[:, :1] * axis[:, None] + slopes[:, 1:] * axis
    return BACKGROUNDS[background][:, :, None, None] * (1 + slope)

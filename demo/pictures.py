"""Synthetic captioned pictures, drawn on the fly: one shape on a background.

Every picture is described by one word for each attribute of hybrid_core.comfy_bridge.demo_words.
"""

from __future__ import annotations

import math

import torch

from hybrid_core.comfy_bridge.demo_words import ATTRIBUTES, EMPTY, token

SIDE = 64  # pixels
COUNTS = [len(words) for words in ATTRIBUTES.values()]
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
RADII = torch.tensor([0.24, 0.36, 0.50])  # of half the picture's side


def random_labels(batch: int, generator: torch.Generator) -> torch.Tensor:
    """Word indices, (B, 6), uniform."""
    columns = [torch.randint(0, count, (batch,), generator=generator) for count in COUNTS]
    return torch.stack(columns, 1)


def labels_to_tokens(labels: torch.Tensor) -> torch.Tensor:
    """Token ids, (B, 6), of word indices, (B, 6)."""
    first = torch.tensor([token(name, 0) for name in ATTRIBUTES])
    return labels + first


def drop_prompts(
    tokens: torch.Tensor, whole: float, each: float, generator: torch.Generator
) -> torch.Tensor:
    """Tokens become "not named": whole prompts with chance `whole`, single words with `each`."""
    batch, slots = tokens.shape
    gone = torch.rand(batch, 1, generator=generator) < whole
    gone = gone | (torch.rand(batch, slots, generator=generator) < each)
    return torch.where(gone, torch.tensor(EMPTY), tokens)


def draw(labels: torch.Tensor, generator: torch.Generator, side: int = SIDE) -> torch.Tensor:
    """Pictures in -1..1, (B, 3, side, side), of word indices, (B, 6)."""
    batch = len(labels)

    def noise(scale: float) -> torch.Tensor:
        return torch.randn(batch, 1, 1, generator=generator) * scale

    shape, colour, background, position, size, texture = labels.unbind(1)
    axis = (torch.arange(side) + 0.5) / side * 2 - 1
    y, x = axis[None, :, None], axis[None, None, :]
    radius = RADII[size][:, None, None] * (1 + noise(0.05))
    centre_x = ((position % 3).float() - 1)[:, None, None] * 0.46 + noise(0.04)
    centre_y = ((position // 3).float() - 1)[:, None, None] * 0.46 + noise(0.04)
    angle = noise(0.15)
    dx, dy = (x - centre_x) / radius, (y - centre_y) / radius
    u = dx * angle.cos() + dy * angle.sin()  # (B, side, side), 1 at the shape's edge
    v = dy * angle.cos() - dx * angle.sin()
    distance = _distance(shape, u, v)
    mask = torch.sigmoid((1 - distance) * radius * side * 1.2)[:, None]
    paint = COLOURS[colour][:, :, None, None] + noise(0.03)[:, None]
    paint = paint * _texture(texture, u, v)[:, None]
    slope = (noise(0.10) * x + noise(0.10) * y)[:, None]
    ground = BACKGROUNDS[background][:, :, None, None] * (1 + slope)
    return (mask * paint + (1 - mask) * ground).clamp(0, 1) * 2 - 1


def _distance(shape: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Distance from the centre in units of the shape's size: below 1 inside."""
    r = (u * u + v * v).sqrt()
    a, b = u.abs(), v.abs()
    triangle = torch.maximum(v, torch.maximum(-v * 0.5 + u * 0.866, -v * 0.5 - u * 0.866)) + 0.45
    cross = torch.minimum(torch.maximum(a, b * 3), torch.maximum(a * 3, b))
    ring = (r - 0.75).abs() * 3.5
    every = torch.stack([r, torch.maximum(a, b) * 1.12, triangle, cross, ring], 1)
    return every[torch.arange(len(shape)), shape]


def _texture(texture: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Brightness factors, (B, side, side)."""
    stripes = 0.775 + 0.225 * torch.sin(v * 3 * math.pi)
    dots = 0.775 + 0.225 * torch.sin(u * 3 * math.pi) * torch.sin(v * 3 * math.pi)
    every = torch.stack([torch.ones_like(u), stripes, dots], 1)
    return every[torch.arange(len(texture)), texture]

"""What tests ask of tensors."""

from __future__ import annotations

import torch


def relative(seen: torch.Tensor, expected: torch.Tensor) -> float:
    """How far `seen` is from `expected`, of its norm."""
    return float((seen - expected).norm() / expected.norm())


def raw(tensor: torch.Tensor) -> torch.Tensor:
    """Its bytes."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)

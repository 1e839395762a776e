"""What two equal devices would do, computed from parts that were measured on one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Parts:
    """Medians in milliseconds, of one model at one size."""

    both: float  # a forward of both branches in one batch: KSampler's step
    branch: float  # a forward of one branch
    stage_a: float
    stage_b: float
    latents: float  # a latent to the other process and a denoised one back
    boundary: float  # a latent there, the cut's tensors back
    measures: float  # what deciding the next step costs on this side


def exact_step(parts: Parts) -> float:
    """A branch on each device; the other one's has its way there and back."""
    return parts.branch + parts.latents + parts.measures


def pipelined_step(parts: Parts) -> float:
    """Stage B here, the next step's stage A there with its way: the longer one."""
    return max(parts.stage_b, parts.stage_a + parts.boundary) + parts.measures


def ratio(parts: Parts, steps: int, pipelined: float) -> float:
    """How many times as fast as KSampler, `pipelined` of `steps` steps being that."""
    taken = (steps - pipelined) * exact_step(parts) + pipelined * pipelined_step(parts)
    return steps * parts.both / taken


def ideal(steps: int, pipelined: float) -> float:
    """The same by counting forwards."""
    return 2 * steps / (steps - pipelined / 2)


def overhead(parts: Parts) -> float:
    """Share of KSampler's step that an exact step spends beyond its branch."""
    return (exact_step(parts) - parts.branch) / parts.both

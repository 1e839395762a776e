"""One evaluation of the denoiser as ComfyUI asks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

Conds = list[list[dict[str, Any]] | None]
Options = Mapping[str, Any]
Prompts = tuple[tuple[bool, ...], ...]
SCHEDULE = ("timestep_start", "timestep_end")  # sigmas


@dataclass(frozen=True)
class Evaluation:
    """A call of calc_cond_batch: a latent x (B, ...), sigma (B,), a prompt list a branch."""

    executor: Callable[..., list[torch.Tensor]]
    model: Any
    conds: Conds
    x: torch.Tensor
    sigma: torch.Tensor
    options: Options

    @property
    def branches(self) -> list[int]:
        """Which places of `conds` are not empty."""
        return [index for index, cond in enumerate(self.conds) if cond is not None]

    @property
    def prompts(self) -> Prompts:
        """Which entries of each branch hold at this sigma; empty where none has a schedule."""
        entries = [branch or [] for branch in self.conds]
        if not any(entry.keys() & SCHEDULE for branch in entries for entry in branch):
            return ()
        sigma = float(self.sigma[0])
        return tuple(tuple(holds(entry, sigma) for entry in branch) for branch in entries)

    def of(self, conds: Conds, options: Options | None = None) -> list[torch.Tensor]:
        """The denoised latents of `conds`, evaluated in this process."""
        chosen = self.options if options is None else options
        return self.executor(self.model, conds, self.x, self.sigma, chosen)

    def divided(self) -> tuple[Conds, Conds]:
        """The parent's branches and the worker's: every other one that is there."""
        theirs = self.branches[1::2]
        parents: Conds = [None if i in theirs else cond for i, cond in enumerate(self.conds)]
        workers: Conds = [cond if i in theirs else None for i, cond in enumerate(self.conds)]
        return parents, workers


def holds(entry: Mapping[str, Any], sigma: float) -> bool:
    """Whether an entry of a prompt takes part at `sigma`."""
    start, end = map(entry.get, SCHEDULE)
    return (start is None or sigma <= start) and (end is None or sigma >= end)

"""One evaluation of the denoiser as ComfyUI asks for it, for the driver."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import nn

from hybrid_core.comfy_bridge import conds as conds_data
from hybrid_core.comfy_bridge import support
from hybrid_core.comfy_bridge.attention_seams import ATTENTION
from hybrid_core.comfy_bridge.brought import Brought
from hybrid_core.comfy_bridge.controls import acting, hints, in_a_part
from hybrid_core.comfy_bridge.forwards import with_each_forward
from hybrid_core.comfy_bridge.hooks import strengths
from hybrid_core.comfy_bridge.prompts import SCHEDULE, Content, entries, holds
from hybrid_core.comfy_bridge.trial import Replayed
from hybrid_core.stages.staging import Each
from hybrid_core.workers.contract import Pictures

Conds = list[list[dict[str, Any]] | None]
Tensor = torch.Tensor


@dataclass
class Told:
    """What a run's workers get beside plain data; known once the first of them is asked."""

    replayed: Replayed | None = None  # where the worker makes the model by its nodes
    brought: Brought | None = None  # by the run's conditioning


@dataclass(frozen=True)
class ComfyCall:
    """A call of calc_cond_batch: a latent x (B, ...), sigma (B,), a prompt list a branch.

    Its outputs are denoised latents.
    """

    alike = False  # prompts differ in length
    attention = ATTENTION

    executor: Callable[..., list[Tensor]]
    model: Any
    conds: Conds
    x: Tensor
    sigma: Tensor
    options: Mapping[str, Any]
    told: Told = field(default_factory=Told)
    cfg: float | None = None

    @property
    def replayed(self) -> Replayed | None:
        return self.told.replayed

    @property
    def network(self) -> nn.Module:
        return self.model.diffusion_model  # type: ignore[no-any-return]

    @property
    def form(self) -> Hashable:
        return tuple(self.x.shape), conds_data.sizes(self.conds)

    @property
    def branches(self) -> list[int]:
        return [index for index, cond in enumerate(self.conds) if cond is not None]

    @property
    def even(self) -> bool:
        plain = all(len(cond) == 1 and "area" not in cond[0] for cond in self.conds if cond)
        sizes = {conds_data.sizes([cond]) for cond in self.conds if cond is not None}
        return plain and not self._scheduled and len(sizes) == 1

    @property
    def aside(self) -> bool:
        return len(self.conds) == 1  # a guider gives an empty list for a prompt that it leaves out

    @property
    def prompts(self) -> Any:
        said = strengths(self.conds), [[Content(e) for e in branch or ()] for branch in self.conds]
        ends = any(in_a_part(control) for control in self._controls)
        if not self._scheduled and not ends:
            return said
        sigma = float(self.sigma[0])
        in_force = [[holds(e, sigma) for e in branch or ()] for branch in self.conds]
        return said, in_force, [acting(control, sigma) for control in self._controls]

    @property
    def _scheduled(self) -> bool:
        return any(entry.keys() & SCHEDULE for entry in entries(self.conds))

    @cached_property
    def pictures(self) -> int:
        if any(hints(control) > 1 for control in self._controls):
            return 1  # a hint for each picture
        if len(self.x) > 1 and self._scheduled and bool((self.sigma != self.sigma[0]).any()):
            return 1  # ComfyUI goes by the first one's noise level
        return len(self.x)

    def check(self) -> None:
        for entry in entries(self.conds):
            self._of_the_run.describe(entry)
        if self.replayed is None:
            support.check_options(self.options)
        else:
            self.replayed.check(self.options, len(self.branches))

    def _only(self, branches: Sequence[int]) -> Conds:
        return [cond if index in branches else None for index, cond in enumerate(self.conds)]

    def evaluate(
        self,
        branches: Sequence[int],
        each: Each | None = None,
        pictures: Pictures | None = None,
    ) -> dict[int, Tensor]:
        if self._is_trial(branches, each, pictures) and self.replayed is not None:
            return self.replayed.watch(self.options, self._plainly, branches)
        options = self.options if each is None else with_each_forward(self.options, each)
        conds = self._only(branches)
        if pictures is not None:
            conds = conds_data.of_pictures(conds, pictures)
        out = self.executor(self.model, conds, *self.inputs(branches, pictures), options)
        return {index: out[index] for index in branches}

    @property
    def _controls(self) -> list[Any]:
        """The last of each chain."""
        found = [entry.get("control") for entry in entries(self.conds)]
        return [control for control in found if control is not None]

    def _is_trial(
        self, branches: Sequence[int], each: Each | None, pictures: Pictures | None
    ) -> bool:
        whole = each is None and pictures is None and list(branches) == self.branches
        return whole and self.replayed is not None and self.replayed.undecided(len(branches))

    def _plainly(self, branches: Sequence[int]) -> dict[int, Tensor]:
        conds = self._only(branches)
        out = self.executor(self.model, conds, self.x, self.sigma, self.options)
        return {index: out[index] for index in branches}

    def context(self, branches: Sequence[int]) -> dict[str, Any]:
        return conds_data.context(
            self._only(branches), self.options, self._of_the_run, self.replayed is not None
        )

    @property
    def _of_the_run(self) -> Brought:
        brought = self.told.brought
        assert brought is not None, "a worker is asked, and what it holds is not known"
        return brought

    def inputs(
        self, branches: Sequence[int], pictures: Pictures | None = None
    ) -> tuple[Tensor, Tensor]:
        if pictures is None:
            return self.x, self.sigma
        return pictures.of(self.x), pictures.of(self.sigma)

    def inputs_at(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        return x, sigma

    def denoised(self, output: Tensor) -> Tensor:
        return output

    def output(self, denoised: Tensor) -> Tensor:
        return denoised

    def result(self, outputs: Mapping[int, Tensor]) -> list[Tensor]:
        """What calc_cond_batch returns: zeros for a prompt list that is empty."""
        return [
            outputs[index] if index in outputs else torch.zeros_like(self.x)
            for index in range(len(self.conds))
        ]

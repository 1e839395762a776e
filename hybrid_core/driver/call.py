"""What a bridge says of one evaluation that its framework asks for."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from hybrid_core.errors import NotPartitionable
from hybrid_core.stages.attention import Attention
from hybrid_core.stages.staging import Each
from hybrid_core.workers.contract import Pictures

Tensor = torch.Tensor


class Call(Protocol):
    """Latents `x` (B, ...) at noise level `sigma` (B,), and a prompt list a branch.

    Branches go by their places in the framework's list, the first is cond, the second uncond.
    Outputs are what the framework's network gives; denoised latents are the course's view of them.
    """

    @property
    def x(self) -> Tensor: ...

    @property
    def sigma(self) -> Tensor: ...

    @property
    def network(self) -> nn.Module: ...

    @property
    def branches(self) -> list[int]:
        """Places that are not empty."""
        ...

    @property
    def aside(self) -> bool:
        """Whether it is beside the guider's own evaluations, as PAG and its kin ask for."""
        ...

    @property
    def pictures(self) -> int:
        """How many of the batch could be evaluated apart; 1 where they could not."""
        ...

    @property
    def form(self) -> Hashable:
        """Equal for evaluations whose forward passes have the same sizes."""
        ...

    @property
    def attention(self) -> Attention:
        """Where the network calls it."""
        ...

    @property
    def alike(self) -> bool:
        """Whether every branch runs through forward passes of the same names and sizes."""
        ...

    @property
    def even(self) -> bool:
        """Whether every branch runs through as many forward passes, each of the same sizes."""
        ...

    @property
    def prompts(self) -> Any:
        """Equal while the same prompts hold."""
        ...

    @property
    def cfg(self) -> float | None:
        """The guidance scale that the guider names for this evaluation; None where it does not."""
        ...

    def check(self) -> None:
        """Raise NotPartitionable where another process could not evaluate the same."""
        ...

    def evaluate(
        self,
        branches: Sequence[int],
        each: Each | None = None,
        pictures: Pictures | None = None,
    ) -> dict[int, Tensor]:
        """Outputs by branch, evaluated here and in one go; `each` runs the forward passes.

        pictures: whose outputs are wanted, the whole batch's where None.
        """
        ...

    def context(self, branches: Sequence[int]) -> Any:
        """Prompts and options of these branches as plain data. Raises NotPartitionable."""
        ...

    def inputs(
        self, branches: Sequence[int], pictures: Pictures | None = None
    ) -> tuple[Tensor, Tensor]:
        """What a worker takes for these branches, here and now."""
        ...

    def inputs_at(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """What a worker takes for other latents at another noise level."""
        ...

    def denoised(self, output: Tensor) -> Tensor: ...

    def output(self, denoised: Tensor) -> Tensor:
        """The output that means `denoised`."""
        ...


def check_torch(x: Tensor) -> None:
    """Raise NotPartitionable where torch makes more of an evaluation at `x` than its numbers."""
    if x.requires_grad:
        raise NotPartitionable("the sampler asks for gradients, which the second process has not")
    if torch.is_autocast_enabled(x.device.type):
        raise NotPartitionable("torch.autocast is on, which the second process knows nothing of")

"""One call of a network by its pipeline, and the two branches in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from hybrid_core.errors import NotPartitionable
from hybrid_core.stages.swap import mapped, tensors

CONDITIONING = ("encoder_hidden_states", "pooled_projections", "added_cond_kwargs")
Forward = Callable[..., Any]


@dataclass(frozen=True)
class Branch:
    """What a network takes for one branch of guidance."""

    x: torch.Tensor  # (B, C, H, W), noisy latents in the network's own scale
    timestep: torch.Tensor  # () or (B,)
    conditioning: dict[str, Any]

    def evaluate(self, forward: Forward) -> torch.Tensor:
        """The network's prediction, (B, C, H, W)."""
        out = forward(self.x, timestep=self.timestep, **self.conditioning, return_dict=False)
        return out[0]  # type: ignore[no-any-return]


def divided(arguments: Mapping[str, Any]) -> tuple[Branch, Branch]:
    """uncond and cond of a joint batch [uncond; cond].

    arguments: of the network's forward by name, latents first. Raises NotPartitionable.
    """
    given = {name: value for name, value in arguments.items() if not _is_nothing(value)}
    x = given.pop(next(iter(arguments)))
    timestep = torch.as_tensor(given.pop("timestep"), device=x.device)
    given.pop("return_dict", None)
    for name in given:
        if name not in CONDITIONING:
            raise NotPartitionable(
                f"the pipeline gives its network '{name}', expected none but {CONDITIONING}; "
                "evaluations that have it are not shared"
            )
    if len(x) % 2:
        raise NotPartitionable(f"a batch of {len(x)} is not of two branches")
    if torch.is_autocast_enabled(x.device.type):
        raise NotPartitionable("the second process knows no autocast; cast the pipeline instead")
    for tensor in tensors(given):
        if tensor.shape[:1] != x.shape[:1]:
            raise NotPartitionable(
                f"conditioning of shape {tuple(tensor.shape)} came with a batch of {len(x)}"
            )

    def half(take: slice) -> Branch:
        return Branch(
            x[take],
            timestep[take] if len(timestep.shape) and len(timestep) > 1 else timestep,
            mapped(given, lambda tensor: tensor[take]),
        )

    middle = len(x) // 2
    return half(slice(None, middle)), half(slice(middle, None))


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and not value)

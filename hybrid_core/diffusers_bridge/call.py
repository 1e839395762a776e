"""One call of a network by its pipeline, and the two branches in it, for the driver."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hybrid_core.course.alike import same
from hybrid_core.diffusers_bridge.space import Space
from hybrid_core.errors import NotPartitionable
from hybrid_core.stages.attention import PLAIN
from hybrid_core.stages.staging import Each
from hybrid_core.stages.swap import mapped, tensors
from hybrid_core.workers.contract import Pictures

CONDITIONING = ("encoder_hidden_states", "pooled_projections", "added_cond_kwargs")
COND, UNCOND = 0, 1  # the driver's places
FORWARD = ""  # the name of the one forward pass of an evaluation
Forward = Callable[..., Any]
Tensor = torch.Tensor


@dataclass(frozen=True)
class Branch:
    """What a network takes for one branch of guidance."""

    x: Tensor  # (B, C, H, W), noisy latents in the network's own scale
    timestep: Tensor  # () or (B,)
    conditioning: dict[str, Any]

    def of(self, pictures: Pictures) -> Branch:
        """For these pictures alone."""
        timestep = pictures.of(self.timestep) if len(self.timestep.shape) else self.timestep
        return Branch(pictures.of(self.x), timestep, mapped(self.conditioning, pictures.of))

    def evaluate(self, forward: Forward, each: Each | None = None) -> Tensor:
        """The network's prediction, (B, C, H, W)."""

        def run() -> Tensor:
            out = forward(self.x, timestep=self.timestep, **self.conditioning, return_dict=False)
            return out[0]  # type: ignore[no-any-return]

        return run() if each is None else each(FORWARD, self.x, run)  # type: ignore[no-any-return]


class Given:
    """What a network is given beside latents and timestep. Equal to another that says the same.

    Of tensors that each step has anew, as a ControlNet's, counts whether they are all zeros.
    """

    def __init__(self, arguments: Mapping[str, Any]):
        latents = next(iter(arguments))
        self._said = {
            name: value if name in CONDITIONING else _kind(value)
            for name, value in arguments.items()
            if name not in (latents, "timestep")
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Given) and same(self._said, other._said)


def _kind(value: Any) -> Any:
    """Of what is not compared by content."""
    found = tensors(value)
    return bool(torch.stack([one.any() for one in found]).any()) if found else value


class PipelineCall:
    """A joint batch [uncond; cond], or one branch of a call without guidance.

    Its outputs are predictions, (B, C, H, W).
    """

    cfg, alike, even, attention = None, True, True, PLAIN

    def __init__(
        self,
        network: Any,
        forward: Forward,
        arguments: Mapping[str, Any],
        space: Space,
        guided: bool,
        rows: int,
    ):
        """forward: the network's own; arguments: its, by name, latents first.

        rows: of the pipeline's first joint batch; smaller ones are beside it, as those of
        skip-layer guidance.
        """
        self.network, self._forward, self._arguments = network, forward, arguments
        self._space = space
        self._joint: Tensor = next(iter(arguments.values()))
        self.aside = guided and len(self._joint) < rows
        joint = guided and not self.aside
        self._uneven = joint and len(self._joint) % 2 > 0
        self.branches = [COND, UNCOND] if joint and not self._uneven else [COND]
        timestep = torch.as_tensor(arguments["timestep"], device=self._joint.device)
        x, self._timestep = self._half(self._joint, COND), self._half(timestep, COND)
        latents: int = network.config.out_channels
        # masks, depths and pictures follow the latents
        x, self._beside = x[:, :latents], x[:, latents:]  # (B, C, H, W), (B, C', H, W)
        self.sigma = space.sigma(self._timestep, len(x))  # (B,)
        self.x = space.latents(x, self.sigma)

    @property
    def prompts(self) -> Any:
        return Given(self._arguments)

    @property
    def form(self) -> Hashable:
        return tuple(self.x.shape), tuple(tuple(t.shape) for t in tensors(self._conditioning()))

    def _half(self, value: Tensor, branch: int) -> Tensor:
        """A branch's share of something that is joint."""
        if len(self.branches) == 1 or value.ndim == 0 or len(value) == 1:
            return value
        middle = len(value) // 2
        return value[middle:] if branch == COND else value[:middle]

    def check(self) -> None:
        x = self._joint
        for name, value in self._arguments.items():
            known = (next(iter(self._arguments)), "timestep", "return_dict", *CONDITIONING)
            nothing = value is None or (isinstance(value, dict) and not value)
            if name not in known and not nothing:
                raise NotPartitionable(
                    f"the pipeline gives its network '{name}', expected none but {CONDITIONING}; "
                    "evaluations that have it are not shared"
                )
        if self._uneven:
            raise NotPartitionable(f"a batch of {len(x)} is not of two branches")
        for tensor in tensors(self._conditioning()):
            if tensor.shape[:1] != x.shape[:1]:
                raise NotPartitionable(
                    f"conditioning of shape {tuple(tensor.shape)} came with a batch of {len(x)}"
                )

    def _conditioning(self) -> dict[str, Any]:
        given = {name: self._arguments.get(name) for name in CONDITIONING}
        return {name: value for name, value in given.items() if value is not None and value != {}}

    def _branch(self, place: int) -> Branch:
        timestep = torch.as_tensor(self._arguments["timestep"], device=self._joint.device)
        halves = mapped(self._conditioning(), lambda tensor: self._half(tensor, place))
        return Branch(self._half(self._joint, place), self._half(timestep, place), halves)

    @property
    def pictures(self) -> int:
        return len(self.x)

    def evaluate(
        self,
        branches: Sequence[int],
        each: Each | None = None,
        pictures: Pictures | None = None,
    ) -> dict[int, Tensor]:
        if pictures is not None:
            some = {place: self._branch(place).of(pictures) for place in branches}
            return {place: one.evaluate(self._forward, each) for place, one in some.items()}
        if len(branches) == 1 and (each is not None or len(self.branches) > 1):
            return {branches[0]: self._branch(branches[0]).evaluate(self._forward, each)}
        whole = self._forward(**{**self._arguments, "return_dict": False})[0]
        return {branch: self._half(whole, branch) for branch in branches}

    def context(self, branches: Sequence[int]) -> dict[str, Any]:
        (place,) = branches
        return self._branch(place).conditioning

    def inputs(
        self, branches: Sequence[int], pictures: Pictures | None = None
    ) -> tuple[Tensor, Tensor]:
        branch = self._branch(branches[0])
        if pictures is not None:
            branch = branch.of(pictures)
        return branch.x, branch.timestep

    def inputs_at(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        at = self._space.network_input(x, sigma, self._joint.dtype)
        return torch.cat([at, self._beside], 1), self._space.timestep(sigma, self._timestep)

    def denoised(self, output: Tensor) -> Tensor:
        return self._space.denoised(self.x, self.sigma, output)

    def output(self, denoised: Tensor) -> Tensor:
        return self._space.prediction(self.x, self.sigma, denoised, self._joint.dtype)

    def result(self, outputs: Mapping[int, Tensor]) -> Tensor:
        """What the network returns."""
        return torch.cat([outputs[branch] for branch in reversed(self.branches)])

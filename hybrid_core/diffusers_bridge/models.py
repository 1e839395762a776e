"""The worker's side: one network of diffusers, the latest that was sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from hybrid_core.diffusers_bridge.call import CONDITIONING, Branch
from hybrid_core.diffusers_bridge.portrait import build, portrait
from hybrid_core.errors import HybridError, ProtocolError
from hybrid_core.stages.attention import PLAIN
from hybrid_core.stages.staging import Each
from hybrid_core.stages.swap import mapped
from hybrid_core.transport import wire
from hybrid_core.workers.contract import Pictures
from hybrid_core.workers.evaluator import latents_and_level

Tensor = torch.Tensor


class Stopped(HybridError):
    """The parent does not want the evaluation any more."""


class DiffusersModels:
    """On the one device that this process sees."""

    attention = PLAIN

    def __init__(self) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._key: str | None = None
        self._network: nn.Module | None = None
        self._stop = False

    def load(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict) or data.keys() != {"key", "network"}:
            raise ProtocolError(f"a replica is {str(data)[:80]}, expected key and network")
        self._drop()
        network = build(data["network"], self.device)
        self._network, self._key = network, wire.text(data, "key")
        seen = portrait(network)
        for child in network.modules():
            child.register_forward_pre_hook(self._check_stop)
        return seen

    def _check_stop(self, *_: Any) -> None:
        if self._stop:
            raise Stopped("stopped")

    def network(self) -> nn.Module:
        if self._network is None:
            raise ProtocolError("an evaluation is asked for, and no network is held")
        return self._network

    def context(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict) or not data.keys() <= set(CONDITIONING):
            raise ProtocolError(f"conditioning is {str(data)[:80]}, expected {CONDITIONING}")
        return data

    def context_of(self, context: dict[str, Any], pictures: Pictures) -> dict[str, Any]:
        return mapped(context, pictures.of)  # type: ignore[no-any-return]

    def evaluate(
        self, context: dict[str, Any], inputs: Sequence[Tensor], each: Each | None
    ) -> list[Tensor]:
        network = self.network()
        x, timestep = latents_and_level(inputs)
        return [Branch(x, timestep, context).evaluate(network, each)]

    def forget(self, base_key: str) -> None:
        if base_key == self._key:
            self._drop()

    def _drop(self) -> None:
        self._network = self._key = None
        self.after_failure()

    def status(self) -> dict[str, Any]:
        free = available = None
        if self.device.type == "cuda":
            free = torch.cuda.mem_get_info()[0]
            available = free + torch.cuda.memory_reserved()  # what it holds goes before a load
        return {
            "device": str(self.device),
            "models": int(self._network is not None),
            "free_bytes": free,
            "available_bytes": available,
        }

    def interrupt(self, value: bool) -> None:
        self._stop = value

    def after_failure(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

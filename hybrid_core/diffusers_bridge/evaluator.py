"""The worker's side: one network, and the evaluation of one branch."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from hybrid_core.diffusers_bridge.branches import CONDITIONING, Branch
from hybrid_core.diffusers_bridge.portrait import build, portrait
from hybrid_core.errors import HybridError, NotSplittable, ProtocolError
from hybrid_core.machine import devices
from hybrid_core.stages.swap import Splitter
from hybrid_core.transport import wire
from hybrid_core.transport.carry import flatten, unflatten
from hybrid_core.workers.lease import CONTEXTS_KEPT

Fields = Mapping[str, Any]
Tensors = Sequence[torch.Tensor]
FEATURES = "the network's features"


class Stopped(HybridError):
    """The parent does not want the evaluation any more."""


class Evaluator:
    """Holds the latest network that was sent, on the one device that this process sees."""

    def __init__(self) -> None:
        logging.basicConfig(level=logging.WARNING, format="[hybrid worker] %(message)s")
        devices.check_given()
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._key: str | None = None
        self._network: nn.Module | None = None
        self._splitter: Splitter | None = None
        self._conditioning: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._stop = False

    def load(self, fields: Fields, tensors: Tensors) -> dict[str, Any]:
        """Make the replica that the message describes; its portrait."""
        data = unflatten(fields.get("data"), tensors)
        if not isinstance(data, dict) or data.keys() != {"key", "network"}:
            raise ProtocolError(f"a replica is {str(data)[:80]}, expected key and network")
        self._drop()
        network = build(data["network"], self._device)
        self._network, self._key = network, wire.text(data, "key")
        seen = portrait(network)
        for child in network.modules():
            child.register_forward_pre_hook(self._check_stop)
        return {"portrait": seen}

    def _check_stop(self, *_: Any) -> None:
        if self._stop:
            raise Stopped("stopped")

    def conds(self, fields: Fields, tensors: Tensors) -> dict[str, Any]:
        """Keep the conditioning of a branch under its number."""
        data = unflatten(fields.get("data"), [tensor.to(self._device) for tensor in tensors])
        if not isinstance(data, dict) or not data.keys() <= set(CONDITIONING):
            raise ProtocolError(f"conditioning is {str(data)[:80]}, expected {CONDITIONING}")
        self._conditioning[wire.whole_number(dict(fields), "context")] = data
        while len(self._conditioning) > CONTEXTS_KEPT:
            self._conditioning.popitem(last=False)
        return {}

    def step(self, fields: Fields, tensors: Tensors) -> tuple[list[torch.Tensor], Any]:
        """The prediction; with field "last", the boundary after that unit as a tree too."""
        forward = self._forward(fields, tensors)
        if "last" not in fields:
            return [forward()], None
        splitter, last = self._cut(fields)
        result, boundary = splitter.capture(forward, last)
        results: list[torch.Tensor] = [result]
        return results, flatten(boundary, results, FEATURES)

    def stage(self, fields: Fields, tensors: Tensors) -> tuple[list[torch.Tensor], Any]:
        """The boundary after unit "last", as a tree over the list."""
        forward = self._forward(fields, tensors)
        splitter, last = self._cut(fields)
        found: list[torch.Tensor] = []
        return found, flatten(splitter.stage_a(forward, last), found, FEATURES)

    def _forward(self, fields: Fields, tensors: Tensors) -> Callable[[], torch.Tensor]:
        """The evaluation that a message asks for: latents, a timestep, conditioning's number."""
        number = wire.whole_number(dict(fields), "context")
        network, conditioning = self._network, self._conditioning.get(number)
        if network is None or conditioning is None:
            raise ProtocolError(f"a step asks for conditioning {number}, which is not held")
        if len(tensors) != 2:
            raise ProtocolError(f"a step has {len(tensors)} tensors, expected latents, a timestep")
        x, timestep = (tensor.to(self._device) for tensor in tensors)
        return lambda: Branch(x, timestep, conditioning).evaluate(network)

    def _cut(self, fields: Fields) -> tuple[Splitter, int]:
        assert self._network is not None
        if self._splitter is None:
            self._splitter = Splitter(self._network)
        last = wire.whole_number(dict(fields), "last")
        if last >= len(self._splitter.layout.units):
            raise NotSplittable(
                f"there is no block {last}, the network has {len(self._splitter.layout.units)}"
            )
        return self._splitter, last

    def forget(self, fields: Fields) -> dict[str, Any]:
        """Drop the network whose parent's copy is gone."""
        if wire.text(dict(fields), "base_key") == self._key:
            self._drop()
        return {}

    def _drop(self) -> None:
        self._network = self._splitter = self._key = None
        self.after_failure()

    def status(self) -> dict[str, Any]:
        """What this process holds."""
        free = available = None
        if self._device.type == "cuda":
            free = torch.cuda.mem_get_info()[0]
            available = free + torch.cuda.memory_reserved()  # what it holds goes before a load
        return {
            "device": str(self._device),
            "models": int(self._network is not None),
            "free_bytes": free,
            "available_bytes": available,
        }

    def interrupt(self, value: bool) -> None:
        """Make the running evaluation stop at its next module, or let the next one run."""
        self._stop = value

    def after_failure(self) -> None:
        """Give memory back, so that a failed evaluation does not make the next one fail."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

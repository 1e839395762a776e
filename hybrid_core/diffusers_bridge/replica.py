"""The parent's network as data, from which the worker makes an equal one."""

from __future__ import annotations

import hashlib
import json
import weakref
from typing import Any

import torch
from torch import nn

from hybrid_core.diffusers_bridge.portrait import NETWORKS, compare, config_of, portrait
from hybrid_core.errors import NotPartitionable
from hybrid_core.machine.checksum import checksums
from hybrid_core.workers.holdings import identity

ACTIVATIONS = 0.15  # of the weights' size, beside them
# by network: the identity of its weights, and their checksums then
_checksums: weakref.WeakKeyDictionary[nn.Module, tuple[str, dict[str, int]]] = (
    weakref.WeakKeyDictionary()
)


def check_network(network: Any) -> None:
    """Raise NotPartitionable unless `network` can be described to another process."""
    kind = type(network).__name__
    if type(network) is not NETWORKS.get(kind, (None,))[0]:
        raise NotPartitionable(
            f"the pipeline's network is a {kind}, expected one of {', '.join(NETWORKS)}"
        )
    if getattr(network, "_compiled_call_impl", None) is not None:
        raise NotPartitionable("the whole network is compiled by torch.compile")
    if getattr(network, "peft_config", None):
        raise NotPartitionable(
            "the network has adapters (LoRA); fuse them: pipe.fuse_lora(), then "
            "pipe.unload_lora_weights()"
        )
    for name, weight in network.named_parameters():
        if weight.is_meta or type(weight) is not nn.Parameter:
            raise NotPartitionable(
                f"weight {name} is offloaded or quantised ({type(weight).__name__} on "
                f"{weight.device}), expected plain weights in memory"
            )


class ReplicaSource:
    """What the worker must hold to evaluate `network`. It holds one network, the latest."""

    def __init__(self, network: nn.Module):
        """Raises NotPartitionable."""
        check_network(network)
        self._network = network
        self._portrait = portrait(network, _weights(network))
        self.base_key = self.key = _digest(self._portrait)
        self.name = type(network).__name__
        self.by = ""
        self.half = next(network.parameters()).dtype.itemsize < 4

    def payload(self, with_base: bool) -> dict[str, Any]:
        """Data of the replica, always whole."""
        return {
            "key": self.key,
            "network": {
                "class": type(self._network).__name__,
                "config": config_of(self._network),
                "state": dict(self._network.state_dict()),
            },
        }

    def fingerprint(self) -> str:
        return _digest(portrait(self._network, _weights(self._network)))

    def changed_since(self, before: str) -> str | None:
        return None if self.fingerprint() == before else "weights or settings of a module"

    def needed_bytes(self) -> int:
        """Of the worker's device: the weights, and a share of them for an evaluation."""
        held = sum(t.numel() * t.element_size() for t in self._network.state_dict().values())
        return int(held * (1 + ACTIVATIONS))

    def verify(self, theirs: Any) -> None:
        """Raise ReplicaMismatch unless the worker's portrait equals this process's."""
        compare(self._portrait, theirs)


def _weights(network: nn.Module) -> dict[str, int]:
    """Checksums of the weights, made anew when a weight was replaced or written to."""
    state = network.state_dict()
    same = _digest([identity(tensor) for tensor in state.values()])
    known = _checksums.get(network)
    if known is None or known[0] != same:
        known = _checksums[network] = same, checksums(state.items())
    return known[1]


def _digest(value: Any) -> str:
    return hashlib.blake2s(json.dumps(value, sort_keys=True).encode()).hexdigest()


def output(network: nn.Module, sample: torch.Tensor, return_dict: bool) -> Any:
    """`sample` as the network's forward returns it."""
    return NETWORKS[type(network).__name__][1](sample=sample) if return_dict else (sample,)

"""What two copies of a network must have in common, as plain data; and a copy made from data."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from diffusers import SD3Transformer2DModel, UNet2DConditionModel
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import nn

from hybrid_core.errors import ProtocolError, ReplicaMismatch
from hybrid_core.machine.checksum import checksums, first_difference

# every network that is shared, and what its forward returns
NETWORKS: dict[str, tuple[Any, Any]] = {
    "UNet2DConditionModel": (UNet2DConditionModel, UNet2DConditionOutput),
    "SD3Transformer2DModel": (SD3Transformer2DModel, Transformer2DModelOutput),
}


def config_of(network: nn.Module) -> dict[str, Any]:
    """The arguments that a network of this kind is made with."""
    config: Any = network.config
    return {name: value for name, value in config.items() if not name.startswith("_")}


def portrait(network: nn.Module, weights: dict[str, int] | None = None) -> dict[str, Any]:
    """Class, configuration, what was set on each module, and the checksum of every weight.

    weights: the checksums, where they are known.
    """
    return {
        "class": type(network).__name__,
        "config": repr(sorted(config_of(network).items())),
        "modules": {name: _settings(name, module) for name, module in network.named_modules()},
        "weights": checksums(network.state_dict().items()) if weights is None else weights,
    }


def _settings(name: str, module: nn.Module) -> str:
    """Digest of the plain attributes of a module: FreeU, processors, hooks and the like show."""
    own = vars(module)
    plain = {
        key: value
        for key, value in own.items()
        if not key.startswith("_") and type(value) in (bool, int, float, str, type(None))
    }
    changed = [
        type(own.get("processor")).__name__,
        bool(module._forward_hooks or module._forward_pre_hooks),
        "forward" in own and name != "",  # the whole network's is this pack's
    ]
    text = repr([type(module).__name__, sorted(plain.items()), changed])
    return hashlib.blake2s(text.encode(), digest_size=8).hexdigest()


def compare(ours: dict[str, Any], theirs: Any) -> None:
    """Raise ReplicaMismatch naming the first difference."""
    if not isinstance(theirs, dict) or not all(
        isinstance(theirs.get(name), dict) for name in ("modules", "weights")
    ):
        raise ReplicaMismatch("the worker did not describe its network")
    for name in ("class", "config"):
        if ours[name] != theirs.get(name):
            raise ReplicaMismatch(
                f"the worker's network has {name} {str(theirs.get(name))[:200]}, "
                f"expected {ours[name][:200]}"
            )
    module = first_difference(ours["modules"], theirs["modules"])
    if module is not None:
        raise ReplicaMismatch(
            f"module '{module}' of the network is not as its configuration makes it, so the "
            "worker's differs: undo what was set on it (train(), FreeU, a processor, a hook)"
        )
    weight = first_difference(ours["weights"], theirs["weights"])
    if weight is not None:
        raise ReplicaMismatch(f"the worker's weight {weight} differs from this process's")


def build(data: Any, device: torch.device) -> nn.Module:
    """The network of `data` (class, config, state). Raises ProtocolError."""
    if not isinstance(data, dict) or data.keys() != {"class", "config", "state"}:
        raise ProtocolError(f"a network is {str(data)[:80]}, expected class, config and state")
    name, config, state = data["class"], data["config"], data["state"]
    if not isinstance(name, str) or name not in NETWORKS:
        raise ProtocolError(f"network {str(name)[:80]!r} is not one of {', '.join(NETWORKS)}")
    for what, kind in ((config, object), (state, torch.Tensor)):
        if not isinstance(what, dict) or not all(
            isinstance(key, str) and isinstance(value, kind) for key, value in what.items()
        ):
            raise ProtocolError(f"config or state of a {name} is {str(what)[:80]}")
    try:
        with torch.device("meta"):
            network: nn.Module = NETWORKS[name][0](**config)
        network.load_state_dict(state, strict=True, assign=True)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ProtocolError(f"no {name} could be made from what was sent: {error}") from error
    return network.eval().requires_grad_(False).to(device)

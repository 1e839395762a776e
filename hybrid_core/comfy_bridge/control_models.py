"""The networks of ControlNets and GLIGEN: checked, watched, and named by what they compute.

Both processes give equal networks the same name. Here a network is looked at before each run, and
named anew only where something in it has changed.
"""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import comfy.cldm.cldm
import comfy.controlnet
import comfy.gligen
import torch
from comfy.model_patcher import ModelPatcher
from torch import nn

from hybrid_core.comfy_bridge import support
from hybrid_core.comfy_bridge.fingerprint import code_of, is_loaders
from hybrid_core.errors import NotPartitionable
from hybrid_core.machine.checksum import checksum, checksums
from hybrid_core.stages import described
from hybrid_core.stages.network_state import NetworkState, NetworkWatch, difference
from hybrid_core.transport.carry import flatten

KINDS = ("ControlNet", "ControlLora", "QwenFunControlNet", "T2IAdapter")
NETWORKS = ("control_model", "t2i_model", "model")
# what a patcher keeps on the network that it loads
PATCHERS = frozenset(
    {
        "current_patcher", "current_weight_patches_uuid", "device", "lowvram_patch_counter",
        "model_loaded_weight_memory", "model_lowvram", "model_offload_buffer_memory",
        "skip_injection",
    }
)  # fmt: skip
PATCHES = (
    "patches", "object_patches", "weight_wrapper_patches", "hook_patches", "forced_hooks",
)  # fmt: skip
UNCHANGED = (lambda picture: picture).__code__.co_code


@dataclass(frozen=True)
class Seen:
    """A network as it was at a look."""

    name: str  # by kind, weights and settings
    state: NetworkState
    code: Any  # equal while nobody replaced what it calls


_watches: weakref.WeakKeyDictionary[nn.Module, NetworkWatch] = weakref.WeakKeyDictionary()
_seen: weakref.WeakKeyDictionary[nn.Module, Seen] = weakref.WeakKeyDictionary()
_loose: weakref.WeakKeyDictionary[Any, nn.Module] = weakref.WeakKeyDictionary()  # by ControlLora


def check(control: Any) -> None:
    """Raise NotPartitionable for a control with code or patches that the worker would not have."""
    check_object(control)
    network = None if _is_lora(control) else owner(control)
    overridden = None if network is None else support.overridden(network)
    if overridden is not None:
        raise NotPartitionable(f"other code overrides {overridden} in {_a(control)}")


def check_object(control: Any) -> None:
    """The same without its network's layers."""
    if isinstance(control, ModelPatcher):
        if type(control.model) is not comfy.gligen.Gligen:
            raise NotPartitionable(f"a GLIGEN is another pack's ({type(control.model).__name__})")
        _check_patcher(control, "a GLIGEN")
        return
    kind = type(control)
    if getattr(comfy.controlnet, kind.__name__, None) is not kind:
        raise NotPartitionable(f"a ControlNet is another pack's ({kind.__name__})")
    if kind.__name__ not in KINDS:
        raise NotPartitionable(f"this kind of ControlNet is not shared ({kind.__name__})")
    if control.extra_hooks is not None:
        raise NotPartitionable("a ControlNet carries hooks")
    method = support.replaced_method(control, support.methods_of(kind))
    if method is not None:
        raise NotPartitionable(f"other code replaces a ControlNet's {method}")
    prepares = getattr(control.preprocess_image, "__code__", None)
    if prepares is None or prepares.co_code != UNCHANGED:
        raise NotPartitionable("a ControlNet's hint is prepared by code")
    if getattr(control, "control_model_wrapped", None) is not None:
        _check_patcher(control.control_model_wrapped, "a ControlNet")


def _a(control: Any) -> str:
    return "a GLIGEN" if isinstance(control, ModelPatcher) else "a ControlNet"


def _is_lora(control: Any) -> bool:
    return getattr(control, "control_weights", None) is not None


def _check_patcher(patcher: ModelPatcher, what: str) -> None:
    found = [name for name in PATCHES if getattr(patcher, name, None)]
    found += ["injections"] if any(patcher.injections.values()) else []
    for kind in support.CHANGES_MODEL:
        found += [kind] if any(patcher.callbacks.get(kind, {}).values()) else []
    if found:
        raise NotPartitionable(f"another node patches {what} ({', '.join(found)})")


def owner(control: Any) -> Any:
    """The control's network, or the weights from which it makes one in a run."""
    if _is_lora(control):
        return control.control_weights
    for name in NETWORKS:
        network = getattr(control, name, None)
        if network is not None:
            return network
    raise NotPartitionable(f"a ControlNet ({type(control).__name__}) has no weights")


def look(control: Any) -> Seen:
    """The control's network as it is now. Raises NotPartitionable for weights of special kinds."""
    kind = type(control.model if isinstance(control, ModelPatcher) else control)
    classes: tuple[type, ...] = (kind,)
    if _is_lora(control):
        network, device = _loose.setdefault(control, nn.Module()), torch.device("cpu")
        weights = control.control_weights.items()
        network._buffers = {name: w for name, w in weights if isinstance(w, torch.Tensor)}
        classes = kind, comfy.cldm.cldm.ControlNet
    else:
        network, device = owner(control), _place(control)
    state = watched(network, classes, device)
    known = _seen.get(network)
    if known is None or known.state is not state:
        try:
            name = _name(kind, network)
        except (RuntimeError, TypeError) as error:
            raise NotPartitionable(
                f"{_a(control)}'s weights cannot be compared: {error}"
            ) from error
        layers = [(path, layer.cls, layer.attributes) for path, layer in state.modules.items()]
        known = _seen[network] = Seen(name, state, (state.code, layers))
    return known


def watched(network: nn.Module, classes: tuple[type, ...], device: torch.device) -> NetworkState:
    """A network as it is now: the object of the last look while nothing has changed.

    classes: whose code calls it. device: that computes with it.
    """
    if network not in _watches:
        _watches[network] = NetworkWatch(network, code_of(network, *classes), _is_a_place, device)
    return _watches[network].look()


def changed(control: Any, before: Seen) -> str | None:
    """What has changed in a control's network since, in words; None when nothing has."""
    after = look(control)
    if after.name == before.name and after.code == before.code:
        return None
    return f"{_a(control)}: {difference(before.state, after.state) or 'its weights changed'}"


def _place(control: Any) -> torch.device:
    """Where its network waits between two runs, or computes."""
    patcher = getattr(control, "control_model_wrapped", control)
    return torch.device(getattr(patcher, "load_device", "cpu"))


def _is_a_place(name: str) -> bool:
    return is_loaders(name) or name in PATCHERS or name.startswith("dynamic_")


def _name(kind: type, network: nn.Module) -> str:
    weights = {**dict(network.named_buffers()), **network.state_dict()}
    sums = checksums((k, w) for k, w in weights.items() if isinstance(w, torch.Tensor))
    layers = [[path, list(_settings(layer))] for path, layer in described.modules(network)]
    text = json.dumps([kind.__name__, sums, layers], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _settings(layer: nn.Module) -> Iterator[Any]:
    """Its class and those of its attributes that are plain data."""
    yield type(layer).__qualname__
    skipped = described.OF_EVERY_MODULE | described.written_in_forward(type(layer))
    for name, value in sorted(vars(layer).items()):
        if name in skipped or _is_a_place(name):
            continue
        tensors: list[torch.Tensor] = []
        try:
            tree = flatten(value, tensors)
        except NotPartitionable:  # a device, a function: the same place and code in each process
            continue
        yield name, tree, [checksum(tensor) for tensor in tensors]

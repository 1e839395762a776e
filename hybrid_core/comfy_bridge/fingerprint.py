"""Whether a model's network is what it was when it was compared with the worker's.

Taken at a run's first shared evaluation: a change that another node makes anywhere in the network,
or in code that it calls, is seen. Weights are sampled, because torch does not count every write.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from torch import nn

from hybrid_core.comfy_bridge import sampling_objects
from hybrid_core.stages import described
from hybrid_core.stages.described import Held
from hybrid_core.stages.network_state import NetworkState, NetworkWatch
from hybrid_core.stages.network_state import difference as network_difference

# What ComfyUI's loaders and ops keep on a layer: where its weights are, and patches of the model's
# patches_uuid. None says what a forward pass computes.
LOADERS = frozenset(
    {
        "comfy_cast_weights", "prev_comfy_cast_weights", "comfy_patched_weights",
        "comfy_force_cast_weights", "weight_function", "bias_function", "seed_key",
    }
)  # fmt: skip
LOADERS_ENDINGS = ("_lowvram_function", "_comfy_model_dtype", "_need_lazy_init_bias")
LOADERS_BEGINNINGS = ("_v", "_pin", "_prefetch")
CALLED = (
    "torch", "torch.nn.functional", "comfy.ops", "comfy.model_management", "comfy.model_base",
    "comfy.samplers", "comfy.conds", "comfy.rmsnorm", "comfy.ldm.common_dit",
    "comfy.ldm.modules.attention", "comfy.ldm.flux.math",
)  # fmt: skip


class Fingerprint:
    """Of one network at one moment. Equal while a forward pass computes the same."""

    __slots__ = ("network", "model", "sampling", "beside")

    def __init__(self, network: NetworkState, model: dict[str, Held], sampling: str, beside: Any):
        """beside: of the networks that conditioning brings."""
        self.network, self.model, self.sampling, self.beside = network, model, sampling, beside

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Fingerprint):
            return NotImplemented
        return (self.network is other.network or self.network == other.network) and (
            (self.model, self.sampling, self.beside) == (other.model, other.sampling, other.beside)
        )

    def __hash__(self) -> int:
        return hash(self.network)


def fingerprint(patcher: ModelPatcher, sampled: bool = True, beside: Any = None) -> Fingerprint:
    """Of the patcher's model as it is now; sampled: its weights too, as torch counts no writes.

    beside: the code of networks that conditioning brings.
    """
    model: BaseModel = patcher.model
    if model not in _watches:
        _watches[model] = NetworkWatch(
            model.diffusion_model,
            code_of(model.diffusion_model, type(model)),
            is_loaders,
            patcher.load_device,
        )
    sampling = sampling_objects.digest(model.model_sampling)
    return Fingerprint(_watches[model].look(sampled), _own_functions(model), sampling, beside)


def difference(before: Fingerprint, after: Fingerprint) -> str | None:
    """What changed first, in words that name its place; None when nothing did."""
    for name in before.model.keys() | after.model.keys():
        if before.model.get(name) != after.model.get(name):
            return f"the model's {name} was replaced"
    if before.sampling != after.sampling:
        return "the model's sampling"
    if before.beside != after.beside:
        return "a ControlNet's code was replaced"
    return network_difference(before.network, after.network)


_watches: weakref.WeakKeyDictionary[BaseModel, NetworkWatch] = weakref.WeakKeyDictionary()


def is_loaders(name: str) -> bool:
    return name in LOADERS or name.endswith(LOADERS_ENDINGS) or name.startswith(LOADERS_BEGINNINGS)


def _own_functions(model: BaseModel) -> dict[str, Held]:
    """Functions that were put on this very object."""
    return {
        name: Held(value)
        for name, value in vars(model).items()
        if callable(value) and not described.is_own(model, name, value)
    }


def code_of(network: nn.Module, *classes: type) -> Mapping[str, Mapping[str, Any]]:
    """Python modules that define a network's blocks or that those use.

    classes: of objects that call it.
    """
    around = {cls: None for called in classes for cls in called.__mro__[:-1]}
    blocks = {cls for module in network.modules() for cls in type(module).__mro__[:-1]}
    names = {cls.__module__ for cls in blocks | around.keys()}
    for name in [name for name in names if name in sys.modules]:
        names |= set(_used_by(sys.modules[name]))
    spaces = {name: vars(sys.modules[name]) for name in {*names, *CALLED} if name in sys.modules}
    return spaces | {f"{c.__module__}.{c.__qualname__}": vars(c) for c in around}


def _used_by(module: ModuleType) -> list[str]:
    """Modules of ComfyUI's networks whose functions or whole selves this one has imported."""
    found = [
        value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        for value in vars(module).values()
        if callable(value) or isinstance(value, ModuleType)
    ]
    return [name for name in found if isinstance(name, str) and name.startswith("comfy.ldm.")]

"""What cannot be evaluated in another process, and why: one sentence for each.

A check raises NotPartitionable; the run is then what KSampler's would be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from types import FunctionType
from typing import Any

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, WrappersMP
from torch import nn

from hybrid_core.config import WorkerDevice
from hybrid_core.errors import NotPartitionable
from hybrid_core.machine.devices import own_gpu
from hybrid_core.stages.described import is_own

WRAPPER_KEY = "hybrid_ksampler"
INSIDE_FORWARD = (WrappersMP.APPLY_MODEL, WrappersMP.DIFFUSION_MODEL)
CHANGES_MODEL = (
    CallbacksMP.ON_LOAD, CallbacksMP.ON_PRE_RUN,
    CallbacksMP.ON_PREPARE_STATE, CallbacksMP.ON_APPLY_HOOKS,
)  # fmt: skip
ACTING = frozenset({"patches", "patches_replace", "wrappers", "callbacks"})  # of the options
SENT_OBJECT_PATCHES = {"model_sampling"}
EVALUATION = frozenset(  # what an evaluation calls on BaseModel
    {"apply_model", "_apply_model", "process_timestep", "get_dtype", "get_dtype_inference"}
)
PARENTS_OBJECT_PATCHES = {"latent_format"}  # used before and after sampling only


def check_model(patcher: ModelPatcher) -> None:
    """Raise NotPartitionable when `patcher` holds code that the worker would not have."""
    if getattr(patcher, "additional_models", {}).get("multigpu"):
        raise NotPartitionable(
            "MultiGPU CFG Split is attached to this model; remove one of the two"
        )
    if any(patcher.injections.values()):
        raise NotPartitionable(f"other nodes inject layers ({_names(patcher.injections)})")
    if patcher.forced_hooks:
        raise NotPartitionable("hooks change this model's weights at every prompt")
    if getattr(patcher, "weight_wrapper_patches", None):
        raise NotPartitionable("another node wraps this model's weights")
    others = patcher.object_patches.keys() - SENT_OBJECT_PATCHES - PARENTS_OBJECT_PATCHES
    if others:
        raise NotPartitionable(f"another node replaces parts of this model ({_names(others)})")
    for kind in CHANGES_MODEL:
        _no_one_else(patcher.callbacks.get(kind, {}), f"runs code at '{kind}'")
    replaced = replaced_method(patcher.model, EVALUATION)
    if replaced is not None:
        raise NotPartitionable(f"other code replaces the model's {replaced}")
    layer = overridden(patcher.model.diffusion_model)
    if layer is not None:
        raise NotPartitionable(f"other code overrides the forward pass of {layer}")


def overridden(network: nn.Module) -> str | None:
    """A layer with hooks, or methods that its class has not."""
    for module in _modules(network):
        if _is_overridden(module):
            name = next(name for name, one in network.named_modules() if one is module)
            return name or type(module).__name__
    return None


def _modules(network: nn.Module) -> Iterator[nn.Module]:
    """All of them, each once: torch's own walk takes three times as long, at every run."""
    waiting, seen = [network], {id(network)}
    while waiting:
        module = waiting.pop()
        yield module
        for child in module._modules.values():
            if child is not None and id(child) not in seen:
                seen.add(id(child))
                waiting.append(child)


def _is_overridden(module: nn.Module) -> bool:
    cls: Any = type(module)
    own, methods = module.__dict__, methods_of(cls)
    if own["_forward_hooks"] or own["_forward_pre_hooks"]:
        return True
    return not methods.isdisjoint(own) and replaced_method(module, methods) is not None


def replaced_method(one: Any, names: frozenset[str]) -> str | None:
    """One of these methods that something else than the class's hides on this very object."""
    for name in vars(one).keys() & names:
        value = vars(one)[name]
        if callable(value) and not is_own(one, name, value):
            return name
    return None


@lru_cache(maxsize=1000)
def methods_of(cls: type) -> frozenset[str]:
    """Names of the functions that a class's objects have."""
    return frozenset(
        name
        for base in cls.__mro__
        for name, value in vars(base).items()
        if isinstance(value, FunctionType)
    )


def check_place(patcher: ModelPatcher, worker: WorkerDevice) -> None:
    """Raise NotPartitionable when the model is where the worker is, or on no such device.

    ComfyUI's node Select Model Device can put a model on a device of its own.
    """
    usual, place = comfy.model_management.get_torch_device(), patcher.load_device
    if place == usual:
        return
    if place.type != usual.type or own_gpu(place).uuid == worker.uuid:
        raise NotPartitionable(
            f"another node put this model on {place}; the second process works on {worker.label} "
            f"beside a model on {usual}"
        )


def check_options(model_options: Mapping[str, Any]) -> None:
    """Raise NotPartitionable when the run's options act inside the network's forward pass."""
    check_around(model_options)
    if "model_function_wrapper" in model_options:
        raise NotPartitionable("another node wraps the model function")
    transformer = model_options.get("transformer_options", {})
    for kind in ("patches", "patches_replace"):
        patches = {name: value for name, value in transformer.get(kind, {}).items() if value}
        if patches:
            raise NotPartitionable(f"another node patches the network ({kind}: {_names(patches)})")
    for kind in INSIDE_FORWARD:
        _no_one_else(transformer.get("wrappers", {}).get(kind, {}), f"wraps '{kind}'")
    for kind in CHANGES_MODEL:
        _no_one_else(transformer.get("callbacks", {}).get(kind, {}), f"runs code at '{kind}'")


def check_around(model_options: Mapping[str, Any]) -> None:
    """Raise NotPartitionable when the run's options act around an evaluation."""
    if "multigpu_clones" in model_options:
        raise NotPartitionable(
            "MultiGPU CFG Split is attached to this model; remove one of the two"
        )
    transformer = model_options.get("transformer_options", {})
    kind = WrappersMP.CALC_COND_BATCH
    _no_one_else(transformer.get("wrappers", {}).get(kind, {}), f"wraps '{kind}'")
    for name, value in transformer.items():
        if name not in ACTING and _holds_tensors(value, deeper_than=1):
            raise NotPartitionable(f"the model remembers what it has seen in the run ({name})")


def _holds_tensors(value: Any, deeper_than: int) -> bool:
    """Whether containers within containers hold tensors: caches that an evaluation writes to."""
    if isinstance(value, torch.Tensor):
        return deeper_than < 0
    if isinstance(value, Mapping):
        value = list(value.values())
    if not isinstance(value, list | tuple):
        return False
    return any(_holds_tensors(one, deeper_than - 1) for one in value)


def obstacle_to(model_options: Mapping[str, Any]) -> str | None:
    """Why this pack is never asked: another node evaluates the branches itself."""
    if "sampler_calc_cond_batch_function" in model_options:
        return "another node evaluates the branches itself"
    return None


def _no_one_else(by_key: Mapping[Any, list[Any]], does: str) -> None:
    others = [key for key, values in by_key.items() if values and key != WRAPPER_KEY]
    if others:
        raise NotPartitionable(f"another node {does} ({_names(others)})")


def _names(values: Iterable[Any]) -> str:
    return ", ".join(sorted(str(value) for value in values)[:3])


def check_tensor_weights(state: Mapping[str, Any]) -> None:
    """Raise NotPartitionable for weights of special classes (GGUF, quantised)."""
    for name, value in state.items():
        if type(value) not in (torch.Tensor, torch.nn.Parameter):
            raise NotPartitionable(f"weight {name} is a {type(value).__name__}")

"""The parent's model as data, from which the worker makes an equal one.

A model whose loader left a factory is loaded again by that loader; of any other model the weights
and the configuration are sent. Patches (LoRA and its kin) and the sampling object always travel.
"""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Callable
from typing import Any

import comfy.model_management
import comfy.sd
import comfy.supported_models
import torch
from comfy.model_patcher import ModelPatcher

from hybrid_core.comfy_bridge import (
    demo_models,
    model_files,
    patches,
    sampling_objects,
    support,
)
from hybrid_core.comfy_bridge.brought import Brought
from hybrid_core.comfy_bridge.fingerprint import Fingerprint, difference, fingerprint
from hybrid_core.comfy_bridge.hooks import without_hooks
from hybrid_core.comfy_bridge.naming import spoken_name
from hybrid_core.comfy_bridge.portrait import compare, portrait
from hybrid_core.comfy_bridge.weights import PREFIX, Weight, total_bytes, weights
from hybrid_core.config import RAY_WEIGHTS_VARIABLE
from hybrid_core.errors import NotPartitionable, ReplicaMismatch
from hybrid_core.transport.carry import flatten

Tokens = weakref.WeakKeyDictionary[Any, str]


def factories() -> dict[str, Callable[..., Any]]:
    """Loaders that the worker may be told to call."""
    names = (
        "load_checkpoint_guess_config",
        "load_checkpoint_guess_config_model_only",
        "load_diffusion_model",
    )
    known = {name: getattr(comfy.sd, name) for name in names if hasattr(comfy.sd, name)}
    return {**known, "load_demo_model": demo_models.load_model}


class ModelSource:
    """What is the same of every model that a worker is to hold, seen from the parent.

    base_key names the weights without patches.
    """

    by = ""
    key = ""
    tokens: Tokens  # names of weights, by the model that holds them

    def __init__(
        self,
        patcher: ModelPatcher,
        on_gone: Callable[[str], None],
        shape: tuple[int, ...] | None = None,
        brought: Brought | None = None,
        attached: ModelPatcher | None = None,
    ):
        """shape: of the latents that will be sampled, where it is known.

        brought: by the run's conditioning. attached: the model before the run.
        """
        self._patcher, self._shape = patcher, shape
        self._brought = brought or Brought({}, patcher, None)
        self._patches_uuid = without_hooks(patcher, attached or patcher)
        if patcher.model not in self.tokens:
            token = self.tokens[patcher.model] = uuid.uuid4().hex
            weakref.finalize(patcher.model, on_gone, token).atexit = False
        self.base_key = self.tokens[patcher.model]
        self._sampling_object = patcher.get_model_object("model_sampling")
        self._sampling_digest = sampling_objects.digest(self._sampling_object)
        self.name = spoken_name(patcher)
        self.half = patcher.model.get_dtype_inference().itemsize < 4

    def fingerprint(self) -> Fingerprint:
        return fingerprint(self._patcher, beside=self._brought.code)

    def changed_since(self, before: Fingerprint) -> str | None:
        now = fingerprint(self._patcher, sampled=False, beside=self._brought.code)
        return difference(before, now) or self._brought.changed()

    def needed_bytes(self) -> int:
        """Of the worker's device: the weights, and what ComfyUI keeps free for an evaluation."""
        management = comfy.model_management
        reserve = management.extra_reserved_memory() + self._activation_bytes()
        return total_bytes(self._patcher) + int(max(management.minimum_inference_memory(), reserve))

    def _activation_bytes(self) -> int:
        """By ComfyUI's own estimate."""
        if self._shape is None:
            return 0
        return int(self._patcher.model.memory_required(list(self._shape)))


def check_not_refused(theirs: Any) -> None:
    """Raise ReplicaMismatch with the worker's reason where it did not make the model."""
    if isinstance(theirs, dict) and isinstance(theirs.get("refused"), str):
        raise ReplicaMismatch(theirs["refused"][:500])


class ReplicaSource(ModelSource):
    """A model as data, after `support.check_model`; key names it as it is patched now."""

    tokens: Tokens = weakref.WeakKeyDictionary()

    def __init__(
        self,
        patcher: ModelPatcher,
        on_gone: Callable[[str], None],
        shape: tuple[int, ...] | None = None,
        brought: Brought | None = None,
        attached: ModelPatcher | None = None,
    ):
        super().__init__(patcher, on_gone, shape, brought, attached)
        self._sampling = sampling_objects.describe(self._sampling_object)
        patches = self._patches_uuid.hex
        self.key = f"{self.base_key}:{patches}:{self._sampling_digest}:{self._brought.key}"

    def payload(self, with_base: bool) -> dict[str, Any]:
        """Data of the replica. Raises NotPartitionable."""
        return {
            "base_key": self.base_key,
            "key": self.key,
            "base": describe_base(self._patcher) if with_base else None,
            "patches": describe_patches(self._patcher),
            "patches_uuid": self._patches_uuid,
            "sampling": self._sampling,
            "brought": self._brought.data(),
            "activation_bytes": self._activation_bytes(),
        }

    def verify(self, theirs: Any) -> None:
        """Raise ReplicaMismatch unless the worker's portrait equals this process's."""
        check_not_refused(theirs)
        try:
            ours = portrait(self._patcher, self._brought.hooks.patches)
        except (RuntimeError, TypeError) as error:  # weights of a kind that cannot be added up
            raise ReplicaMismatch(f"this model cannot be compared: {error}") from error
        compare(ours, theirs)


class RemoteSource:
    """A model for another computer, which has its file; its weights go only where that is asked."""

    def __init__(self, source: ReplicaSource, send_weights: bool):
        self._source, self._send_weights = source, send_weights
        self.base_key, self.key, self.name = source.base_key, source.key, source.name
        self.by, self.half = source.by, source.half
        self.fingerprint, self.changed_since = source.fingerprint, source.changed_since
        self.verify, self.needed_bytes = source.verify, source.needed_bytes

    def payload(self, with_base: bool) -> dict[str, Any]:
        """Raises NotPartitionable for a model without a file where weights are not sent."""
        data = self._source.payload(with_base=False)
        return {**data, "base": self._base() if with_base else None}

    def _base(self) -> dict[str, Any]:
        if self._send_weights:
            return describe_weights(self._source._patcher)
        known = _known_factory(self._source._patcher)
        if known is None:
            raise NotPartitionable(
                f"{self.name} was not loaded from a model file by ComfyUI's own loaders; its "
                f"weights are sent to another computer only with {RAY_WEIGHTS_VARIABLE}=1"
            )
        return {**known, "args": model_files.named(known["args"])}


def describe_base(patcher: ModelPatcher) -> dict[str, Any]:
    """How to get the unpatched model. Raises NotPartitionable."""
    return _known_factory(patcher) or describe_weights(patcher)


def check_base(patcher: ModelPatcher) -> None:
    """Raise NotPartitionable where `describe_base` would; looks at no weight's values."""
    if _known_factory(patcher) is None:
        _check_configuration(patcher)
        support.check_tensor_weights(patcher.model.diffusion_model.state_dict())


def _known_factory(patcher: ModelPatcher) -> dict[str, Any] | None:
    """The loader's call, None where the worker cannot be told to make it."""
    factory: Any = getattr(patcher, "cached_patcher_init", None)
    if factory is None:
        return None
    for name, function in factories().items():
        if function is factory[0]:
            try:
                flatten(factory[1], [])
            except NotPartitionable:
                return None  # an argument that cannot travel: the weights can
            index = factory[2] if len(factory) > 2 else None
            return {"factory": name, "args": tuple(factory[1]), "index": index}
    return None


def _check_configuration(patcher: ModelPatcher) -> None:
    config = patcher.model.model_config
    if getattr(comfy.supported_models, type(config).__name__, None) is not type(config):
        raise NotPartitionable(
            f"this model's loader left no factory and its configuration "
            f"({type(config).__name__}) is another pack's"
        )
    if config.custom_operations is not None or getattr(config, "quant_config", None) is not None:
        raise NotPartitionable("this model's weights are quantised by another pack's loader")


def describe_weights(patcher: ModelPatcher) -> dict[str, Any]:
    """Configuration and weights themselves. Raises NotPartitionable."""
    model, config = patcher.model, patcher.model.model_config
    _check_configuration(patcher)
    state = {weight.name: weight.plain() for weight in weights(patcher)}
    support.check_tensor_weights(state)
    return {
        "config": type(config).__name__,
        "unet_config": {k: v for k, v in config.unet_config.items() if k != "dtype"},
        "dtype": model.get_dtype(),
        "manual_cast_dtype": model.manual_cast_dtype,
        "optimizations": dict(config.optimizations),
        "sampling_settings": dict(config.sampling_settings),
        "state": state,
    }


def describe_patches(patcher: ModelPatcher) -> list[Any]:
    """Weight patches by key, adapters as (class name, weights).

    A weight that other code has a part in (a merge, a patch function, another pack's adapter) is
    sent as it comes out of its patches.
    """
    odd = {
        key for key, several in patcher.patches.items() if not all(map(patches.is_data, several))
    }
    made = {PREFIX + weight.name: weight for weight in weights(patcher)} if odd else {}
    described: list[Any] = []
    for key, several in patcher.patches.items():
        if key in odd and key in made:
            described.append((key, [(1.0, ("set", (_outcome(made[key], patcher),)), 1.0, None)]))
        elif key not in odd:
            described.append((key, [patches.describe(patch) for patch in several]))
    return described


def _outcome(weight: Weight, patcher: ModelPatcher) -> torch.Tensor:
    patched = weight.patched(patcher)
    if type(patched) not in (torch.Tensor, torch.nn.Parameter) or patched is None:
        raise NotPartitionable(
            f"a merge or a patch function changes weight {weight.name}, which is quantised"
        )
    if patched.shape != weight.base.shape:
        raise NotPartitionable(f"a patch function changes the shape of weight {weight.name}")
    return patched

"""The worker's models, from the data that replica.py made of the parent's."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import comfy.supported_models_base

from hybrid_core.comfy_bridge import patches, sampling_objects
from hybrid_core.comfy_bridge.replica import factories
from hybrid_core.errors import ProtocolError


def base(described: dict[str, Any]) -> comfy.model_patcher.ModelPatcher:
    """The unpatched model. Raises ProtocolError for a loader or class that is not known."""
    if "factory" not in described:
        return _from_weights(described)
    factory = factories().get(described["factory"])
    if factory is None:
        raise ProtocolError(f"loader {described['factory']!r} is not known here")
    made = factory(*described["args"])
    return made if described["index"] is None else made[described["index"]]


def patched(
    patcher: comfy.model_patcher.ModelPatcher, data: dict[str, Any]
) -> comfy.model_patcher.ModelPatcher:
    """A clone with the parent's weight patches and sampling object."""
    clone = patcher.clone()
    clone.patches = {key: [patches.restore(p) for p in some] for key, some in data["patches"]}
    clone.patches_uuid = data["patches_uuid"]
    clone.add_object_patch("model_sampling", sampling_objects.rebuild(data["sampling"]))
    return clone


def _from_weights(described: dict[str, Any]) -> comfy.model_patcher.ModelPatcher:
    known = getattr(comfy.supported_models, described["config"], None)
    if not (isinstance(known, type) and issubclass(known, comfy.supported_models_base.BASE)):
        raise ProtocolError(f"model configuration {described['config']!r} is not known here")
    config = known(described["unet_config"])
    config.optimizations = described["optimizations"]
    config.sampling_settings = described["sampling_settings"]
    config.set_inference_dtype(described["dtype"], described["manual_cast_dtype"])
    state = described["state"]
    model = config.get_model(state, "")
    offload = comfy.model_management.unet_offload_device()
    model.to(offload)
    model.diffusion_model.load_state_dict(state)
    return comfy.model_patcher.CoreModelPatcher(
        model, load_device=comfy.model_management.get_torch_device(), offload_device=offload
    )

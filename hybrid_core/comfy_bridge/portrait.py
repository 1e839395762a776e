"""What two copies of a model must have in common, as plain data. Made on both sides, compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher

from hybrid_core.checksum import checksums, first_difference
from hybrid_core.errors import ReplicaMismatch

PREFIX = "diffusion_model."


def portrait(patcher: ModelPatcher) -> dict[str, Any]:
    """Class, configuration, dtypes, layers, and the checksum of every effective weight.

    The patcher's model must be loaded (comfy.model_management.load_models_gpu).
    """
    model = patcher.model
    layers = [f"{n}:{type(m).__name__}" for n, m in model.diffusion_model.named_modules()]
    return {
        "class": type(model).__name__,
        "config": json.dumps(
            {k: str(v) for k, v in sorted(model.model_config.unet_config.items())}
        ),
        "dtype": str(model.get_dtype()),
        "inference dtype": str(model.get_dtype_inference()),
        "layers": hashlib.sha256("\n".join(layers).encode()).hexdigest(),
        "patched weights": len(patcher.patches),
        "weights": checksums(effective_weights(patcher)),
    }


def effective_weights(patcher: ModelPatcher) -> Iterator[tuple[str, torch.Tensor]]:
    """Every weight of the network with its patches in."""
    for name, weight in patcher.model.diffusion_model.state_dict().items():
        key = PREFIX + name
        if key in patcher.patches and key not in patcher.backup:
            weight = patcher.patch_weight_to_device(key, return_weight=True)
        yield name, weight


def compare(ours: dict[str, Any], theirs: Any) -> None:
    """Raise ReplicaMismatch naming the first difference."""
    if not isinstance(theirs, dict) or not isinstance(theirs.get("weights"), dict):
        raise ReplicaMismatch("the worker did not describe its model")
    for name, value in ours.items():
        if name != "weights" and value != theirs.get(name):
            raise ReplicaMismatch(
                f"the worker's model has {name} {str(theirs.get(name))[:200]}, "
                f"expected {str(value)[:200]}"
            )
    weight = first_difference(ours["weights"], theirs["weights"])
    if weight is not None:
        raise ReplicaMismatch(f"the worker's weight {weight} differs from this process's")

"""What two copies of a model must have in common, as plain data. Made on both sides, compared."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import comfy.ldm.modules.attention
import torch
from comfy.model_patcher import ModelPatcher

from hybrid_core.comfy_bridge.patches import describe, is_data
from hybrid_core.comfy_bridge.weights import weights
from hybrid_core.config import DEVICE_VARIABLE
from hybrid_core.errors import ReplicaMismatch
from hybrid_core.machine.checksum import checksum, first_difference
from hybrid_core.transport.carry import flatten

OF_THE_CARD = {  # what ComfyUI chooses by the GPU, and what makes it choose alike
    "dtype": "with --fp16-unet",
    "manual cast dtype": "with --fp16-unet",
    "inference dtype": "with --fp16-unet",
    "operations": "without --fast",
    "attention": "with --use-pytorch-cross-attention",
}
OF_THE_MODEL = ("class", "config", "layers", "patched weights", "patches", "hooks")
AT_ONCE = 1 << 24  # elements: a device that the model fills has room for so many
SAMPLES = 8  # patched weights of a dynamic parent, which has to make each of them for this
ROUNDING = 0.05  # share of a patch's effect that another card's arithmetic may change


def portrait(
    patcher: ModelPatcher, hooked: Mapping[str, dict[str, list[Any]]] | None = None
) -> dict[str, Any]:
    """Class, configuration, dtypes, layers, patches, and a checksum of every weight.

    hooked: patches that hooks bind to a prompt, by hook and weight.
    The patcher's model must be loaded (comfy.model_management.load_models_gpu).
    """
    base: dict[str, int] = {}
    effects: dict[str, Any] = {}
    card = _card(patcher.load_device)
    for weight in weights(patcher):
        plain = weight.plain()
        base[weight.name] = checksum(plain)
        if patcher.is_dynamic() and not weight.in_place and len(effects) >= SAMPLES:
            continue
        patched = weight.patched(patcher)
        if patched is not None:
            way = "in place" if weight.in_place and not patcher.is_dynamic() else "at use"
            by = f"{card}, {patched.device.type}, {way}"
            effects[weight.name] = _effect(plain, patched, by)
    return {
        **outline(patcher),
        "patches": _digest(patcher.patches),
        "hooks": [[name, _digest(some)] for name, some in sorted((hooked or {}).items())],
        "weights": base,
        "effects": effects,
    }


def outline(patcher: ModelPatcher) -> dict[str, Any]:
    """A portrait without weights: for a model whose predictions are compared instead."""
    model = patcher.model
    modules = dict(model.diffusion_model.named_modules())
    layers = [f"{name}:{type(module).__name__}" for name, module in modules.items()]
    operations = {
        type(module).__qualname__.rpartition(".")[0]
        for module in modules.values()
        if hasattr(module, "comfy_cast_weights")
    }
    config = {k: str(v) for k, v in sorted(model.model_config.unet_config.items()) if k != "dtype"}
    return {
        "class": type(model).__name__,
        "config": json.dumps(config),
        "dtype": str(model.get_dtype()),
        "manual cast dtype": str(model.manual_cast_dtype),
        "inference dtype": str(model.get_dtype_inference()),
        "operations": ", ".join(sorted(operations)),
        "attention": comfy.ldm.modules.attention.optimized_attention.__name__,
        "layers": hashlib.sha256("\n".join(layers).encode()).hexdigest(),
        "patched weights": len(patcher.patches),
    }


def _card(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _effect(plain: torch.Tensor, patched: torch.Tensor, by: str) -> dict[str, Any]:
    """What patches make of a weight: exactly, and roughly for a card that rounds otherwise."""
    if plain.shape != patched.shape:  # a patch that widens it
        plain = torch.zeros_like(patched)
    change = size = 0.0
    pairs = zip(*(w.reshape(-1).split(AT_ONCE) for w in (plain, patched)), strict=True)
    for before, after in pairs:
        before = before.to(after.device).float()
        change += float((after.float() - before).abs().sum(dtype=torch.float64))
        size += float(before.abs().sum(dtype=torch.float64))
    step = torch.finfo(patched.dtype).eps if patched.is_floating_point() else 0.0
    count = max(1, plain.numel())
    return {
        "checksum": checksum(patched),
        "by": by,
        "change": change / count,
        "rounding": step * size / count,
    }


def _digest(patches: dict[str, list[Any]]) -> str:
    """Of the patches as they were given, before any arithmetic; not of weights that are sent as
    they come out of their patches, which are compared by their effect.
    """
    tensors: list[torch.Tensor] = []
    given = [
        (key, [describe(patch) for patch in several])
        for key, several in patches.items()
        if all(map(is_data, several)) and not _is_outcome(several)
    ]
    tree = flatten(given, tensors, "a patch")
    text = json.dumps([tree, [checksum(tensor) for tensor in tensors]])
    return hashlib.sha256(text.encode()).hexdigest()


def _is_outcome(several: list[tuple[Any, ...]]) -> bool:
    """Whether all that the patches do is to set the whole weight."""
    (first, *more) = several
    return not more and type(first[1]) is tuple and first[1][0] == "set" and first[3] is None


def compare(ours: dict[str, Any], theirs: Any) -> None:
    """Raise ReplicaMismatch naming what differs, and what to do where that is known."""
    if not isinstance(theirs, dict) or not all(
        isinstance(theirs.get(name), dict) for name in ("weights", "effects")
    ):
        raise ReplicaMismatch("the worker did not describe its model")
    compare_outlines(ours, theirs)
    weight = first_difference(ours["weights"], theirs["weights"])
    if weight is not None:
        raise ReplicaMismatch(f"the worker's weight {weight} differs from this process's")
    if not ours["effects"].keys() <= theirs["effects"].keys():
        raise ReplicaMismatch("the worker's patches are on other weights than this process's")
    for name, effect in ours["effects"].items():
        if not _same_effect(effect, theirs["effects"][name]):
            raise ReplicaMismatch(
                f"the worker's weight {name} with its patches is "
                f"{str(theirs['effects'][name])[:200]}, expected {effect}"
            )


def compare_outlines(ours: dict[str, Any], theirs: Any) -> None:
    """Raise ReplicaMismatch like `compare`."""
    if not isinstance(theirs, dict):
        raise ReplicaMismatch("the worker did not describe its model")
    differing = [name for name in OF_THE_CARD if ours[name] != theirs.get(name)]
    if differing:
        seen = (
            f"{name} {ours[name]} here, {str(theirs.get(name))[:80]} there" for name in differing
        )
        advice = " and ".join(dict.fromkeys(OF_THE_CARD[name] for name in differing))
        raise ReplicaMismatch(
            f"the two GPUs make ComfyUI choose differently ({'; '.join(seen)}): start it {advice}, "
            f"or name a GPU like the first in {DEVICE_VARIABLE}"
        )
    for name in OF_THE_MODEL:
        if name in ours and ours[name] != theirs.get(name):
            raise ReplicaMismatch(
                f"the worker's model has {name} {str(theirs.get(name))[:200]}, "
                f"expected {str(ours[name])[:200]}"
            )


def _same_effect(ours: dict[str, Any], theirs: Any) -> bool:
    """Equal bytes from equal cards; from others, patches that change a weight as much."""
    if not isinstance(theirs, dict) or ours.keys() != theirs.keys():
        return False
    if ours["by"] == theirs["by"]:
        return bool(ours["checksum"] == theirs["checksum"])
    numbers = [one[name] for one in (ours, theirs) for name in ("change", "rounding")]
    if not all(isinstance(number, float) and math.isfinite(number) for number in numbers):
        return False
    mine, rounding, others, their_rounding = numbers
    allowed = ROUNDING * max(mine, others) + 2 * max(rounding, their_rounding)
    return bool(abs(mine - others) <= allowed)

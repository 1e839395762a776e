"""What a ControlNet's evaluation reads of the control object itself, as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from comfy.controlnet import StrengthType
from torch import nn

from hybrid_core.comfy_bridge import control_models
from hybrid_core.errors import NotPartitionable, ProtocolError
from hybrid_core.machine.checksum import checksum
from hybrid_core.stages.described import Held
from hybrid_core.stages.described import describe as described
from hybrid_core.transport import wire

SET_IN_A_RUN = "base_model"  # an extra argument that a control gives itself
Check = Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _is_range(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_number, value))


def _is_picture(value: Any) -> bool:
    return value is None or isinstance(value, torch.Tensor)


def _lists(kind: type) -> Check:
    return lambda value: isinstance(value, list) and all(isinstance(v, kind) for v in value)


VALUES: dict[str, Check] = {
    "strength": _is_number,
    "timestep_percent_range": _is_range,
    "cond_hint_original": _is_picture,
    "extra_concat_orig": _lists(torch.Tensor),
    "extra_conds": _lists(str),
    "extra_args": lambda value: isinstance(value, dict),
    "global_average_pooling": _is_flag,
    "compression_ratio": lambda value: _is_number(value) and value > 0,
    "upscale_algorithm": lambda value: isinstance(value, str),
    "strength_type": lambda value: isinstance(value, str) and value in StrengthType.__members__,
}
CAST: dict[str, Check] = {
    "manual_cast_dtype": lambda value: value is None or isinstance(value, torch.dtype)
}
OF_KINDS: dict[str, dict[str, Check]] = {
    "ControlNet": CAST,
    "QwenFunControlNet": CAST,
    "T2IAdapter": {"channels_in": lambda value: type(value) is int and value > 0},
}


def _values_of(control: Any) -> dict[str, Check]:
    return VALUES | OF_KINDS.get(type(control).__name__, {})


def describe(control: Any) -> dict[str, Any]:
    """Its values by name. Raises NotPartitionable for those of a kind that ComfyUI never gives."""
    checks = _values_of(control)
    values = {name: getattr(control, name) for name in checks}
    values["strength_type"] = getattr(values["strength_type"], "name", None)
    values["extra_args"] = {k: v for k, v in values["extra_args"].items() if k != SET_IN_A_RUN}
    for name, fits in checks.items():
        if not fits(values[name]):
            raise NotPartitionable(f"a ControlNet's {name} is {wire.shown(getattr(control, name))}")
    return values


def restore(control: Any, values: Mapping[str, Any]) -> None:
    """Give a control of the same kind what `describe` described. Raises ProtocolError."""
    for name, fits in _values_of(control).items():
        value = values.get(name)
        if not fits(value):
            raise ProtocolError(f"a ControlNet's {name} is {wire.shown(value)}")
        setattr(control, name, StrengthType[value] if name == "strength_type" else value)


def hint_source(control: Any) -> list[Any]:
    """What a VAE makes a hint from: equal while it would make the same."""
    pictures = [control.cond_hint_original, *control.extra_concat_orig]
    network = getattr(control.vae, "first_stage_model", None)
    if isinstance(network, nn.Module):
        place = torch.device(getattr(control.vae, "device", "cpu"))
        network = control_models.watched(network, (type(control.vae),), place)
    return [
        [(tuple(picture.shape), checksum(picture)) for picture in pictures],
        Held(control.vae), network, described(control.latent_format),
        control.upscale_algorithm, control.compression_ratio,
    ]  # fmt: skip

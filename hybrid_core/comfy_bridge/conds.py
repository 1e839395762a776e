"""Conditioning and options of a run as plain data: what ComfyUI's calc_cond_batch reads of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import comfy.conds
import comfy.utils
import torch

from hybrid_core.comfy_bridge.brought import Brought
from hybrid_core.comfy_bridge.option_keys import is_nobodys, is_plain
from hybrid_core.errors import NotPartitionable, ProtocolError
from hybrid_core.workers.contract import Pictures

Tensor = torch.Tensor
CondList = list[dict[str, Any]]
PLAIN_KEYS = (
    "area", "strength", "mask", "mask_strength",
    "timestep_start", "timestep_end", "uuid", "default",
)  # fmt: skip
SET_AT_EVERY_CALL = {
    "wrappers", "callbacks", "patches", "patches_replace",  # empty, or the run is local
    "cond_or_uncond", "uuids", "sigmas", "prefetch_dynamic_vbars",
    "context_window",  # which part of a long video this is: no network of ComfyUI's asks for it
}  # fmt: skip


def context(
    conds: Sequence[CondList | None],
    model_options: Mapping[str, Any],
    brought: Brought,
    has_code: bool = False,
) -> dict[str, Any]:
    """Data from which `restore` makes equal conds and options. Raises NotPartitionable.

    brought: by the run's conditioning. has_code: the worker's model has the options that cannot
    leave this process.
    """
    transformer = model_options.get("transformer_options", {})
    return {
        "conds": [None if cond is None else [_entry(e, brought) for e in cond] for cond in conds],
        "transformer_options": {
            key: value
            for key, value in transformer.items()
            if key not in SET_AT_EVERY_CALL
            and not (is_nobodys(key, value) or (has_code and not is_plain(value)))
        },
    }


def check_options_plain(model_options: Mapping[str, Any]) -> None:
    """Raise NotPartitionable for an option of the network that is code."""
    for key, value in model_options.get("transformer_options", {}).items():
        if key not in SET_AT_EVERY_CALL and not (is_plain(value) or is_nobodys(key, value)):
            raise NotPartitionable(f"another node changes the network by code ({key})")


def restore(
    data: Mapping[str, Any], brought: Callable[[dict[str, Any]], dict[str, Any]]
) -> tuple[list[CondList | None], dict[str, Any]]:
    """conds and model_options for calc_cond_batch. brought: makes what an entry brings."""
    conds = [
        None if cond is None else [_restored(e, brought) for e in cond] for cond in data["conds"]
    ]
    return conds, {"transformer_options": data["transformer_options"]}


def sizes(conds: Sequence[CondList | None]) -> Hashable:
    """Of all tensors, and what is no tensor, as far as it decides how large a forward pass is."""
    return tuple(
        tuple(tuple((name, _size(cond.cond)) for name, cond in e["model_conds"].items()) for e in c)
        for c in conds
        if c is not None
    )


def _size(value: Any) -> Hashable:
    if isinstance(value, torch.Tensor):
        return tuple(value.shape)
    if isinstance(value, list | tuple):
        return tuple(map(_size, value))
    return str(value)


def of_pictures(conds: Sequence[CondList | None], pictures: Pictures) -> list[CondList | None]:
    """conds for these pictures alone, which get what they get in the whole batch."""
    return [
        None if cond is None else [_entry_of(entry, pictures) for entry in cond] for cond in conds
    ]


def _entry_of(entry: dict[str, Any], pictures: Pictures) -> dict[str, Any]:
    made = {name: _cond_of(cond, pictures) for name, cond in entry["model_conds"].items()}
    some = {**entry, "model_conds": made}
    if "mask" in entry:
        some["mask"] = _tensor_of(entry["mask"], pictures)
    return some


def _cond_of(cond: Any, pictures: Pictures) -> Any:
    if isinstance(cond, comfy.conds.CONDConstant):
        return cond
    if isinstance(cond, comfy.conds.CONDList):
        return type(cond)([_tensor_of(tensor, pictures) for tensor in cond.cond])
    return type(cond)(_tensor_of(cond.cond, pictures))


def _tensor_of(tensor: Tensor, pictures: Pictures) -> Tensor:
    """Of (N, ...), which ComfyUI takes from the beginning, and again, until each has one."""
    if len(tensor) == 1:
        return tensor
    return pictures.of(comfy.utils.repeat_to_batch_size(tensor, pictures.batch))


def _entry(entry: Mapping[str, Any], brought: Brought) -> dict[str, Any]:
    plain = {key: entry[key] for key in PLAIN_KEYS if key in entry} | brought.describe(entry)
    plain["model_conds"] = {
        name: (_class_name(name, cond), cond.cond) for name, cond in entry["model_conds"].items()
    }
    return plain


def _class_name(name: str, cond: Any) -> str:
    own = type(cond)
    if getattr(comfy.conds, own.__name__, None) is not own or vars(cond).keys() != {"cond"}:
        raise NotPartitionable(f"conditioning '{name}' is a {own.__name__} of another pack")
    return own.__name__


def _restored(
    entry: dict[str, Any], brought: Callable[[dict[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, (class_name, value) in entry["model_conds"].items():
        own = getattr(comfy.conds, class_name, None)
        if not (isinstance(own, type) and issubclass(own, comfy.conds.CONDRegular)):
            raise ProtocolError(f"conditioning class {class_name!r} is not known here")
        made[name] = own(value)
    return {**entry, **brought(entry), "model_conds": made}

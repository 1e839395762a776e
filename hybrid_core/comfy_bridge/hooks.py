"""Weights that hooks bind to a prompt (a LoRA or a model on conditioning), for another process.

A hook's patches are sent with the model; of each prompt its hooks' names, and how strong each is at
this evaluation. What a hook's keyframes say is followed here, once an evaluation, as ComfyUI does.
"""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import comfy.hooks
from comfy.hooks import HookGroup, HookKeyframe, WeightHook
from comfy.model_patcher import ModelPatcher

from hybrid_core.comfy_bridge import patches
from hybrid_core.comfy_bridge.prompts import Entry, Prompts, entries, holds
from hybrid_core.errors import NotPartitionable, ProtocolError

Described = list[tuple[str, float]]  # a group's hooks: name and strength

_names: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


def advance(patcher: ModelPatcher, conds: Prompts, sigma: Any, options: Mapping[str, Any]) -> None:
    """Follow the keyframes of every hook to `sigma` (B,), as an evaluation of all prompts does.

    ComfyUI counts evaluations: those that are made elsewhere, or are foreseen, count too.
    """
    for entry in entries(conds):
        if entry.get("hooks") is not None and holds(entry, float(sigma[0])):
            patcher.prepare_hook_patches_current_keyframe(sigma, entry["hooks"], dict(options))


def any_in(conds: Mapping[str, Any]) -> bool:
    """Whether any prompt of a guider has hooks."""
    return bool(_groups(entries(conds.values())))


def strengths(conds: Prompts) -> tuple[float, ...]:
    """Of all hooks that have keyframes, now."""
    return tuple(
        float(hook.strength)
        for group in _groups(entries(conds))
        for hook in group.hooks
        if not hook.hook_keyframe.is_empty()
    )


def without_hooks(patcher: ModelPatcher, before: ModelPatcher) -> uuid.UUID:
    """Names the patches of a model apart from its hooks, which make ComfyUI rename them each run.

    before: the model as it was attached.
    """
    ours, theirs = patcher.patches, before.patches
    same = ours.keys() == theirs.keys() and all(
        len(some) == len(theirs[key])
        and all(a is b for a, b in zip(some, theirs[key], strict=True))
        for key, some in ours.items()
    )
    return before.patches_uuid if same else patcher.patches_uuid


def _groups(some: Iterable[Entry]) -> list[HookGroup]:
    return [group for entry in some if (group := entry.get("hooks")) is not None]


class RunsHooks:
    """The hooks of one run, as the parent tells the worker of them."""

    def __init__(self, some: Iterable[Entry], patcher: ModelPatcher):
        """some: entries of all prompts. Raises NotPartitionable for hooks that are not weights."""
        self.patches: dict[str, dict[str, list[Any]]] = {}
        for hook in (hook for group in _groups(some) for hook in group.hooks):
            if type(hook) is not WeightHook:
                raise NotPartitionable(
                    f"the conditioning carries code of another pack ({type(hook).__name__})"
                )
            found = patcher.hook_patches.get(hook.hook_ref, {})
            if not all(patches.is_data(patch) for some in found.values() for patch in some):
                raise NotPartitionable("a hook on the conditioning changes weights by code")
            self.patches[_name(hook)] = found

    @property
    def key(self) -> str:
        return ",".join(sorted(self.patches))

    def data(self) -> dict[str, Any]:
        """For the worker, before the prompts: patches by hook and weight."""
        return {
            name: [(key, [patches.describe(one) for one in some]) for key, some in found.items()]
            for name, found in self.patches.items()
        }

    def describe(self, group: HookGroup) -> Described:
        """The hooks of one entry, as strong as they are now. Raises NotPartitionable."""
        if not {_name(hook) for hook in group.hooks} <= self.patches.keys():
            raise NotPartitionable("a hook came into the conditioning while it was sampled")
        return [(_name(hook), float(hook.strength)) for hook in group.hooks]


def _name(hook: Any) -> str:
    return _names.setdefault(hook.hook_ref, uuid.uuid4().hex)


class HeldHooks:
    """In the worker: the hooks of the replica that is held."""

    def __init__(self) -> None:
        self.patches: dict[str, dict[str, list[Any]]] = {}
        self._refs: dict[str, Any] = {}
        self._groups: dict[tuple[str, ...], tuple[tuple[float, ...], HookGroup]] = {}

    def load(self, told: Mapping[str, Any], patcher: ModelPatcher) -> None:
        """Give `patcher` the patches of every hook."""
        self.patches = {
            name: {key: [patches.restore(one) for one in some] for key, some in found}
            for name, found in told.items()
        }
        self._refs = {name: comfy.hooks._HookRef() for name in told}
        self._groups = {}
        patcher.hook_patches = {ref: self.patches[name] for name, ref in self._refs.items()}

    def restore(self, data: Described, patcher: ModelPatcher) -> HookGroup:
        """The group that `RunsHooks.describe` described: one object while nothing changes, by
        which ComfyUI knows what is in the weights.
        """
        names, strong = tuple(name for name, _ in data), tuple(s for _, s in data)
        if not set(names) <= self._refs.keys():
            raise ProtocolError(f"hooks {[name[:16] for name in names]} are not held here")
        before, group = self._groups.get(names, (None, None))
        if group is None or before != strong:
            if group is not None:
                patcher.cached_hook_patches.pop(group, None)
            group = HookGroup()
            for name, strength in data:
                hook = WeightHook()
                hook.hook_ref = self._refs[name]
                hook.hook_keyframe._current_keyframe = HookKeyframe(strength)
                group.add(hook)
            self._groups[names] = strong, group
        return group

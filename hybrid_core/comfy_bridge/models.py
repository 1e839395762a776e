"""The worker's side: replicas of the parent's models, evaluated by ComfyUI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.model_management
import comfy.samplers
import torch
from torch import nn

from hybrid_core.comfy_bridge import conds, model_files, rebuild, replaying, sampling_objects
from hybrid_core.comfy_bridge.attention_seams import ATTENTION
from hybrid_core.comfy_bridge.brought import HeldBrought
from hybrid_core.comfy_bridge.forwards import with_each_forward
from hybrid_core.comfy_bridge.portrait import outline, portrait
from hybrid_core.comfy_bridge.replaying import ImportRefused
from hybrid_core.errors import NotPartitionable, ProtocolError
from hybrid_core.stages.staging import Each
from hybrid_core.transport import wire
from hybrid_core.workers.contract import Pictures
from hybrid_core.workers.evaluator import latents_and_level

Tensor = torch.Tensor


class ComfyModels:
    """Holds the models that were sent; the latest one is evaluated."""

    attention = ATTENTION

    def __init__(self, by_name: bool = False) -> None:
        """by_name: the parent is on another computer, where model files have other paths."""
        self._by_name = by_name
        self.device: torch.device = comfy.model_management.get_torch_device()
        self._bases: dict[str, Any] = {}
        self._current: Any = None
        self._own_options: dict[str, Any] = {}  # of a replayed model: code that acts in it
        self._replaying: replaying.Replaying | None = None  # made when the first graph comes
        self._brought = HeldBrought()

    def load(self, data: Any) -> dict[str, Any]:
        if self._current is not None:
            self._current.clean_hooks()  # clones share the weights
        self._current, self._own_options = None, {}
        replayed = "replay" in data
        try:
            patcher = self._replay(data) if replayed else self._rebuild(data)
            self._brought.load(data["brought"], patcher, self._graphs)
        except NotPartitionable as error:
            self.forget(data["base_key"])  # as the parent does
            module = error.module if isinstance(error, ImportRefused) else None
            return {"refused": str(error), "import": module}
        activations = wire.whole_number(data, "activation_bytes")
        together = [patcher, *patcher.get_nested_additional_models(), *self._brought.models()]
        comfy.model_management.load_models_gpu(together, memory_required=activations)
        patcher.pre_run()
        if replayed:
            self._own_options = replaying.options_of(patcher, self.device)
        self._current = patcher
        return outline(patcher) if replayed else portrait(patcher, self._brought.hooked)

    def _rebuild(self, data: Any) -> Any:
        key = data["base_key"]
        if data["base"] is not None:
            described = data["base"]
            if self._by_name and "args" in described:
                described = {**described, "args": model_files.found(described["args"])}
            self._bases[key] = rebuild.base(described)
        if key not in self._bases:
            raise ProtocolError(f"model {key} was never sent")
        return rebuild.patched(self._bases[key], data)

    def _replay(self, data: Any) -> Any:
        """The model as the parent's nodes make it. Raises NotPartitionable."""
        if self._by_name:
            raise NotPartitionable("nodes are not executed again on another computer")
        patcher = self._graphs().output(data["replay"]).clone()
        if data["sampling"] is not None:
            sampling = sampling_objects.rebuild(data["sampling"])
            patcher.add_object_patch("model_sampling", sampling)
        self._bases[data["base_key"]] = patcher
        return patcher

    def _graphs(self) -> replaying.Replaying:
        if self._replaying is None:
            self._replaying = replaying.Replaying()
        return self._replaying

    def network(self) -> nn.Module:
        if self._current is None:
            raise ProtocolError("an evaluation is asked for, and no model is held")
        return self._current.model.diffusion_model  # type: ignore[no-any-return]

    def context(self, data: Any) -> Any:
        return conds.restore(data, lambda entry: self._brought.restore(entry, self._current))

    def context_of(self, context: Any, pictures: Pictures) -> Any:
        branches, options = context
        return conds.of_pictures(branches, pictures), options

    def evaluate(self, context: Any, inputs: Sequence[Tensor], each: Each | None) -> list[Tensor]:
        self.network()
        x, sigma = latents_and_level(inputs)
        branches, options = context
        if self._own_options:
            own = self._own_options["transformer_options"]
            merged = {**own, **options["transformer_options"]}
            options = {**self._own_options, "transformer_options": merged}
        if each is not None:
            options = with_each_forward(options, each)
        out = comfy.samplers.calc_cond_batch(self._current.model, branches, x, sigma, options)
        return [value for value, cond in zip(out, branches, strict=True) if cond is not None]

    def forget(self, base_key: str) -> None:
        base = self._bases.pop(base_key, None)
        if base is not None:
            if self._current is not None and self._current.model is base.model:
                self._current = None
            self._unload(base.model)
            del base
            if self._replaying is not None:
                self._replaying.forget()
            comfy.model_management.cleanup_models_gc()
            comfy.model_management.soft_empty_cache()

    def _unload(self, model: Any) -> None:
        for entry in self._loaded():
            if entry.model.model is model:
                entry.model_unload()
                comfy.model_management.current_loaded_models.remove(entry)

    def _loaded(self) -> list[Any]:
        return [e for e in comfy.model_management.current_loaded_models if e.model is not None]

    def status(self) -> dict[str, Any]:
        device, used = str(self.device), None
        free = int(comfy.model_management.get_free_memory(self.device))
        held = sum(entry.model_loaded_memory() for entry in self._loaded())
        if self.device.type == "cuda":
            unused, total = torch.cuda.mem_get_info(self.device)
            device, used = f"{device} {torch.cuda.get_device_name(self.device)}", total - unused
        return {
            "device": device,
            "models": len(self._bases),
            "free_bytes": free,
            "available_bytes": free + held,  # once another model is wanted
            "used_bytes": used,
        }

    def interrupt(self, value: bool) -> None:
        comfy.model_management.interrupt_current_processing(value)

    def after_failure(self) -> None:
        comfy.model_management.soft_empty_cache()

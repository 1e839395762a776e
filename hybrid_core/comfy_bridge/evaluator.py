"""The worker's side: replicas of the parent's models, and the evaluation of one branch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from hybrid_core.comfy_bridge import parent_process
from hybrid_core.errors import ProtocolError
from hybrid_core.machine import devices
from hybrid_core.stages.swap import Splitter
from hybrid_core.transport import wire
from hybrid_core.transport.carry import flatten, unflatten
from hybrid_core.workers.lease import CONTEXTS_KEPT

Fields = Mapping[str, Any]
Tensors = Sequence[torch.Tensor]


class Evaluator:
    """Holds the models. Made after torch's environment is set; imports ComfyUI."""

    def __init__(self, boot: Mapping[str, Any]):
        devices.check_given()
        parent_process.adopt(boot)
        import comfy.model_management
        import comfy.samplers

        from hybrid_core.comfy_bridge import rebuild, staging

        self._management, self._samplers, self._rebuild, self._staging = (
            comfy.model_management,
            comfy.samplers,
            rebuild,
            staging,
        )
        self._device = comfy.model_management.get_torch_device()
        self._bases: dict[str, Any] = {}
        self._current: Any = None
        self._contexts: OrderedDict[int, Any] = OrderedDict()
        self._split: tuple[Any, Splitter] | None = None

    def load(self, fields: Fields, tensors: Tensors) -> dict[str, Any]:
        """Make the replica that the message describes; its portrait."""
        from hybrid_core.comfy_bridge.portrait import portrait

        data = unflatten(fields["data"], tensors)
        self._current = self._split = None
        key = data["base_key"]
        if data["base"] is not None:
            self._bases[key] = self._rebuild.base(data["base"])
        if key not in self._bases:
            raise ProtocolError(f"model {key} was never sent")
        patcher = self._rebuild.patched(self._bases[key], data)
        activations = wire.whole_number(data, "activation_bytes")
        self._management.load_models_gpu([patcher], memory_required=activations)
        patcher.pre_run()
        self._current = patcher
        return {"portrait": portrait(patcher)}

    def conds(self, fields: Fields, tensors: Tensors) -> dict[str, Any]:
        """Keep a context (conditioning and options) under its number."""
        from hybrid_core.comfy_bridge import conds

        on_device = [tensor.to(self._device) for tensor in tensors]
        data = unflatten(fields["data"], on_device)
        self._contexts[wire.whole_number(dict(fields), "context")] = conds.restore(data)
        while len(self._contexts) > CONTEXTS_KEPT:
            self._contexts.popitem(last=False)
        return {}

    def step(self, fields: Fields, tensors: Tensors) -> tuple[list[torch.Tensor], Any]:
        """Denoised latents of each of the context's branches that is not None.

        With field "last", the boundaries after that unit too, as a tree over the same list.
        """
        if "last" not in fields:
            return self._evaluate(fields, tensors, None), None
        last, taken = wire.whole_number(dict(fields), "last"), {}

        def capture(key: str, _: torch.Tensor, forward: Any) -> Any:
            result, taken[key] = self._splitter().capture(forward, last)
            return result

        results = self._evaluate(fields, tensors, capture)
        return results, flatten(taken, results, "the network's features")

    def stage(self, fields: Fields, tensors: Tensors) -> tuple[list[torch.Tensor], Any]:
        """The boundaries after unit "last", as a tree over the list."""
        last, taken = wire.whole_number(dict(fields), "last"), {}

        def stop(key: str, x: torch.Tensor, forward: Any) -> Any:
            taken[key] = self._splitter().stage_a(forward, last)
            return x  # nobody looks at it

        self._evaluate(fields, tensors, stop)
        found: list[torch.Tensor] = []
        return found, flatten(taken, found, "the network's features")

    def _evaluate(self, fields: Fields, tensors: Tensors, each: Any) -> list[torch.Tensor]:
        number = wire.whole_number(dict(fields), "context")
        if self._current is None or number not in self._contexts:
            raise ProtocolError(f"a step asks for context {number}, which is not held")
        conds, options = self._contexts[number]
        if each is not None:
            options = self._staging.with_each_forward(options, each)
        x, sigma = (tensor.to(self._device) for tensor in tensors)
        out = self._samplers.calc_cond_batch(self._current.model, conds, x, sigma, options)
        return [value for value, cond in zip(out, conds, strict=True) if cond is not None]

    def _splitter(self) -> Splitter:
        network = self._current.model.diffusion_model
        if self._split is None or self._split[0] is not network:
            self._split = network, Splitter(network)
        return self._split[1]

    def forget(self, fields: Fields) -> dict[str, Any]:
        """Drop a model whose parent's copy is gone, and what was sent to sample with."""
        self._contexts.clear()
        base = self._bases.pop(wire.text(dict(fields), "base_key"), None)
        if base is not None:
            if self._current is not None and self._current.model is base.model:
                self._current = self._split = None
            self._unload(base.model)
            del base
            self._management.cleanup_models_gc()
            self._management.soft_empty_cache()
        return {}

    def _unload(self, model: Any) -> None:
        for entry in self._loaded():
            if entry.model.model is model:
                entry.model_unload()
                self._management.current_loaded_models.remove(entry)

    def _loaded(self) -> list[Any]:
        return [e for e in self._management.current_loaded_models if e.model is not None]

    def status(self) -> dict[str, Any]:
        """What this process holds."""
        device, used = str(self._device), None
        free = int(self._management.get_free_memory(self._device))
        held = sum(entry.model_loaded_memory() for entry in self._loaded())
        if self._device.type == "cuda":
            unused, total = torch.cuda.mem_get_info(self._device)
            device, used = f"{device} {torch.cuda.get_device_name(self._device)}", total - unused
        return {
            "device": device,
            "models": len(self._bases),
            "free_bytes": free,
            "available_bytes": free + held,  # once another model is wanted
            "used_bytes": used,
        }

    def interrupt(self, value: bool) -> None:
        """Make the running evaluation stop at its next operation, or let the next one run."""
        self._management.interrupt_current_processing(value)

    def after_failure(self) -> None:
        """Give memory back, so that a failed evaluation does not make the next one fail."""
        self._management.soft_empty_cache()

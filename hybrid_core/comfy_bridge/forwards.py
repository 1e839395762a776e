"""Each forward pass of one evaluation in ComfyUI, by a name that is the same in both processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP

from hybrid_core.comfy_bridge.support import WRAPPER_KEY
from hybrid_core.stages.staging import Each


def chunk_key(x: torch.Tensor, transformer_options: Mapping[str, Any]) -> str:
    """Names a forward pass within an evaluation: which conditioning, at which size."""
    uuids = ",".join(str(uuid) for uuid in transformer_options.get("uuids", ()))
    return f"{uuids}:{'x'.join(map(str, x.shape))}"


def with_each_forward(options: Mapping[str, Any], each: Each) -> dict[str, Any]:
    """model_options under which `each` runs the forward passes."""

    def apply_model(executor: Any, x: Any, *args: Any, **keywords: Any) -> Any:
        transformer_options = keywords.get("transformer_options")
        if transformer_options is None:
            transformer_options = args[4] if len(args) > 4 else {}
        key = chunk_key(x, transformer_options)
        return each(key, x, lambda: executor(x, *args, **keywords))

    transformer_options = {**options.get("transformer_options", {})}
    wrappers = {**transformer_options.get("wrappers", {})}
    kind = WrappersMP.APPLY_MODEL
    wrappers[kind] = {**wrappers.get(kind, {}), WRAPPER_KEY: [apply_model]}
    transformer_options["wrappers"] = wrappers
    return {**options, "transformer_options": transformer_options}

"""The list of this pack's nodes."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from hybrid_core.comfy_bridge.session import SESSION

from .demo import HybridDemoModel, HybridDemoPrompt
from .monitor import prompt_running
from .sampling import (
    HybridAttachModel,
    HybridKSampler,
    HybridKSamplerAdvanced,
    HybridOptions,
)


class HybridExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            HybridKSampler,
            HybridKSamplerAdvanced,
            HybridAttachModel,
            HybridOptions,
            HybridDemoModel,
            HybridDemoPrompt,
        ]


async def comfy_entrypoint() -> HybridExtension:
    SESSION.busy = prompt_running
    return HybridExtension()

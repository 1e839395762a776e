"""The list of this pack's nodes."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .demo import HybridDemoModel, HybridDemoPrompt
from .sampling import HybridAttachModel, HybridKSampler, HybridKSamplerAdvanced


class HybridExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            HybridKSampler,
            HybridKSamplerAdvanced,
            HybridAttachModel,
            HybridDemoModel,
            HybridDemoPrompt,
        ]


async def comfy_entrypoint() -> HybridExtension:
    return HybridExtension()

"""The list of this pack's nodes."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from hybrid_core.comfy_bridge.session import SESSION

from .attaching import HybridAttachModel, HybridMonitor
from .curve_image import HybridCurveImage
from .demo import HybridDemoModel, HybridDemoPrompt
from .monitor import prompt_running
from .options import HybridOptions
from .routes import add_routes, tell_of_worker
from .sampling import HybridKSampler, HybridKSamplerAdvanced


class HybridExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            HybridKSampler,
            HybridKSamplerAdvanced,
            HybridAttachModel,
            HybridMonitor,
            HybridCurveImage,
            HybridOptions,
            HybridDemoModel,
            HybridDemoPrompt,
        ]


async def comfy_entrypoint() -> HybridExtension:
    SESSION.busy = prompt_running
    SESSION.on_change = tell_of_worker
    add_routes()
    return HybridExtension()

"""What the worker's process begins with: light to import, as torch reads its environment once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def models(boot: Mapping[str, Any]) -> Any:
    """The models of a ComfyUI that has become like the parent's. boot: parent_process.describe."""
    from hybrid_core.comfy_bridge import parent_process
    from hybrid_core.machine import devices

    devices.check_given()
    parent_process.adopt(boot)
    from hybrid_core.comfy_bridge.models import ComfyModels

    return ComfyModels()

"""What the worker's process begins with: light to import, as torch reads its environment once."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any


def models(_: Mapping[str, Any]) -> Any:
    """The models of diffusers."""
    from hybrid_core.machine import devices

    logging.basicConfig(level=logging.WARNING, format="[hybrid worker] %(message)s")
    devices.check_given()
    from hybrid_core.diffusers_bridge.models import DiffusersModels

    return DiffusersModels()

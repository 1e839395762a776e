"""What schemas share, and an io.Schema for older ComfyUI versions too.

A keyword that they do not know would keep the whole pack away.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from comfy_api.latest import io

CATEGORY = "sampling/hybrid"
ALIASES = ["ksampler", "hybrid", "multi gpu", "two gpus", "parallel", "faster"]
HIDDEN = [io.Hidden.unique_id, io.Hidden.dynprompt]  # of nodes whose graph is read
_KNOWN = {field.name for field in dataclasses.fields(io.Schema)}


def schema(**keywords: Any) -> io.Schema:
    return io.Schema(**{key: value for key, value in keywords.items() if key in _KNOWN})

"""io.Schema that older ComfyUI versions accept: an unknown keyword would keep the pack away."""

from __future__ import annotations

import dataclasses
from typing import Any

from comfy_api.latest import io

_KNOWN = {field.name for field in dataclasses.fields(io.Schema)}


def schema(**keywords: Any) -> io.Schema:
    return io.Schema(**{key: value for key, value in keywords.items() if key in _KNOWN})

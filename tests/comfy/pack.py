"""This pack's nodes as a package, beside ComfyUI's own module of the name nodes."""

from __future__ import annotations

import importlib.util
import pkgutil
import sys
from pathlib import Path
from typing import Any

from comfy_api.latest import io

FOLDER = Path(__file__).resolve().parents[2] / "nodes"
NAME = "hybrid_pack_nodes"


def node_classes() -> dict[str, type[Any]]:
    """Every node class in nodes/ by its node id."""
    if NAME not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            NAME, FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
        )
        module = importlib.util.module_from_spec(spec)
        sys.modules[NAME] = module
        spec.loader.exec_module(module)
    found = {}
    for part in pkgutil.iter_modules([str(FOLDER)]):
        module = importlib.import_module(f"{NAME}.{part.name}")
        for value in vars(module).values():
            if (
                isinstance(value, type)
                and issubclass(value, io.ComfyNode)
                and value is not io.ComfyNode
            ):
                found[value.define_schema().node_id] = value
    return found

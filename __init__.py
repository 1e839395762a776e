"""Hybrid KSampler: one image faster on two GPUs. ComfyUI loads this file."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

WEB_DIRECTORY = "./web"


def _load_core() -> None:
    """Make hybrid_core importable under its own name.

    ComfyUI names a pack's modules by the pack's path; the worker's process has to find the same
    modules under a name that both know, and sys.path is left alone.
    """
    if "hybrid_core" in sys.modules:
        return
    folder = Path(__file__).resolve().parent / "hybrid_core"
    spec = importlib.util.spec_from_file_location(
        "hybrid_core", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["hybrid_core"] = module
    spec.loader.exec_module(module)


if __package__:  # not when a test runner imports the folder's files by path
    _load_core()
    from .nodes.extension import comfy_entrypoint

    __all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]

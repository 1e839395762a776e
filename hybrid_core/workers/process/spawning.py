"""Starting a process from inside a running ComfyUI.

Spawn as it is would copy ComfyUI's sys.path (with comfy/ before everything) and run ComfyUI's
main.py again in the child. So, only while the process starts and under a lock, __main__ looks like
an interactive one and sys.path is the child's: the pack's folder comes last, because its folder
`nodes` must not hide ComfyUI's nodes.py.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch.multiprocessing

PACK_ROOT = Path(__file__).resolve().parents[3]
_lock = threading.Lock()


def pipe() -> tuple[Connection, Connection]:
    """Both ends of a pipe of messages."""
    return torch.multiprocessing.get_context("spawn").Pipe(duplex=True)


def start(target: Callable[..., None], arguments: tuple[Any, ...]) -> BaseProcess:
    """A started daemon process that calls `target` of a module which does not import torch."""
    context = torch.multiprocessing.get_context("spawn")
    process = context.Process(
        target=target, args=arguments, name="hybrid-ksampler-worker", daemon=True
    )
    with _lock, _childs_view():
        process.start()
    return process


@contextmanager
def _childs_view() -> Iterator[None]:
    main = sys.modules["__main__"]
    hidden = {
        name: main.__dict__.pop(name) for name in ("__spec__", "__file__") if name in vars(main)
    }
    main.__dict__["__spec__"] = None
    path = sys.path[:]
    sys.path[:] = childs_path(path)
    try:
        yield
    finally:
        sys.path[:] = path
        del main.__dict__["__spec__"]
        for name, value in hidden.items():
            main.__dict__[name] = value


def childs_path(path: list[str]) -> list[str]:
    """`path` with ComfyUI's root first, without ComfyUI's comfy/, with the pack's root last."""
    comfy = sys.modules.get("comfy")
    roots = [str(Path(folder).resolve().parent) for folder in getattr(comfy, "__path__", [])][:1]
    inner = {os.path.join(root, "comfy") for root in roots}
    rest = [
        entry
        for entry in path
        if entry and os.path.abspath(entry) not in {*inner, *roots, str(PACK_ROOT)}
    ]
    return [*roots, *rest, str(PACK_ROOT)]

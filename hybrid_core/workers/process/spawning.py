"""Starting a process from inside a running ComfyUI.

Spawn as it is would copy ComfyUI's sys.path (with comfy/ before everything) and run ComfyUI's
main.py again in the child. So, only while the process starts and under a lock, __main__ looks like
an interactive one and sys.path is the child's: the pack's folder comes last, because its folder
`nodes` must not hide ComfyUI's nodes.py.

Linux ties a process to the thread that created it (lifeline.py), and the thread of a prompt or a
request may end: one thread that lasts as long as this process starts them all.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch.multiprocessing

from hybrid_core.errors import WorkerFailed
from hybrid_core.workers.process import lifeline

PACK_ROOT = Path(__file__).resolve().parents[3]


def pipe() -> tuple[Connection, Connection]:
    """Both ends of a pipe of messages. Raises WorkerFailed when the system refuses."""
    with _named():
        return torch.multiprocessing.get_context("spawn").Pipe(duplex=True)


def start(target: Callable[..., None], arguments: tuple[Any, ...]) -> BaseProcess:
    """A started daemon process that calls `target` of a module which does not import torch.

    Raises WorkerFailed when the system refuses.
    """
    with _named():
        process: BaseProcess = torch.multiprocessing.get_context("spawn").Process(
            target=target, args=arguments, name="hybrid-ksampler-worker", daemon=True
        )
        _starter.call(lambda: _start(process))
        return process


def _start(process: BaseProcess) -> None:
    with _childs_view():
        process.start()
    lifeline.bind(process)


@contextmanager
def _named() -> Iterator[None]:
    """Systems and hosts refuse in many ways: by OSError, RuntimeError, AssertionError."""
    try:
        yield
    except Exception as error:
        raise WorkerFailed(f"the worker's process could not be started: {error}") from error


class _Starter:
    """A thread that does one thing after the other and never ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._waiting: queue.SimpleQueue[tuple[Callable[[], None], Future[None]]] = (
            queue.SimpleQueue()
        )

    def call(self, function: Callable[[], None]) -> None:
        """Return when `function` has; raises what it raises, RuntimeError without threads."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                thread = threading.Thread(target=self._work, name="hybrid-starter", daemon=True)
                thread.start()
                self._thread = thread
        done: Future[None] = Future()
        self._waiting.put((function, done))
        done.result()

    def _work(self) -> None:
        while True:
            function, done = self._waiting.get()
            try:
                function()
            except BaseException as error:  # noqa: BLE001  raised where it was asked for
                done.set_exception(error)
            else:
                done.set_result(None)
            del function, done  # what was started would be held until the next start


_starter = _Starter()


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

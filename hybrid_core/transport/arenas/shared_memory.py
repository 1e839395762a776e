"""One block of memory that both processes map, by whatever the system offers.

memfd   Linux: anonymous, gone with its last user, works where /dev/shm is tiny
named   Windows: a mapping with a random name, gone with its last handle
file    elsewhere: a temporary file whose name is removed at once
"""

from __future__ import annotations

import mmap
import os
import secrets
import sys
import tempfile
from dataclasses import dataclass
from multiprocessing import reduction
from typing import Any


def kinds() -> tuple[str, ...]:
    """What this system can do, best first."""
    if sys.platform == "win32":
        return ("named",)
    return ("memfd", "file") if hasattr(os, "memfd_create") else ("file",)


@dataclass(frozen=True)
class Ticket:
    """What the worker needs to map the same memory. Travels only while the process starts."""

    kind: str
    size: int
    handle: Any  # the name of a mapping, or a file descriptor

    def __reduce__(self) -> tuple[Any, ...]:
        handle = reduction.DupFd(self.handle) if isinstance(self.handle, int) else self.handle
        return Ticket, (self.kind, self.size, handle)


class SharedMemory:
    """The parent's side: creates the block. Freed when the last user is gone, however it goes."""

    def __init__(self, size: int, kind: str | None = None):
        self.kind = kind or kinds()[0]
        self.size = size
        self._fd: int | None = None
        self._name = f"hybrid-ksampler-{secrets.token_hex(16)}"
        if self.kind == "named":
            self.map = _named(self._name, size)
            return
        self._fd = _memfd(self._name) if self.kind == "memfd" else _unlinked_file()
        os.ftruncate(self._fd, size)
        self.map = mmap.mmap(self._fd, size)

    def ticket(self) -> Ticket:
        """An argument for the worker's process; of use until `close_descriptor`."""
        return Ticket(self.kind, self.size, self._name if self._fd is None else self._fd)

    def close_descriptor(self) -> None:
        """After the start: the mapping lives on without the descriptor."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def attach(ticket: Ticket) -> mmap.mmap:
    """The worker's side: map the block that `ticket` describes."""
    if ticket.kind == "named":
        return _named(ticket.handle, ticket.size)
    fd = ticket.handle.detach()
    try:
        return mmap.mmap(fd, ticket.size)
    finally:
        os.close(fd)


def _named(name: str, size: int) -> mmap.mmap:
    return mmap.mmap(-1, size, tagname=name)  # type: ignore[call-arg,unused-ignore]


def _memfd(name: str) -> int:
    return os.memfd_create(name)


def _unlinked_file() -> int:
    fd, path = tempfile.mkstemp(prefix="hybrid-ksampler-")
    os.unlink(path)
    return fd

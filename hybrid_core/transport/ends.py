"""One end of a pipe between two processes, in which nothing waits longer than it is told.

StreamEnd    a local stream socket (POSIX): bytes go and come without blocking, on the caller's own
             thread. What is left of a message stays here until the pipe takes it or it has come.
MessageEnd   elsewhere (Windows): a named pipe hands over whole messages or none, but writing one
             blocks while the other side does not read, so a thread of its own writes.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import struct
import threading
from collections import deque
from multiprocessing.connection import Connection
from typing import Protocol

from hybrid_core.errors import ProtocolError, WorkerFailed
from hybrid_core.transport.wire import MAX_BYTES

HEADER = struct.Struct("!i")  # a message's length, as multiprocessing's Connection writes it
AT_ONCE = 1 << 16  # bytes


class End(Protocol):
    """Every method may raise OSError or EOFError when the other process is gone."""

    def put(self, message: bytes) -> None:
        """Have `message` sent after those that were put before it."""
        ...

    def sent(self, seconds: float) -> bool:
        """Whether the pipe has taken everything, after waiting for that `seconds` at most."""
        ...

    def taken(self, seconds: float) -> bytes | None:
        """A whole message, after waiting for one `seconds` at most."""
        ...

    def close(self) -> None: ...


def end_of(connection: Connection) -> End:
    """What fits this system's pipes."""
    return StreamEnd(connection) if is_stream(connection) else MessageEnd(connection)


def is_stream(connection: Connection) -> bool:
    """Whether the connection is a socket that can be asked not to block."""
    able = hasattr(socket, "MSG_DONTWAIT") and hasattr(select, "poll")
    return able and stat.S_ISSOCK(os.fstat(connection.fileno()).st_mode)


class StreamEnd:
    """The same bytes as multiprocessing's Connection, so that the other side may be one."""

    def __init__(self, connection: Connection):
        self._connection = connection
        self._socket = socket.socket(fileno=os.dup(connection.fileno()))
        # Not blocking is asked for at each call: as a flag it would be that of every other reader
        # of this pipe too, and socket.setdefaulttimeout may just have set it.
        self._socket.setblocking(True)
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(self._socket, select.POLLIN)
        self._writable.register(self._socket, select.POLLOUT)
        self._unsent = bytearray()
        self._come = bytearray()

    def put(self, message: bytes) -> None:
        self._unsent += HEADER.pack(len(message)) + message

    def sent(self, seconds: float) -> bool:
        while self._unsent:
            try:
                count = self._socket.send(self._unsent, socket.MSG_DONTWAIT)
            except BlockingIOError:
                if not self._writable.poll(seconds * 1000):
                    return False
                seconds = 0.0
            else:
                del self._unsent[:count]
        return True

    def taken(self, seconds: float) -> bytes | None:
        self.sent(0.0)  # what an interrupted call left
        while (message := self._whole()) is None:
            try:
                piece = self._socket.recv(AT_ONCE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                if not self._readable.poll(seconds * 1000):
                    return None
                seconds = 0.0
            else:
                if not piece:
                    raise EOFError
                self._come += piece
        return message

    def _whole(self) -> bytes | None:
        if len(self._come) < HEADER.size:
            return None
        (length,) = HEADER.unpack_from(self._come)
        if not 0 <= length <= MAX_BYTES:
            raise ProtocolError(f"a message of {length} bytes comes, expected 0 to {MAX_BYTES}")
        end = HEADER.size + length
        if len(self._come) < end:
            return None
        message = bytes(self._come[HEADER.size : end])
        del self._come[:end]
        return message

    def close(self) -> None:
        self._socket.close()
        self._connection.close()


class MessageEnd:
    """Reading waits with the connection's own `poll`; whatever is there then is a whole message."""

    def __init__(self, connection: Connection):
        self._connection = connection
        self._changed = threading.Condition()
        self._unsent: deque[bytes] = deque()
        self._writer: threading.Thread | None = None
        self._error: Exception | None = None
        self._writing = self._closed = False

    def put(self, message: bytes) -> None:
        """Raises WorkerFailed when the system has no more threads."""
        if self._writer is None:
            writer = threading.Thread(target=self._write, name="hybrid-writer", daemon=True)
            try:
                writer.start()
            except RuntimeError as error:
                raise WorkerFailed(f"nothing can be sent to the worker: {error}") from error
            self._writer = writer
        with self._changed:
            self._unsent.append(message)
            self._changed.notify_all()

    def sent(self, seconds: float) -> bool:
        with self._changed:
            self._check_open()
            self._changed.wait_for(lambda: not self._unsent or self._error is not None, seconds)
            if self._error is not None:
                raise OSError(str(self._error))
            return not self._unsent

    def taken(self, seconds: float) -> bytes | None:
        self._check_open()
        return self._connection.recv_bytes(MAX_BYTES) if self._connection.poll(seconds) else None

    def _check_open(self) -> None:
        if self._closed:
            raise OSError("this end is closed")

    def close(self) -> None:
        """A message that is being written is let go: its writing ends with the other process."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            if not self._writing:  # else the writer closes it
                self._connection.close()

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._unsent or self._closed)
                if self._closed:
                    return
                message, self._writing = self._unsent[0], True
            error = None
            try:
                self._connection.send_bytes(message)
            except (OSError, ValueError) as failure:
                error = failure
            with self._changed:
                self._writing, self._error = False, error
                self._unsent.popleft()
                self._changed.notify_all()
                if self._closed:
                    self._connection.close()
                if self._closed or error is not None:
                    return

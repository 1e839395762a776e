"""A message and its tensors as one piece of bytes, for a way that carries bytes.

8 bytes   length of the message, little-endian
message   as on the pipe (wire.py), with a header for each tensor
tensors   their bytes, each where its header says
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import torch

from hybrid_core.errors import ProtocolError
from hybrid_core.transport import wire
from hybrid_core.transport.headers import Header, in_slot, lay_out

LENGTH = struct.Struct("<Q")
MOST_BYTES = 1 << 30  # of the tensors in one frame
PIECE_BYTES = 32 << 20  # what is longer goes ahead in pieces: Ray keeps each frame in its memory

Tensor = torch.Tensor


class Body:
    """The tensors of one frame; an arena (arenas/arena.py) of one slot."""

    def __init__(self, data: bytes | memoryview = b""):
        self.data: bytes | memoryview = data
        self.slot_bytes = MOST_BYTES

    def write(self, number: int, tensors: Sequence[Tensor]) -> list[Header]:
        """Take the place of what was here."""
        headers = lay_out(tensors, MOST_BYTES)
        places = [in_slot(header, MOST_BYTES) for header in headers]
        length = max((at + size for *_, at, size in places), default=0)
        whole = torch.zeros(length, dtype=torch.uint8)
        for (dtype, shape, at, size), tensor in zip(places, tensors, strict=True):
            whole[at : at + size].view(dtype).view(shape).copy_(tensor)
        self.data = whole.numpy().tobytes()
        return headers

    def finish(self) -> None:
        """Nothing is left to be done."""

    def read(self, number: int, header: Any, device: torch.device | None = None) -> Tensor:
        """A copy. Raises ProtocolError for a header that points outside of the frame."""
        dtype, shape, at, size = in_slot(header, len(self.data))
        if not size:
            return torch.empty(shape, dtype=dtype, device=device)
        copy = bytearray(self.data[at : at + size])
        return torch.frombuffer(copy, dtype=dtype).view(shape).to(device or "cpu")

    def close(self) -> None:
        self.data = b""


def packed(message: bytes, body: Body) -> bytes:
    return b"".join((LENGTH.pack(len(message)), message, body.data))


def unpacked(data: Any, allowed: frozenset[str]) -> tuple[wire.Message, Body]:
    """What `packed` made. Raises ProtocolError for anything else."""
    if not isinstance(data, bytes) or len(data) < LENGTH.size:
        raise ProtocolError(f"{wire.shown(data)} came from another computer, expected a frame")
    (length,) = LENGTH.unpack_from(data)
    end = LENGTH.size + length
    if not length <= wire.MAX_BYTES or end > len(data):
        raise ProtocolError(f"a frame of {len(data)} bytes tells of a message of {length}")
    if len(data) - end > MOST_BYTES:
        raise ProtocolError(f"a frame has {len(data) - end} bytes of tensors, at most {MOST_BYTES}")
    return wire.decode(data[LENGTH.size : end], allowed), Body(memoryview(data)[end:])

"""Tensors that do not fit into one slot: sent in pieces, put together on the other side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from hybrid_core.errors import ProtocolError
from hybrid_core.transport import wire
from hybrid_core.transport.arenas.arena import Arena
from hybrid_core.transport.headers import Header, check_header, dtype_name

MAX_TENSOR_BYTES = 1 << 36


@dataclass(frozen=True)
class Piece:
    """Bytes of tensor `index`, whose header is `whole`, from byte `start` on."""

    index: int
    whole: Header
    start: int
    data: torch.Tensor  # (n,) uint8

    @property
    def fields(self) -> wire.Message:
        """Of its message, as `Assembly.take` reads them."""
        return {"index": self.index, "start": self.start, "whole": self.whole}


def pieces(tensors: Sequence[torch.Tensor], most: int) -> Iterator[Piece]:
    """Every byte of `tensors` in order, at most `most` at a time."""
    for index, tensor in enumerate(tensors):
        whole = {"dtype": dtype_name(tensor.dtype), "shape": list(tensor.shape), "at": 0}
        flat = tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)
        for start in range(0, max(1, len(flat)), most):
            yield Piece(index, whole, start, flat[start : start + most])


@dataclass
class Part:
    """A tensor on its way: the first `filled` bytes of `flat` have come."""

    flat: torch.Tensor  # (bytes,) uint8
    dtype: torch.dtype
    shape: list[int]
    filled: int = 0

    def append(self, data: torch.Tensor, start: int) -> None:
        """Raises ProtocolError unless `data` continues what has come."""
        if data.dtype != torch.uint8 or data.ndim != 1 or start != self.filled:
            raise ProtocolError(
                f"a piece of {data.dtype} {list(data.shape)} comes for byte {start}, expected "
                f"bytes from {self.filled} on"
            )
        if start + len(data) > len(self.flat):
            raise ProtocolError(
                f"{len(data)} bytes at {start} are outside a tensor of {len(self.flat)} bytes"
            )
        self.filled += len(data)
        self.flat[start : self.filled] = data

    def tensor(self) -> torch.Tensor:
        """Raises ProtocolError when it has not all come."""
        if self.filled != len(self.flat):
            raise ProtocolError(f"{self.filled} of a tensor's {len(self.flat)} bytes have come")
        return self.flat.view(self.dtype).view(self.shape)


class Assembly:
    """The receiving side."""

    def __init__(self) -> None:
        self._parts: list[Part] = []

    def take(self, message: wire.Message, arena: Arena) -> None:
        """Copy one piece out of the arena. Raises ProtocolError when it does not fit."""
        index, start = wire.whole_number(message, "index"), wire.whole_number(message, "start")
        dtype, shape, _, size = check_header(message.get("whole"))
        headers = wire.items(message, "tensors", 1)
        if not headers:
            raise ProtocolError("a piece of a tensor comes without its bytes")
        data = arena.read(message["seq"], headers[0])
        if index == start == 0:
            self._parts = []  # whatever came before was given up
        if index == len(self._parts) and start == 0:
            self._parts.append(Part(room_for(size), dtype, shape))
        if index != len(self._parts) - 1:
            raise ProtocolError(f"a piece of tensor {index} came after {len(self._parts)} tensors")
        self._parts[index].append(data, start)

    def finish(self, message: wire.Message) -> list[torch.Tensor]:
        """The tensors that came in pieces before `message`; none when it carries its own."""
        parts, self._parts = self._parts, []
        if "pieced" not in message:
            return []
        expected = wire.whole_number(message, "pieced")
        if expected != len(parts):
            raise ProtocolError(f"{len(parts)} tensors came in pieces, {expected} were announced")
        return [part.tensor() for part in parts]

    def clear(self) -> None:
        self._parts = []


def room_for(size: int) -> torch.Tensor:
    """`size` bytes of host memory. Raises ProtocolError for more than there can be."""
    if size > MAX_TENSOR_BYTES:
        raise ProtocolError(
            f"a tensor of {size} bytes is announced, expected {MAX_TENSOR_BYTES} at most"
        )
    try:
        return torch.empty(size, dtype=torch.uint8)
    except RuntimeError as error:
        raise MemoryError(f"{size} bytes of a tensor: {error}") from error

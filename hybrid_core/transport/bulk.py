"""Tensors that do not fit into one slot: sent in pieces, put together on the other side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from hybrid_core.errors import ProtocolError
from hybrid_core.transport import wire
from hybrid_core.transport.arenas.arena import Arena
from hybrid_core.transport.headers import Header, check_header, dtype_name


@dataclass(frozen=True)
class Piece:
    """Bytes of tensor `index`, whose header is `whole`, from byte `start` on."""

    index: int
    whole: Header
    start: int
    data: torch.Tensor  # (n,) uint8


def pieces(tensors: Sequence[torch.Tensor], most: int) -> Iterator[Piece]:
    """Every byte of `tensors` in order, at most `most` at a time."""
    for index, tensor in enumerate(tensors):
        whole = {"dtype": dtype_name(tensor.dtype), "shape": list(tensor.shape), "at": 0}
        flat = tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)
        for start in range(0, max(1, len(flat)), most):
            yield Piece(index, whole, start, flat[start : start + most])


class Assembly:
    """The receiving side."""

    def __init__(self) -> None:
        self._parts: list[tuple[torch.Tensor, torch.dtype, list[int]]] = []

    def take(self, message: wire.Message, arena: Arena) -> None:
        """Copy one piece out of the arena. Raises ProtocolError when it does not fit."""
        index, start = wire.whole_number(message, "index"), wire.whole_number(message, "start")
        dtype, shape, _, size = check_header(message.get("whole"))
        if index == start == 0:
            self._parts = []  # whatever came before was given up
        if index == len(self._parts) and start == 0:
            self._parts.append((torch.empty(size, dtype=torch.uint8), dtype, shape))
        if index != len(self._parts) - 1:
            raise ProtocolError(f"a piece of tensor {index} came after {len(self._parts)} tensors")
        data = arena.read(message["seq"], wire.items(message, "tensors", 1)[0])
        flat = self._parts[index][0]
        if data.dtype != torch.uint8 or start + len(data) > len(flat):
            raise ProtocolError(
                f"{len(data)} bytes at {start} are outside a tensor of {len(flat)} bytes"
            )
        flat[start : start + len(data)] = data

    def finish(self, message: wire.Message) -> list[torch.Tensor]:
        """The tensors that came in pieces before `message`; none when it carries its own."""
        parts, self._parts = self._parts, []
        if "pieced" not in message:
            return []
        expected = wire.whole_number(message, "pieced")
        if expected != len(parts):
            raise ProtocolError(f"{len(parts)} tensors came in pieces, {expected} were announced")
        return [flat.view(dtype).view(shape) for flat, dtype, shape in parts]

    def clear(self) -> None:
        self._parts = []

"""Tensors given for tensors in the middle of a request, both sides the same.

Each turn both sides send one message and take one in. Turn n uses slot n & 1 of either direction:
who has the other's message of turn n knows that its own of turn n - 1 is out of its slot. What does
not fit into one slot goes in as many turns as the larger of the two needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from hybrid_core.errors import ProtocolError
from hybrid_core.transport import wire
from hybrid_core.transport.arenas.arena import Arena
from hybrid_core.transport.headers import ALIGN, Header, check_header

Tensor = torch.Tensor
Form = tuple[tuple[int, ...], torch.dtype]
MOST_TURNS = 1 << 16  # of one request: its numbers are kept free
NOTHING = torch.empty(0, dtype=torch.uint8)
Send = Callable[[int, int, list[Header]], None]  # a turn's number, where it is, headers
Receive = Callable[[int], wire.Message]  # of a turn's number


@dataclass(frozen=True)
class Piece:
    """Bytes of tensor `index`; the whole tensor where `size` is None."""

    index: int
    start: int = 0
    size: int | None = None

    def of(self, tensors: Sequence[Tensor]) -> Tensor:
        """Its bytes in one of `tensors`, which is contiguous, or that tensor."""
        tensor = tensors[self.index]
        if self.size is None:
            return tensor
        return tensor.reshape(-1).view(torch.uint8)[self.start : self.start + self.size]

    def form(self, forms: Sequence[Form]) -> Form:
        return forms[self.index] if self.size is None else ((self.size,), torch.uint8)


def turns(forms: Sequence[Form], slot_bytes: int) -> list[list[Piece]]:
    """What goes in each turn: all tensors in one, or bytes of one tensor in each."""
    sizes = [torch.Size(shape).numel() * dtype.itemsize for shape, dtype in forms]
    if sum(-(-size // ALIGN) * ALIGN for size in sizes) <= slot_bytes:
        return [[Piece(index) for index in range(len(forms))]]
    return [
        [Piece(index, start, min(slot_bytes, size - start))]
        for index, size in enumerate(sizes)
        for start in range(0, size, slot_bytes)
    ]


class Exchange:
    """The exchanges of one request."""

    def __init__(
        self, arena: Arena, number: int, send: Send, receive: Receive, device: torch.device
    ):
        """number: of the request; its turns have the following ones. device: of what comes."""
        self.number, self._first = number, number
        self._arena, self._send, self._receive, self.device = arena, send, receive, device
        self.sent = self.received = 0  # bytes

    def swap(self, at: int, mine: Sequence[Tensor], expected: Sequence[Form]) -> list[Tensor]:
        """The other side's tensors for `mine`; at: where in the request, the same at both sides.

        Raises ProtocolError for other tensors than expected, and what sending and receiving raise.
        """
        slot, mine = self._arena.slot_bytes, [tensor.contiguous() for tensor in mine]
        ours = turns([(tuple(tensor.shape), tensor.dtype) for tensor in mine], slot)
        theirs = turns(expected, slot)
        if len(theirs) == 1:
            found = self._turn(at, [p.of(mine) for p in ours[0]], expected)
        else:
            found = [torch.empty(s, dtype=dtype, device=self.device) for s, dtype in expected]
            self._pieces(at, found, [p.of(mine) for p in ours[0]], theirs[0], expected)
        for turn in range(1, max(len(ours), len(theirs))):
            out = [piece.of(mine) for piece in ours[turn]] if turn < len(ours) else []
            wanted = theirs[turn] if turn < len(theirs) else []
            self._pieces(at, found, out, wanted, expected)
        return found

    def _pieces(
        self,
        at: int,
        found: Sequence[Tensor],
        out: Sequence[Tensor],
        wanted: Sequence[Piece],
        expected: Sequence[Form],
    ) -> None:
        """One turn; what comes goes to its place in `found`."""
        came = self._turn(at, out, [piece.form(expected) for piece in wanted])
        for piece, tensor in zip(wanted, came, strict=True):
            piece.of(found).copy_(tensor)

    def _turn(self, at: int, out: Sequence[Tensor], forms: Sequence[Form]) -> list[Tensor]:
        """One message each way. Where nothing is to be sent it carries an empty tensor: reading
        that is what tells a GPU that the slot before was read.
        """
        self.number += 1
        if self.number - self._first >= MOST_TURNS:
            raise ProtocolError(f"more than {MOST_TURNS} exchanges in one request")
        headers = self._arena.write(self.number, out or [NOTHING])
        self._send(self.number, at, headers)
        self._arena.finish()
        message = self._receive(self.number)
        place = wire.whole_number(message, "at")
        if place != at:
            raise ProtocolError(f"the other process is at exchange {place}, this one at {at}")
        expected = list(forms) or [(tuple(NOTHING.shape), NOTHING.dtype)]
        came = wire.items(message, "tensors", len(expected))
        seen = [(tuple(shape), dtype) for dtype, shape, _, _ in map(check_header, came)]
        if seen != expected:
            raise ProtocolError(f"tensors {wire.shown(seen)} came, expected {wire.shown(expected)}")
        tensors = [self._arena.read(self.number, header, self.device) for header in came]
        self.sent += sum(tensor.nbytes for tensor in out)
        self.received += sum(tensor.nbytes for tensor in tensors)
        return tensors if forms else []

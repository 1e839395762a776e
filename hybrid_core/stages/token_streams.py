"""Where tokens are in a tensor, and which of them are whose.

A stream is what a block's state counts: text tokens, or the places of a picture, as a grid (n,),
(H, W) or (T, H, W). It is divided along one axis of its grid, in proportion to `bounds`. A cut says
which dimensions of a tensor hold the tokens of one stream, or of some, one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

Tensor = torch.Tensor
Range = tuple[int, int]  # the first, and how many
ENOUGH = 16  # places of an axis that can be divided well
WHOLE = 1000  # bounds are in thousandths


@dataclass(frozen=True)
class Stream:
    grid: tuple[int, ...]

    @property
    def count(self) -> int:
        return math.prod(self.grid)

    @property
    def axis(self) -> int:
        """That is divided: the first that is long enough, else the longest."""
        enough = (axis for axis, size in enumerate(self.grid) if size >= ENOUGH)
        return next(enough, max(range(len(self.grid)), key=self.grid.__getitem__))

    def share(self, bounds: Sequence[int], place: int) -> Range:
        """Of the axis: at each place one of it at least."""
        size, places = self.grid[self.axis], len(bounds) - 1
        first, end = (
            min(max(size * bounds[at] // WHOLE, at), size - places + at)
            for at in (place, place + 1)
        )
        return first, end - first

    def ranges(self, bounds: Sequence[int], place: int) -> list[Range]:
        """Of the tokens, counted through the grid."""
        first, count = self.share(bounds, place)
        inner = math.prod(self.grid[self.axis + 1 :])
        outer = math.prod(self.grid[: self.axis])
        each = self.grid[self.axis] * inner
        return [(at * each + first * inner, count * inner) for at in range(outer)]


@dataclass(frozen=True)
class Cut:
    """The tokens of `streams` are in dimension `dim`; spread: in as many as the grid has."""

    dim: int
    streams: tuple[Stream, ...]
    spread: bool = False

    def ranges(self, bounds: Sequence[int], place: int) -> tuple[int, list[Range]]:
        """The dimension to divide, and this place's parts of it."""
        if self.spread:
            (stream,) = self.streams
            return self.dim + stream.axis, [stream.share(bounds, place)]
        found, at = [], 0
        for stream in self.streams:
            found += [(at + first, n) for first, n in stream.ranges(bounds, place)]
            at += stream.count
        return self.dim, found

    def piece(self, tensor: Tensor, bounds: Sequence[int], place: int) -> Tensor:
        """This place's part of a whole tensor."""
        dim, ranges = self.ranges(bounds, place)
        some = [tensor.narrow(dim, first, count) for first, count in ranges]
        return torch.cat(some, dim) if some[1:] else some[0]

    def size(self, whole: Sequence[int], bounds: Sequence[int], place: int) -> tuple[int, ...]:
        """Of the piece of a tensor with sizes `whole`."""
        dim, ranges = self.ranges(bounds, place)
        return (*whole[:dim], sum(count for _, count in ranges), *whole[dim + 1 :])

    def joined(
        self, pieces: Sequence[Tensor], whole: Sequence[int], bounds: Sequence[int]
    ) -> Tensor:
        """The whole tensor of all places' pieces, in their order."""
        out = pieces[0].new_empty(tuple(whole))
        for place, piece in enumerate(pieces):
            dim, ranges = self.ranges(bounds, place)
            at = 0
            for first, count in ranges:
                out.narrow(dim, first, count).copy_(piece.narrow(dim, at, count))
                at += count
        return out

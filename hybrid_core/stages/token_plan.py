"""How a block is divided by tokens: tried on the block itself, not concluded from its name.

A recorded call of a block shows the sizes of its state. Each way to cut its inputs that these allow
is tried: the block runs on the last place's tokens, with the keys and values that it had in full,
and must give that part of what it gave in full.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from hybrid_core.stages.attention import Attention, Kernel
from hybrid_core.stages.swap import mapped, tensors
from hybrid_core.stages.token_streams import WHOLE, Cut, Stream, Tensor

HALVES = (0, WHOLE // 2, WHOLE)
EQUAL = {4: 1e-4, 2: 3e-2}  # relative, by the bytes of a number
MOST_ALONE = 12  # inputs that are left whole one at a time
Shape = tuple[int, ...]
Cuts = tuple["Cut | None", ...]


class Misfit(Exception):
    """A way to cut that does not give the same."""


@dataclass(frozen=True)
class AttentionPlan:
    """One call of attention in a block. keys: None where they are whole at every place.

    rows: of a mask that has as many as there are queries in full; columns: of one that the block
    makes of its own tokens, which is gathered like keys.
    """

    shape: Shape  # of the keys in full
    keys: Cut | None
    rows: Cut | None = None
    columns: Cut | None = None


@dataclass(frozen=True)
class BlockPlan:
    """Cuts of a block's inputs and outputs, tensor by tensor; None is left as it is."""

    inputs: Cuts
    outputs: Cuts
    shapes: tuple[Shape, ...]  # of the outputs in full
    attention: tuple[AttentionPlan, ...]


class Call(NamedTuple):
    """Of attention."""

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None
    dim: int  # of the tokens


@dataclass
class Seen:
    """A block's call in full."""

    inputs: Any  # (args, keywords), as they were before it
    state: set[int]  # which of the inputs' tensors came out of a block
    outputs: Any = None
    attention: list[Call] = field(default_factory=list)

    def attend(
        self, kernel: Kernel, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dim: int
    ) -> Tensor:
        self.attention.append(Call(q, k, v, mask, dim % k.ndim))
        return kernel(q, k, v, mask)


def planned(block: Callable[..., Any], seen: Seen, attention: Attention) -> BlockPlan | None:
    """The first way to cut that gives the same, None where there is none."""
    tried: set[tuple[Cuts, Cuts]] = set()
    for inputs, outputs, streams in candidates(seen):
        if (inputs, outputs) not in tried:
            tried.add((inputs, outputs))
            try:
                return Trial(seen, inputs, outputs, streams).run(block, attention)
            except Exception:  # noqa: BLE001, S112  a block may raise anything for a wrong size
                continue
    return None


class Trial:
    """A block's call on the last place's half of the tokens."""

    def __init__(self, seen: Seen, inputs: Cuts, outputs: Cuts, streams: Sequence[Stream]):
        self._seen, self._inputs, self._outputs = seen, inputs, outputs
        self._streams = streams
        self._calls: list[AttentionPlan] = []

    def run(self, block: Callable[..., Any], attention: Attention) -> BlockPlan:
        cuts = iter(self._inputs)
        args, keywords = mapped(self._seen.inputs, lambda tensor: half(tensor, next(cuts)).clone())
        with attention.by(self._attend):
            out = tensors(block(*args, **keywords))
        whole = tensors(self._seen.outputs)
        for one, cut, full in zip(out, self._outputs, whole, strict=True):
            same(one, half(full, cut))
        if len(self._calls) != len(self._seen.attention):
            raise Misfit
        shapes = tuple(tuple(tensor.shape) for tensor in whole)
        return BlockPlan(self._inputs, self._outputs, shapes, tuple(self._calls))

    def _attend(
        self, kernel: Kernel, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dim: int
    ) -> Tensor:
        queries, keys, values, whole_mask, at = self._seen.attention[len(self._calls)]
        cut = rows = columns = None
        if k.shape == keys.shape:
            same(k, keys)
        else:
            cut = self._found(k, keys, at)
        if mask is not None and cut is not None and mask.shape[-1] == k.shape[at]:
            assert whole_mask is not None
            columns = Cut(mask.ndim - 1, cut.streams)
            same(mask, half(whole_mask, columns))
            mask = whole_mask
        if mask is not None and mask.ndim > 1 and mask.shape[-2] == queries.shape[at] > q.shape[at]:
            found = self._found(q, queries, at)
            rows = Cut(mask.ndim - 2, found.streams)
            mask = half(mask, rows)
        self._calls.append(AttentionPlan(tuple(keys.shape), cut, rows, columns))
        return kernel(q, keys, values, mask)

    def _found(self, part: Tensor, whole: Tensor, dim: int) -> Cut:
        """How `part` was cut from `whole`."""
        for streams in concatenations(self._streams, whole.shape[dim]):
            cut = Cut(dim, streams)
            piece = half(whole, cut)
            if piece.shape == part.shape and relative(part, piece) <= tolerance(part):
                return cut
        raise Misfit


def half(tensor: Tensor, cut: Cut | None) -> Tensor:
    return tensor if cut is None else cut.piece(tensor, HALVES, 1)


def same(one: Tensor, other: Tensor) -> None:
    """Raise Misfit unless both are equal up to rounding."""
    if one.shape != other.shape or not relative(one, other) <= tolerance(one):
        raise Misfit


def relative(one: Tensor, other: Tensor) -> float:
    one, other = one.float(), other.float()
    return float((one - other).norm() / other.norm().clamp_min(1e-12))


def tolerance(tensor: Tensor) -> float:
    return EQUAL.get(tensor.element_size(), EQUAL[4])


def concatenations(streams: Sequence[Stream], count: int) -> Iterator[tuple[Stream, ...]]:
    """Streams, each once, that are `count` tokens one after the other."""
    for number in range(1, len(streams) + 1):
        for some in itertools.permutations(streams, number):
            if sum(stream.count for stream in some) == count:
                yield some


def candidates(seen: Seen) -> Iterator[tuple[Cuts, Cuts, Sequence[Stream]]]:
    """Cuts of inputs and outputs by their sizes, and all streams, the likeliest first."""
    given, made = tensors(seen.inputs), tensors(seen.outputs)
    state = [tensor for index, tensor in enumerate(given) if index in seen.state]
    for first in (1, 0):
        outputs = tuple(state_cut(tensor, first) for tensor in made)
        streams = [cut.streams[0] for cut in outputs if cut is not None]
        for tensor in state:
            cut = state_cut(tensor, first)
            if cut is not None and cut.streams[0] not in streams:
                streams.append(cut.streams[0])
        if not streams:
            continue
        for order in itertools.permutations(streams):
            likely = tuple(next(cuts_of(tensor, order, 1), None) for tensor in given)
            tables = tuple(next(cuts_of(tensor, order, 0), None) for tensor in given)
            yield tables, outputs, streams
            yield likely, outputs, streams
            yield tuple(next(cuts_of(t, order, -1), None) for t in given), outputs, streams
        divided = [index for index, found in enumerate(tables) if found is not None]
        for index in divided[:MOST_ALONE]:
            for other in (*list(cuts_of(given[index], order, 0))[1:], None):
                yield (*tables[:index], other, *tables[index + 1 :]), outputs, streams


def state_cut(tensor: Tensor, first: int) -> Cut | None:
    """(B, tokens, channels), (B, T, H, W, channels) and the like; first: their first dimension."""
    grid = tuple(tensor.shape[first : tensor.ndim - 2 + first])
    if tensor.ndim < 3 or not tensor.is_floating_point() or max(grid) < 2:
        return None
    return Cut(first, (Stream(grid),), spread=len(grid) > 1)


def cuts_of(tensor: Tensor, streams: Sequence[Stream], first: int) -> Iterator[Cut]:
    """What may be tokens in the dimensions of an input between `first` and its last; first -1: in
    the last of two too, as in a mask.

    Tokens of one stream by its grid come before one dimension for all, and that before several
    streams in one.
    """
    dims = [*range(1, tensor.ndim - 1), *([0] if first < 1 and tensor.ndim > 1 else [])]
    dims += [1] if first < 0 and tensor.ndim == 2 else []
    for dim in dims:
        for stream in streams:
            size = len(stream.grid)
            if size > 1 and tuple(tensor.shape[dim : dim + size]) == stream.grid:
                yield Cut(dim, (stream,), spread=True)
    for dim in dims:
        for stream in streams:
            if tensor.shape[dim] == stream.count:
                yield Cut(dim, (stream,))
        if len(streams) > 1 and tensor.shape[dim] == sum(stream.count for stream in streams):
            yield Cut(dim, tuple(streams))


def cost(block: torch.nn.Module, seen: Seen) -> int:
    """Weights times places."""
    places = max((math.prod(t.shape[1:-1]) for t in tensors(seen.outputs) if t.ndim > 2), default=0)
    return places * sum(weight.numel() for weight in block.parameters())

"""A few numbers of every weight, because torch does not count every write: none to an inference
tensor, none that goes through `.data`.

Whoever multiplies a weight, adds to it or copies another one into it changes what is read here. A
write that leaves all of these places as they were is not seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

PLACES = 8  # in each weight, at equal distances from its first number on
GOLDEN = 0.618  # of a row between the columns of two places: every few places fall far apart
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes of a number
Tensor = torch.Tensor


class Place(NamedTuple):
    """What is read of one tensor."""

    name: str
    at: int  # of the tensor
    numbers: int
    apart: int


class Samples:
    """What was read: equal while no bit of it has changed."""

    def __init__(self, places: Sequence[Sequence[Place]], read: Sequence[Tensor]):
        self._places, self._read = places, read  # one of each dtype

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Samples):
            return NotImplemented
        return self._places == other._places and all(map(torch.equal, self._read, other._read))

    def __hash__(self) -> int:
        return hash(len(self._places))

    def changed(self, other: Samples) -> str | None:
        """Name of the first tensor of which another thing was read; None when nothing was."""
        if self._places != other._places:
            return "a weight"
        for places, ours, theirs in zip(self._places, self._read, other._read, strict=True):
            differs = (ours != theirs).nonzero()
            if len(differs):
                which, end = int(differs[0]), 0
                for place in places:
                    end += place.numbers
                    if which < end:
                        return place.name
        return None


class WeightSampler:
    """Where to read in some tensors, found once; it keeps none of them."""

    def __init__(self, tensors: Mapping[str, Tensor], device: torch.device):
        """device: weights elsewhere are not read, which may mean to fetch them from a disk."""
        found: dict[torch.dtype, list[Place]] = {}
        for index, (name, tensor) in enumerate(tensors.items()):
            plain = type(tensor) in (Tensor, torch.nn.Parameter) and tensor.is_contiguous()
            if plain and tensor.device == device and tensor.numel():
                count = min(PLACES, tensor.numel())
                places = found.setdefault(tensor.dtype, [])
                places.append(Place(name, index, count, _apart(tensor, count)))
        self._places = list(found.values())

    def read(self, tensors: Sequence[Tensor]) -> Samples:
        """The same tensors as they are now. Waits for the device."""
        with torch.no_grad():
            return Samples(self._places, [_read(places, tensors) for places in self._places])


def _apart(tensor: Tensor, count: int) -> int:
    """From one place to the next: about all of the tensor, in other rows and other columns."""
    most = max(1, (tensor.numel() - 1) // max(1, count - 1))
    row = tensor.numel() // tensor.shape[0] if tensor.ndim > 1 else 1
    return most - (most - int(GOLDEN * row)) % row if most >= row else most


def _read(places: Sequence[Place], tensors: Sequence[Tensor]) -> Tensor:
    bits = BITS.get(tensors[places[0].at].element_size(), torch.uint8)
    views = [tensors[at].as_strided((count,), (apart,)) for _, at, count, apart in places]
    if bits == torch.uint8:  # torch joins not every such type
        views = [view.view(bits) for view in views]
    return torch.cat(views).view(bits)

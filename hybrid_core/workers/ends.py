"""Exchanges of keys and values: between two processes, and among more of them through this one.

two places          0 <-> 1                     one exchange a gather
more, or two groups 1 -> 0, 2 -> 0, then back   two exchanges a gather and worker, `Hub`
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from hybrid_core.stages.tokens import Form
from hybrid_core.workers.contract import Gathered, TokenLink, Tokens

Tensor = torch.Tensor


class End:
    """One end of the exchanges inside a request; `swap` is a subclass's."""

    def __init__(self, tokens: Tokens):
        self.place, self.bounds, self._relayed = tokens.place, tokens.bounds, tokens.relayed
        self.done = Gathered()

    def swap(self, at: int, mine: list[Tensor], forms: list[Form]) -> list[Tensor]:
        raise NotImplementedError

    def gather(self, at: int, mine: list[Tensor], forms: list[list[Form]]) -> list[list[Tensor]]:
        self.done.exchanges += 1
        if self._relayed:
            self.swap(at, mine, [])
            came = iter(self.swap(at, [], [form for some in forms for form in some]))
            return [[next(came) for _ in some] for some in forms]
        theirs = self.swap(at, mine, forms[1 - self.place])
        return [theirs, []] if self.place else [[], theirs]


class Hub:
    """This process's side where all exchanges go through it: place 0 of the first group.

    Groups have a branch each and equal sizes, so they gather at the same moments.
    """

    place = 0

    def __init__(self, bounds: tuple[int, ...], groups: Sequence[Sequence[TokenLink | None]]):
        """groups: what leads to each place of each group; None: this process."""
        self.bounds, self._groups = bounds, groups
        self.done = Gathered()
        self.to: TokenLink | None = None  # who was spoken with last

    def gather(self, at: int, mine: list[Tensor], forms: list[list[Form]]) -> list[list[Tensor]]:
        since = time.monotonic()
        own = [(tuple(tensor.shape), tensor.dtype) for tensor in mine]
        pieces = [
            [
                mine if end is None else self._swapped(end, at, [], form)
                for end, form in zip(group, [own, *forms[1:]], strict=True)
            ]
            for group in self._groups
        ]
        for group, some in zip(self._groups, pieces, strict=True):
            for place, end in enumerate(group):
                if end is not None:
                    self._swapped(end, at, lacking(some, place, result=not mine), [])
        self.done.exchanges += 1
        self.done.seconds += time.monotonic() - since
        links = [end for group in self._groups for end in group if end is not None]
        self.done.sent = sum(end.done.sent for end in links)
        self.done.received = sum(end.done.received for end in links)
        return [[], *pieces[0][1:]]

    def _swapped(
        self, end: TokenLink, at: int, out: list[Tensor], forms: list[Form]
    ) -> list[Tensor]:
        self.to = end
        return end.swap(at, out, forms)


def lacking(pieces: Sequence[Sequence[Tensor]], place: int, result: bool) -> list[Tensor]:
    """What others have of a group's pieces. result: which is wanted at place 0 alone."""
    if result and place > 0:
        return []
    return [tensor for other, some in enumerate(pieces) if other != place for tensor in some]

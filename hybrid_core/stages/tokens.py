"""One forward pass of a transformer by several devices, each with some of its tokens.

    place 0   block 0 on its tokens ---- block 1 on its tokens ---- ... whole output
                   |  keys, values            |                        ^
    place 1   block 0 on its tokens ---- block 1 on its tokens ---- ---'

Inside a block only attention looks at other tokens: keys and values are gathered there. Between
blocks nothing is, until the network itself looks at the state. How a block is divided is found out
in a forward pass in full, which is recorded (`token_plan`).
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from hybrid_core.errors import NotSplittable
from hybrid_core.stages.attention import PLAIN, Attention, Kernel
from hybrid_core.stages.staging import Each
from hybrid_core.stages.swap import Act, Forward, StageDone, Swapper, copied, mapped, tensors
from hybrid_core.stages.token_plan import BlockPlan, Seen, Shape, cost, planned
from hybrid_core.stages.token_state import Divided, undivided
from hybrid_core.stages.token_streams import Cut, Tensor
from hybrid_core.stages.units import blocks

WORTH = 0.05  # of the costliest block: what costs less is not divided
Key = tuple[int, tuple[Shape, ...]]  # a block's number, the sizes of its inputs
Form = tuple[Shape, torch.dtype]


class Link(Protocol):
    """The other places of a division."""

    place: int
    bounds: tuple[int, ...]

    def gather(self, at: int, mine: list[Tensor], forms: list[list[Form]]) -> list[list[Tensor]]:
        """The others' tensors, in the order of places; `mine` are sent to them.

        at: how many exchanges the forward pass had before, equal at all places. forms: of what each
        place sends, its own left out. Raises WorkerError.
        """
        ...


@dataclass
class Plans:
    """What is known of one network; no tensor and no module is kept alive by it."""

    blocks: dict[Key, BlockPlan | None] = field(default_factory=dict)
    last: set[Key] = field(default_factory=set)  # blocks after which nothing is divided


@dataclass
class Traffic:
    """Of one divided forward pass in halves, as its recording shows it."""

    blocks: int = 0  # that are divided
    exchanges: int = 0
    bytes: int = 0  # each way
    seconds: float = 0.0  # of the recording, that trying the blocks took


class TokenDivider:
    """Records and divides the forward passes of one network. One thread at a time."""

    def __init__(self, network: nn.Module, plans: Plans, attention: Attention = PLAIN):
        """Raises NotSplittable."""
        self.plans = plans
        self._swapper = Swapper(blocks(network))
        self._attention = attention
        self.latest = Traffic()

    def record(self, forward: Forward) -> Any:
        """In full; its result. Afterwards forward passes of the same sizes can be divided, unless
        `latest` says that none of their blocks can be.
        """
        recorder = Recorder(self.plans, self._swapper, self._attention)
        result = recorder.run(forward)
        self.latest = recorder.traffic
        return result

    def divided(self, forward: Forward, link: Link) -> Any:
        """This place's part of a forward pass; the result in full at place 0, None elsewhere.

        Raises NotSplittable for sizes that were not recorded, WorkerError when the link fails.
        """
        return Division(self.plans, self._swapper, self._attention, link).run(forward)


class Recorder:
    """A forward pass in full, whose blocks are looked at one by one."""

    def __init__(self, plans: Plans, swapper: Swapper, attention: Attention):
        self._plans, self._swapper, self._attention = plans, swapper, attention
        self._made: list[weakref.ref[Tensor]] = []  # by blocks
        self._patterns: dict[Any, BlockPlan | None] = {}
        self._found: dict[Key, BlockPlan | None] = {}
        self._costs: dict[Key, int] = {}
        self._sent: dict[Key, Traffic] = {}
        self._latest: Key | None = None
        self.traffic = Traffic()

    def run(self, forward: Forward) -> Any:
        units = self._swapper.units
        with self._swapper.swapped({index: self._watch(index) for index in range(len(units))}):
            result = forward()
        least = WORTH * max(self._costs.values(), default=0)
        for key, plan in self._found.items():
            self._plans.blocks[key] = plan if self._costs[key] >= least else None
            if self._plans.blocks[key] is not None:
                self.traffic.blocks += 1
                self.traffic.exchanges += self._sent[key].exchanges
                self.traffic.bytes += self._sent[key].bytes
        if self._latest is not None:
            self._plans.last.add(self._latest)
        return result

    def _watch(self, index: int) -> Act:
        unit = self._swapper.units[index]

        def act(*args: Any, **keywords: Any) -> Any:
            given = tensors((args, keywords))
            key = index, sizes((args, keywords))
            known = {id(made) for one in self._made if (made := one()) is not None}
            state = {at for at, tensor in enumerate(given) if id(tensor) in known}
            seen = Seen(copied((args, keywords)), state)
            with self._attention.by(seen.attend):
                out = seen.outputs = unit.module(*args, **keywords)
            calls = tuple((call.q.shape, call.k.shape) for call in seen.attention)
            pattern = type(unit.module), key[1], frozenset(state), sizes(out), calls
            if pattern not in self._patterns:
                seen.outputs, since = copied(out), time.monotonic()
                self._patterns[pattern] = planned(unit.module, seen, self._attention)
                self.traffic.seconds += time.monotonic() - since
            plan = self._patterns[pattern]
            self._found[key], self._latest = plan, key
            self._costs[key], self._sent[key] = cost(unit.module, seen), sent(plan, seen)
            self._made += map(weakref.ref, tensors(out))
            return out

        return act


class Division:
    """One place's part of a forward pass."""

    def __init__(self, plans: Plans, swapper: Swapper, attention: Attention, link: Link):
        self._plans, self._swapper, self._attention = plans, swapper, attention
        self._link, self._places = link, range(len(link.bounds) - 1)
        self._at = 0  # exchanges so far
        self._calls: list[Any] = []  # of attention, that the block under way is to make

    def run(self, forward: Forward) -> Any:
        acts: Mapping[int, Act] = {
            index: self._block(index) for index in range(len(self._swapper.units))
        }
        try:
            with self._swapper.swapped(acts), self._attention.by(self._attend):
                return forward()
        except StageDone:
            return None

    def _block(self, index: int) -> Act:
        unit = self._swapper.units[index]

        def act(*args: Any, **keywords: Any) -> Any:
            key = index, sizes((args, keywords))
            if key not in self._plans.blocks:
                raise NotSplittable(f"block {unit.name} was not recorded at these sizes")
            plan, last = self._plans.blocks[key], key in self._plans.last
            if plan is None:
                args, keywords = mapped((args, keywords), undivided)
                if last and self._link.place:
                    raise StageDone
                return unit.module(*args, **keywords)
            cuts = iter(plan.inputs)
            args, keywords = mapped((args, keywords), lambda tensor: self._mine(tensor, next(cuts)))
            self._calls = list(plan.attention)
            out = unit.module(*args, **keywords)
            if self._calls:
                raise NotSplittable(f"block {unit.name} called attention less often than before")
            made = list(zip(tensors(out), plan.outputs, plan.shapes, strict=True))
            states = iter(self._ended(made) if last else [self._state(*one) for one in made])
            return mapped(out, lambda _: next(states))

        return act

    def _mine(self, tensor: Tensor, cut: Cut | None) -> Tensor:
        if cut is None:
            return undivided(tensor)
        found = tensor.part(cut) if isinstance(tensor, Divided) else None
        if found is not None:
            return found
        return cut.piece(undivided(tensor), self._link.bounds, self._link.place)

    def _state(self, piece: Tensor, cut: Cut | None, whole: Shape) -> Tensor:
        if cut is None:
            return piece
        return Divided.of(piece, cut, whole, lambda *one: self._gathered([one])[0])

    def _ended(self, made: list[tuple[Tensor, Cut | None, Shape]]) -> list[Tensor]:
        """After the last block: the outputs in full at place 0, from the others."""
        some = [(piece, cut, whole) for piece, cut, whole in made if cut is not None]
        if self._link.place:
            self._link.gather(self._at, [piece for piece, _, _ in some], [[] for _ in self._places])
            raise StageDone
        wholes = iter(self._gathered(some, sent=False))
        return [piece if cut is None else next(wholes) for piece, cut, _ in made]

    def _gathered(
        self, some: Sequence[tuple[Tensor, Cut, Shape]], sent: bool = True
    ) -> list[Tensor]:
        """Tensors in full, of a piece of each. sent: whether others want them too."""
        link, bounds = self._link, self._link.bounds
        mine = [piece for piece, _, _ in some]
        wanted = [
            [(cut.size(whole, bounds, place), piece.dtype) for piece, cut, whole in some]
            for place in self._places
        ]
        wanted[link.place] = []
        pieces = link.gather(self._at, mine if sent else [], wanted)
        self._at += 1
        pieces[link.place] = mine
        return [
            cut.joined([pieces[place][i] for place in self._places], whole, bounds)
            for i, (_, cut, whole) in enumerate(some)
        ]

    def _attend(
        self, kernel: Kernel, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dim: int
    ) -> Tensor:
        if not self._calls:  # outside of the blocks
            return kernel(q, k, v, mask)
        plan = self._calls.pop(0)
        if plan.keys is not None:
            count, at = plan.shape[dim], dim % v.ndim
            of_values = (*v.shape[:at], count, *v.shape[at + 1 :])
            parts = [(k, plan.keys, plan.shape), (v, plan.keys, of_values)]
            if plan.columns is not None and mask is not None:
                parts.append((mask, plan.columns, (*mask.shape[:-1], count)))
            k, v, *masks = self._gathered(parts)
            mask = masks[0] if masks else mask
        if plan.rows is not None and mask is not None:
            mask = plan.rows.piece(mask, self._link.bounds, self._link.place)
        return kernel(q, k, v, mask)


def sent(plan: BlockPlan | None, seen: Seen) -> Traffic:
    """Of one block."""
    calls = zip(seen.attention, () if plan is None else plan.attention, strict=False)
    gathered = [(c.k.nbytes + c.v.nbytes) // 2 for c, one in calls if one.keys is not None]
    return Traffic(1, len(gathered), sum(gathered))


def sizes(value: Any) -> tuple[Shape, ...]:
    """Of every tensor in `value`; one dimension holds no tokens, whatever its length."""
    return tuple(tuple(tensor.shape) if tensor.ndim > 1 else () for tensor in tensors(value))


def recording(divider: TokenDivider) -> Each:
    """Runs forward passes in full, each looked at."""
    return lambda key, x, forward: divider.record(forward)


def dividing(divider: TokenDivider, link: Link) -> Each:
    """Runs this place's part of forward passes; nobody looks at the result of one but place 0."""

    def each(key: str, x: Any, forward: Forward) -> Any:
        out = divider.divided(forward, link)
        return x if out is None else out

    return each

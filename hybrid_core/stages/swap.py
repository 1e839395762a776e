"""Running one stage of a network: for one forward, blocks change places with stand-ins.

No network is rewritten and no weight moves. A stand-in is of its block's own class with its plain
attributes, so isinstance checks and the attributes that a forward pass reads go on working.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from hybrid_core.errors import NotSplittable
from hybrid_core.stages.plan import Cut, balanced
from hybrid_core.stages.units import Layout, Unit, layout

Forward = Callable[[], Any]
Act = Callable[..., Any]


SAME_RESULT = 1e-3  # relative; kernels may be chosen anew, a lost connection is of order 1
RECORDED = 2  # forwards of a run whose blocks are timed


class StageDone(Exception):
    """Ends a forward pass after the last unit that was wanted."""


class Swapper:
    """Some units of a network, and a stand-in for each."""

    def __init__(self, units: list[Unit]):
        self.units = units
        self._stand_ins = [stand_in(unit) for unit in units]

    @contextmanager
    def swapped(self, acts: Mapping[int, Act]) -> Iterator[None]:
        """Meanwhile these units do what `acts` say. Raises NotSplittable where they do already."""
        units = self.units
        found = {index: units[index].current() for index in acts}
        if any("_act" in vars(module) for module in found.values()):
            raise NotSplittable("another thread uses this network at the same time")
        try:
            for index, act in acts.items():
                unit, place = units[index], self._stand_ins[index]
                unit.module = found[index]  # another may have replaced it since
                place.__dict__["_act"] = act
                unit.holder._modules[unit.key] = place
            yield
        finally:
            for index, module in found.items():
                units[index].holder._modules[units[index].key] = module
                self._stand_ins[index].__dict__["_act"] = None


class Splitter:
    """The stages of one network. A forward is a call without arguments that runs the network once.

    Every unit must run exactly once in a forward; `record` checks it.
    """

    def __init__(self, network: nn.Module):
        """Raises NotSplittable."""
        self.layout: Layout = layout(network)
        self._swapped = Swapper(self.layout.units).swapped
        self._scratch: dict[int, Any] = {}  # what a unit returned in a full forward, as places

    def record(self, forward: Forward, last: int | None = None) -> tuple[Any, Recording]:
        """Run in full; the result and what each unit gave and took, the boundary after `last` too.

        Raises NotSplittable.
        """
        recording = Recording()
        places: dict[Any, torch.Tensor] = {}
        self._scratch.clear()

        def watch(index: int, unit: Unit) -> Act:
            def act(*args: Any, **keywords: Any) -> Any:
                began = recording.mark()
                out = unit.module(*args, **keywords)
                recording.taken(index, began)
                recording.positions[index] = positions(out)
                self._scratch[index] = placeholder(out, places)
                if index == last:
                    recording.boundary = copied(out)
                return out

            return act

        units = self.layout.units
        with self._swapped({i: watch(i, unit) for i, unit in enumerate(units)}):
            result = forward()
        if recording.order != list(range(len(units))):
            raise NotSplittable(
                f"{len(recording.order)} of {len(units)} blocks ran, or in another order than they "
                "are listed in"
            )
        return result, recording

    def capture(self, forward: Forward, last: int) -> tuple[Any, Any]:
        """Run in full; the result and a copy of what unit `last` returned."""
        taken: list[Any] = []

        def act(*args: Any, **keywords: Any) -> Any:
            out = self.layout.units[last].module(*args, **keywords)
            taken.append(copied(out))
            return out

        with self._swapped({last: act}):
            result = forward()
        if len(taken) != 1:
            raise NotSplittable(f"block {self.layout.units[last].name} ran {len(taken)} times")
        return result, taken[0]

    def stage_a(self, forward: Forward, last: int) -> Any:
        """Run up to unit `last`: a copy of what it returned, the boundary."""
        taken: list[Any] = []

        def act(*args: Any, **keywords: Any) -> Any:
            taken.append(copied(self.layout.units[last].module(*args, **keywords)))
            raise StageDone

        with self._swapped({last: act}):
            try:
                forward()
            except StageDone:
                return taken[0]
        raise NotSplittable(f"block {self.layout.units[last].name} did not run")

    def stage_b(self, forward: Forward, cut: Cut, boundary: Any) -> Any:
        """Run with `boundary` in place of the cut's units.

        Needs a forward that was recorded at the same sizes: `fits` tells.
        """
        acts: dict[int, Act] = {
            index: lambda *_, _index=index, **__: self._scratch[_index]
            for index in range(cut.first, cut.last)
        }
        acts[cut.last] = lambda *_, **__: copied(boundary)
        with self._swapped(acts):
            return forward()

    def check(self, forward: Forward, cut: Cut, boundary: Any, result: torch.Tensor) -> None:
        """Stage B on the very boundary of a full forward must give the very result.

        Raises NotSplittable.
        """
        again = self.stage_b(forward, cut, boundary)
        error = (again - result).abs().mean() / result.abs().mean().clamp_min(1e-12)
        if not error.item() <= SAME_RESULT:
            raise NotSplittable(
                f"cut at block {self.layout.units[cut.last].name}, this network gives another "
                f"result (relative difference {error.item():.2g})"
            )

    def planned(self, recording: Recording) -> Cut:
        """The cut by the sizes of the units: weights times places."""
        costs = [
            self.weights(index) * recording.positions[index]
            for index in range(len(recording.order))
        ]
        return balanced(self.layout.cuts, costs)

    def fits(self, cut: Cut, boundary: Any) -> bool:
        """Whether `boundary` has the structure, sizes and dtypes of the cut's last unit."""
        return cut.last in self._scratch and alike(self._scratch[cut.last], boundary)

    def boundary_bytes(self, cut: Cut) -> int:
        """What the cut's last unit returned in the recorded forward takes."""
        return sum(t.numel() * t.element_size() for t in tensors(self._scratch[cut.last]))

    def weights(self, index: int) -> int:
        """Number of weights of a unit."""
        return sum(p.numel() for p in self.layout.units[index].module.parameters())


class Recording:
    """What a full forward showed of its units."""

    def __init__(self) -> None:
        self.order: list[int] = []
        self.positions: dict[int, int] = {}
        self.boundary: Any = None
        self._marks: list[tuple[Any, Any]] = []

    def mark(self) -> Any:
        """A moment, on the GPU where there is one."""
        if torch.cuda.is_available():
            event = torch.cuda.Event(enable_timing=True)
            event.record()  # type: ignore[no-untyped-call]
            return event
        return time.perf_counter()

    def taken(self, index: int, began: Any) -> None:
        self.order.append(index)
        self._marks.append((began, self.mark()))

    def seconds(self) -> list[float]:
        """Time of each unit. On a GPU this waits for the last of them."""
        if not self._marks or isinstance(self._marks[0][0], float):
            return [end - began for began, end in self._marks]
        self._marks[-1][1].synchronize()
        return [began.elapsed_time(end) / 1000 for began, end in self._marks]


def stand_in(unit: Unit) -> nn.Module:
    """A module of the unit's class that does what `_act` in its __dict__ says."""
    original = getattr(unit.module, "_orig_mod", unit.module)  # torch.compile's wrapper
    base = type(original)

    def forward(self: Any, *args: Any, **keywords: Any) -> Any:
        return self.__dict__["_act"](*args, **keywords)

    def missing(self: Any, name: str) -> Any:
        return getattr(original, name)

    cls: Any = type(base.__name__, (base,), {"forward": forward, "__getattr__": missing})
    made: nn.Module = cls.__new__(cls)
    nn.Module.__init__(made)
    own = {*vars(nn.Module()), "forward", "_compiled_call_impl"}
    made.__dict__.update({k: v for k, v in vars(original).items() if k not in own})
    made.train(original.training)
    return made


def copied(value: Any) -> Any:
    """`value` with every tensor in memory of its own: residuals are added in place."""
    return mapped(value, lambda tensor: tensor.clone())


def placeholder(value: Any, places: dict[Any, torch.Tensor]) -> Any:
    """The structure of `value` with tensors that hold nothing, one in `places` for each size.

    Who takes them for a value gets NaN.
    """

    def place(tensor: torch.Tensor) -> torch.Tensor:
        key = (tensor.shape, tensor.stride(), tensor.dtype, tensor.device)
        if key not in places:
            nothing = math.nan if tensor.is_floating_point() else 0
            places[key] = torch.full_like(tensor, nothing)
        return places[key]

    return mapped(value, place)


def mapped(value: Any, function: Callable[[torch.Tensor], Any]) -> Any:
    """`value` with `function` applied to every tensor in its tuples, lists and dicts."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, tuple | list):
        return type(value)([mapped(v, function) for v in value])
    if isinstance(value, dict):
        return {key: mapped(v, function) for key, v in value.items()}
    return value


def tensors(value: Any) -> list[torch.Tensor]:
    """Every tensor in `value`, in order."""
    found: list[torch.Tensor] = []
    mapped(value, found.append)
    return found


def alike(a: Any, b: Any) -> bool:
    """Whether two values have the same structure and tensors of the same shapes and dtypes."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and (a.shape, a.dtype) == (b.shape, b.dtype)
    if isinstance(a, tuple | list):
        return type(a) is type(b) and len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(alike(a[k], b[k]) for k in a)
    return type(a) is type(b) and bool(a == b)


def positions(value: Any) -> int:
    """How many places (pixels, tokens) the tensors of a unit's output hold."""
    return sum(
        t.shape[2:].numel() if t.ndim == 4 else t.shape[1:-1].numel()
        for t in tensors(value)
        if t.ndim >= 3
    )

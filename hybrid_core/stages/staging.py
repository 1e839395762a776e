"""The stages of one run: each forward pass of an evaluation in full or in part, and where to cut.

An evaluation may run the network several times (a prompt each, or parts of a picture). Its forward
passes have names, equal in both processes; a boundary is kept for each.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch import nn

from hybrid_core.stages import plan
from hybrid_core.stages.plan import Cut
from hybrid_core.stages.swap import RECORDED, Splitter
from hybrid_core.stages.units import layout

Forward = Callable[[], Any]
Each = Callable[[str, Any, Forward], Any]  # a forward's name, its input, the forward itself
Boundaries = dict[str, Any]
# by network and latent shape: where earlier runs have settled to cut it
Cuts = weakref.WeakKeyDictionary[nn.Module, dict[Any, Cut]]


class Staging:
    """This process's forward passes of one run, and where its network is cut."""

    def __init__(self, network: nn.Module, cuts: dict[Any, Cut], key: Any):
        """cuts: what earlier runs settled on, by `key`. Raises NotSplittable."""
        self._network, self._cuts, self._key = network, cuts, key
        self._layout = layout(network)
        self._splitters: dict[str, Splitter] = {}
        self._seconds: list[float] = []
        self._recorded = 0
        self._under_way: list[str] = []  # forward passes recorded in this evaluation
        self.cut: Cut | None = None
        self.verified = key in cuts
        self.taken: Boundaries = {}

    @property
    def keys(self) -> list[str]:
        """Forward passes seen in the last recorded evaluation."""
        return list(self._splitters)

    @property
    def cut_name(self) -> str | None:
        """The last block of stage A."""
        return None if self.cut is None else self._layout.units[self.cut.last].name

    @property
    def recording(self) -> bool:
        """Whether the next evaluation in full is to be recorded."""
        return self._recorded < RECORDED

    @property
    def at_first(self) -> bool:
        """Whether the evaluation under way is the first to be recorded."""
        return self._recorded == 0

    @property
    def seen(self) -> bool:
        """Whether the evaluation under way was recorded."""
        return bool(self._under_way)

    def clear(self) -> None:
        """Before an evaluation in full."""
        self.taken, self._under_way = {}, []

    def record(self, key: str, _: Any, forward: Forward) -> Any:
        """In full; remembers the blocks' sizes and times, and the boundary of the planned cut.

        Raises NotSplittable.
        """
        if key not in self._splitters:
            self._splitters[key] = Splitter(self._network)
        splitter = self._splitters[key]
        result, recording = splitter.record(forward, None if self.cut is None else self.cut.last)
        if recording.boundary is not None:
            self.taken[key] = recording.boundary
        seconds = recording.seconds()
        self._under_way.append(key)
        if len(self._under_way) == 1:
            self._seconds = [*map(min, zip(seconds, self._seconds or seconds, strict=True))]
            if self.cut is None:
                self.cut = splitter.planned(recording)
        return result

    def recorded(self, worker_speed: float) -> None:
        """After a recorded evaluation: settle the cut when enough was seen.

        An earlier run's cut is taken at the same moment as a first run settles its own: then both
        see the features' drift from the same step on, and the same run gives the same image.
        """
        self._recorded += 1
        if self.cut is None or self.recording:
            return
        planned = self.cut
        if self._key not in self._cuts:
            self._cuts[self._key] = plan.rebalanced(
                self._layout.cuts, planned, self._seconds, worker_speed
            )
        self.cut = self._cuts[self._key]
        if self.cut != planned:
            self.taken = {}

    @property
    def boundary_bytes(self) -> int:
        """Of the forward passes that were recorded in this evaluation, 0 without a cut."""
        if self.cut is None:
            return 0
        return sum(self._splitters[key].boundary_bytes(self.cut) for key in self._under_way)

    def capture(self, key: str, _: Any, forward: Forward) -> Any:
        """In full; leaves the boundary in `taken`. Raises NotSplittable."""
        splitter = self._splitters.get(key)
        if splitter is None or self.cut is None:
            return forward()
        result, boundary = splitter.capture(forward, self.cut.last)
        if not self.verified:
            splitter.check(forward, self.cut, boundary, result)
            self.verified = True
        self.taken[key] = boundary
        return result

    def finishing(self, boundaries: Boundaries) -> Each:
        """Stage B where there is a boundary that fits, in full elsewhere."""

        def finish(key: str, _: Any, forward: Forward) -> Any:
            splitter, boundary = self._splitters.get(key), boundaries.get(key)
            if splitter is None or self.cut is None or not splitter.fits(self.cut, boundary):
                return forward()
            return splitter.stage_b(forward, self.cut, boundary)

        return finish

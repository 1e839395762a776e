"""The two stages of the parent's network in one pipeline call, and where it is cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from hybrid_core.stages import plan
from hybrid_core.stages.plan import Cut
from hybrid_core.stages.swap import RECORDED, Splitter

Forward = Callable[[], torch.Tensor]


class Staging:
    """Records the first forwards, settles the cut, checks it, and runs stage B."""

    def __init__(self, network: nn.Module, cuts: dict[Any, Cut], cut_key: Any):
        """cuts: what earlier calls settled on, by `cut_key`. Raises NotSplittable.

        An earlier call's cut is looked up where a first call settles its own. So both see the
        features' drift from the same step on, and the same call gives the same image again.
        """
        self._splitter = Splitter(network)
        self._cuts, self._cut_key = cuts, cut_key
        self._seconds: list[list[float]] = []
        self._settled = False
        self.verified = False
        self.cut: Cut | None = None

    @property
    def cut_name(self) -> str | None:
        """The last block of stage A."""
        return None if self.cut is None else self._splitter.layout.units[self.cut.last].name

    @property
    def recording(self) -> bool:
        """Whether the next forward in full is to be recorded."""
        return len(self._seconds) < RECORDED

    def record(self, forward: Forward) -> tuple[torch.Tensor, Any]:
        """In full; remembers the blocks' times, and plans the cut by their sizes.

        The result, and from the second time on the boundary. Raises NotSplittable.
        """
        last = None if self.cut is None else self.cut.last
        result, recording = self._splitter.record(forward, last)
        self._seconds.append(recording.seconds())
        if self.cut is None:
            self.cut = self._splitter.planned(recording)
        return result, recording.boundary

    def settle(self, worker_speed: float) -> bool:
        """After an exact evaluation: the cut follows the clock once, where that is worth it.

        Whether it has changed, so that a boundary from before is of no use.
        """
        if self.cut is None or self.recording or self._settled:
            return False
        planned, self._settled = self.cut, True
        if self._cut_key not in self._cuts:
            seconds = [min(times) for times in zip(*self._seconds, strict=True)]
            self._cuts[self._cut_key] = plan.rebalanced(
                self._splitter.layout.cuts, planned, seconds, worker_speed
            )
        self.cut = self._cuts[self._cut_key]
        return self.cut != planned

    @property
    def boundary_bytes(self) -> int:
        """By the latest forward that was recorded, 0 without a cut."""
        return 0 if self.cut is None else self._splitter.boundary_bytes(self.cut)

    def capture(self, forward: Forward) -> tuple[torch.Tensor, Any]:
        """In full; the result and the boundary. Raises NotSplittable."""
        assert self.cut is not None
        result, boundary = self._splitter.capture(forward, self.cut.last)
        if not self.verified:
            self._splitter.check(forward, self.cut, boundary, result)
            self.verified = True
        return result, boundary

    def fits(self, boundary: Any) -> bool:
        """Whether stage B can go on from `boundary`."""
        return self.cut is not None and self._splitter.fits(self.cut, boundary)

    def finish(self, forward: Forward, boundary: Any) -> torch.Tensor:
        """Stage B on `boundary`."""
        assert self.cut is not None
        return self._splitter.stage_b(forward, self.cut, boundary)  # type: ignore[no-any-return]

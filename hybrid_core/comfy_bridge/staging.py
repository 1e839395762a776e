"""Stages in ComfyUI: each forward pass of one evaluation, in full or in part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP

from hybrid_core.comfy_bridge.support import WRAPPER_KEY
from hybrid_core.stages import plan
from hybrid_core.stages.plan import Cut
from hybrid_core.stages.swap import RECORDED, Splitter
from hybrid_core.stages.units import layout

Forward = Callable[[], Any]
Each = Callable[[str, torch.Tensor, Forward], Any]  # name, input, the forward itself
Boundaries = dict[str, Any]


def chunk_key(x: torch.Tensor, transformer_options: Mapping[str, Any]) -> str:
    """Names a forward pass within an evaluation: which conditioning, at which size."""
    uuids = ",".join(str(uuid) for uuid in transformer_options.get("uuids", ()))
    return f"{uuids}:{'x'.join(map(str, x.shape))}"


def with_each_forward(options: Mapping[str, Any], each: Each) -> dict[str, Any]:
    """model_options under which `each` runs the forward passes."""

    def apply_model(executor: Any, x: Any, *args: Any, **keywords: Any) -> Any:
        transformer_options = keywords.get("transformer_options")
        if transformer_options is None:
            transformer_options = args[4] if len(args) > 4 else {}
        key = chunk_key(x, transformer_options)
        return each(key, x, lambda: executor(x, *args, **keywords))

    transformer_options = {**options.get("transformer_options", {})}
    wrappers = {**transformer_options.get("wrappers", {})}
    kind = WrappersMP.APPLY_MODEL
    wrappers[kind] = {**wrappers.get(kind, {}), WRAPPER_KEY: [apply_model]}
    transformer_options["wrappers"] = wrappers
    return {**options, "transformer_options": transformer_options}


class Staging:
    """The parent's forward passes of one run, and where its network is cut."""

    def __init__(self, network: torch.nn.Module, known: Cut | None):
        """known: the cut that an earlier run of the same shape settled on. Raises NotSplittable."""
        self._network = network
        self._layout = layout(network)
        self._splitters: dict[str, Splitter] = {}
        self._seconds: list[float] = []
        self._recorded = 0
        self._under_way: list[str] = []  # forward passes recorded in this evaluation
        self._known = known
        self.cut: Cut | None = None
        self.verified = known is not None
        self.taken: Boundaries = {}

    @property
    def keys(self) -> list[str]:
        """Forward passes seen in the last recorded evaluation."""
        return list(self._splitters)

    def block(self, unit: int) -> str:
        """Name of a unit."""
        return self._layout.units[unit].name

    @property
    def recording(self) -> bool:
        """Whether the next evaluation in full is to be recorded."""
        return self._recorded < RECORDED

    @property
    def at_first(self) -> bool:
        """Whether the evaluation under way is the first to be recorded."""
        return self._recorded == 0

    def begin(self) -> None:
        """Before an evaluation in full."""
        self.taken, self._under_way = {}, []

    def record(self, key: str, forward: Forward) -> Any:
        """In full; remembers the blocks' sizes and times, and the boundary of the planned cut.

        Raises NotSplittable.
        """
        if key not in self._splitters:
            self._splitters[key] = Splitter(self._network)
        splitter = self._splitters[key]
        last = self.cut.last if self.cut is not None else None
        result, recording = splitter.record(forward, last)
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
        cuts = self._layout.cuts
        settled = self._known or plan.rebalanced(cuts, self.cut, self._seconds, worker_speed)
        if settled != self.cut:
            self.cut, self.taken = settled, {}

    @property
    def boundary_bytes(self) -> int:
        """Of the forward passes that were recorded in this evaluation, 0 without a cut."""
        if self.cut is None:
            return 0
        return sum(self._splitters[key].boundary_bytes(self.cut) for key in self._under_way)

    def capture(self, key: str, forward: Forward) -> Any:
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

        def finish(key: str, _: torch.Tensor, forward: Forward) -> Any:
            splitter, boundary = self._splitters.get(key), boundaries.get(key)
            if splitter is None or self.cut is None or not splitter.fits(self.cut, boundary):
                return forward()
            return splitter.stage_b(forward, self.cut, boundary)

        return finish

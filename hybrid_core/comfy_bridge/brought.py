"""What conditioning brings to a run beside plain data: ControlNets, GLIGEN, and hooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from comfy.model_patcher import ModelPatcher

from hybrid_core.comfy_bridge.controls import HeldControls, RunsControls
from hybrid_core.comfy_bridge.hooks import HeldHooks, RunsHooks
from hybrid_core.comfy_bridge.prompts import Entry, entries

if TYPE_CHECKING:  # the worker has no graph
    from hybrid_core.comfy_bridge.graph_path import Graph


class Brought:
    """Of one run, as the parent tells the worker of it."""

    def __init__(
        self,
        conds: Mapping[str, Any],
        patcher: ModelPatcher,
        graph: Graph | None,
        shape: tuple[int, ...] = (),
    ):
        """conds: of a guider, by name. shape: of the run's latents.

        Raises NotPartitionable for what cannot be repeated.
        """
        some = list(entries(conds.values()))
        self.hooks = RunsHooks(some, patcher)
        self._controls = RunsControls(some, graph, shape)

    @property
    def key(self) -> str:
        return f"{self._controls.key};{self.hooks.key}"

    @property
    def code(self) -> list[Any]:
        """Equal while nobody replaced code that the networks of controls call."""
        return self._controls.code

    def changed(self) -> str | None:
        """What has changed in a control's network since the run began, in words."""
        return self._controls.changed()

    @property
    def loads(self) -> bool:
        """Whether the worker executes loaders of the graph for it."""
        return bool(self._controls.key)

    def data(self) -> dict[str, Any]:
        """For the worker, with the model."""
        return {"controls": self._controls.data(), "hooks": self.hooks.data()}

    def describe(self, entry: Entry) -> dict[str, Any]:
        """What one entry of a prompt brings. Raises NotYet, NotPartitionable."""
        told: dict[str, Any] = {}
        if entry.get("control") is not None:
            told["control"] = self._controls.describe(entry["control"])
        if entry.get("gligen") is not None:
            told["gligen"] = self._controls.describe_boxes(entry["gligen"])
        if entry.get("hooks") is not None:
            told["hooks"] = self.hooks.describe(entry["hooks"])
        return told


class HeldBrought:
    """In the worker, beside the replica that is held."""

    def __init__(self) -> None:
        self._controls, self._hooks = HeldControls(), HeldHooks()

    def load(
        self, told: Mapping[str, Any], patcher: ModelPatcher, graphs: Callable[[], Any]
    ) -> None:
        """graphs: what executes loaders. Raises NotPartitionable."""
        self._controls.load(told["controls"], graphs)
        self._hooks.load(told["hooks"], patcher)

    @property
    def hooked(self) -> dict[str, Any]:
        """Patches by hook and weight."""
        return self._hooks.patches

    def models(self) -> list[Any]:
        """Patchers, to be loaded beside the replica."""
        return self._controls.models()

    def restore(self, described: Entry, patcher: ModelPatcher) -> dict[str, Any]:
        """What `Brought.describe` described."""
        made: dict[str, Any] = {}
        if "control" in described:
            made["control"] = self._controls.restore(described["control"], patcher.model)
        if "gligen" in described:
            made["gligen"] = self._controls.restore_boxes(described["gligen"])
        if "hooks" in described:
            made["hooks"] = self._hooks.restore(described["hooks"], patcher)
        return made

"""ControlNets and GLIGEN for another process: their models by the nodes that load them, the rest as
data.

A control object is a model, a hint, a strength, a range of steps, and the control before it;
GLIGEN's is a model, and boxes with what is in them. The worker executes the loaders that are in the
graph and takes the one whose weights are these.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from comfy.model_patcher import ModelPatcher

from hybrid_core.comfy_bridge import control_models, control_values
from hybrid_core.comfy_bridge.control_models import Seen
from hybrid_core.errors import NotPartitionable, NotYet, ProtocolError
from hybrid_core.transport import wire

if TYPE_CHECKING:  # the worker has no graph
    from hybrid_core.comfy_bridge.graph_path import Graph, GraphPath

LOADED = ("CONTROL_NET", "GLIGEN")  # what loaders give

# hints that a VAE made in earlier runs, by control, with what they were made from
_made: weakref.WeakKeyDictionary[Any, tuple[Any, torch.Tensor]] = weakref.WeakKeyDictionary()


def chain(control: Any) -> Iterator[Any]:
    """The control and those before it."""
    while control is not None:
        yield control
        control = control.previous_controlnet


class RunsControls:
    """The controls of one run, as the parent tells the worker of them."""

    def __init__(
        self, entries: Iterable[Mapping[str, Any]], graph: Graph | None, shape: tuple[int, ...]
    ):
        """entries: of all prompts. shape: of the run's latents.

        Raises NotPartitionable for what cannot be repeated.
        """
        self._shape = shape
        found: dict[int, Any] = {}
        for entry in entries:
            found |= {id(control): control for control in chain(entry.get("control"))}
            if entry.get("gligen") is not None:
                found[id(entry["gligen"][1])] = entry["gligen"][1]
        self._seen: dict[int, tuple[Any, Seen]] = {}  # by the network
        for one in found.values():
            control_models.check(one)
            self._seen[id(control_models.owner(one))] = one, control_models.look(one)
        self._paths = _loaders(graph) if found else []
        self._names = sorted({seen.name for _, seen in self._seen.values()})

    @property
    def key(self) -> str:
        return ",".join(self._names)

    @property
    def code(self) -> list[Any]:
        """Equal while nobody replaced code that these controls call."""
        return [seen.code for _, seen in self._seen.values()]

    def changed(self) -> str | None:
        """What has changed in one of the networks since the run began, in words."""
        found = (control_models.changed(*one) for one in self._seen.values())
        return next((change for change in found if change is not None), None)

    def data(self) -> dict[str, Any]:
        """For the worker, before the controls themselves."""
        return {"loaders": [path.data() for path in self._paths], "wanted": self._names}

    def describe(self, control: Any) -> dict[str, Any]:
        """One control with those before it. Raises NotYet, NotPartitionable."""
        name = self._known(control)
        before = control.previous_controlnet
        return {
            "model": name,
            "values": control_values.describe(control),
            "made": None if control.vae is None else self._hint(control),
            "previous": None if before is None else self.describe(before),
        }

    def _hint(self, control: Any) -> torch.Tensor:
        """What a VAE has made of the hint, in this run or, for the same size, an earlier one."""
        source, earlier = _made.get(control, (None, None))
        if control.cond_hint is not None:
            if control.cond_hint is not earlier:
                _made[control] = control_values.hint_source(control), control.cond_hint
            return control.cond_hint  # type: ignore[no-any-return]
        sides = tuple(side * control.compression_ratio for side in self._shape[-2:])
        if (
            earlier is None
            or tuple(earlier.shape[-2:]) != sides
            or source != control_values.hint_source(control)
        ):
            raise NotYet("the VAE makes the ControlNet's hint in the next evaluation")
        return earlier

    def describe_boxes(self, gligen: tuple[Any, ...]) -> dict[str, Any]:
        """An entry's GLIGEN. Raises NotPartitionable."""
        kind, model, boxes = gligen
        return {"model": self._known(model), "kind": kind, "boxes": boxes}

    def _known(self, one: Any) -> str:
        control_models.check_object(one)
        known = self._seen.get(id(control_models.owner(one)))
        if known is None:
            raise NotPartitionable("a ControlNet came into the conditioning while it was sampled")
        return known[1].name


def hints(control: Any) -> int:
    """How many pictures the longest hint of a chain has."""
    lengths = [
        1 if c.cond_hint_original is None else len(c.cond_hint_original) for c in chain(control)
    ]
    return max(lengths, default=1)


def in_a_part(control: Any) -> bool:
    """Whether some control of a chain acts in a part of the schedule only."""
    return any(tuple(one.timestep_percent_range) != (0.0, 1.0) for one in chain(control))


def acting(control: Any, sigma: float) -> list[bool]:
    """Which controls of a chain act at `sigma`."""
    spans = (one.timestep_range for one in chain(control))  # sigmas, once a run has begun
    return [span is None or span[0] >= sigma >= span[1] for span in spans]


def _loaders(graph: Graph | None) -> list[GraphPath]:
    """Nodes of the graph that load such models and can be repeated, those with least before them
    first. Raises NotPartitionable where there is none.
    """
    if graph is None:
        raise NotPartitionable("a ControlNet is applied, and the graph that loads it is not known")
    paths, why = [], "no node of the graph loads it"
    for node, slot in (output for kind in LOADED for output in graph.outputs_of(kind)):
        try:
            paths.append(graph.path_to(node, slot))
        except NotPartitionable as error:
            why = str(error)
    if not paths:
        raise NotPartitionable(f"a ControlNet is applied: {why}")
    return sorted(paths, key=lambda path: (len(path.graph), path.digest))


class HeldControls:
    """In the worker: the control models of the replica that is held."""

    def __init__(self) -> None:
        self._held: dict[str, Any] = {}

    def load(self, told: Mapping[str, Any], graphs: Callable[[], Any]) -> None:
        """Execute loaders until every wanted model is here. Raises NotPartitionable."""
        wanted = set(told["wanted"])
        self._held = {name: held for name, held in self._held.items() if name in wanted}
        for path in told["loaders"]:
            if wanted <= self._held.keys():
                return
            control = graphs().output(path)
            self._held.setdefault(control_models.look(control).name, control)
        if not wanted <= self._held.keys():
            raise NotPartitionable(
                "no node of the graph loads a ControlNet with these weights and settings"
            )

    def models(self) -> list[Any]:
        """Patchers, to be loaded beside the replica."""
        return [
            model
            for one in self._held.values()
            for model in ([one] if isinstance(one, ModelPatcher) else one.get_models())
        ]

    def restore(self, data: Mapping[str, Any], model: Any) -> Any:
        """The control that `RunsControls.describe` described, ready for `model`."""
        control = self._restored(data)
        sampling = model.model_sampling
        control.pre_run(model, sampling.percent_to_sigma)
        return control

    def restore_boxes(self, data: Mapping[str, Any]) -> tuple[Any, ...]:
        """What `RunsControls.describe_boxes` described; ComfyUI puts boxes together off the GPU."""
        boxes = [(inside.cpu(), *place) for inside, *place in data["boxes"]]
        return data["kind"], self._of(data["model"]), boxes

    def _of(self, name: str) -> Any:
        held = self._held.get(name)
        if held is None:
            raise ProtocolError(f"ControlNet {str(name)[:16]} is not held here")
        return held

    def _restored(self, data: Mapping[str, Any]) -> Any:
        control = self._of(data["model"]).copy()
        control_values.restore(control, data["values"])
        control.vae = None
        if data["made"] is not None:
            if not isinstance(data["made"], torch.Tensor):
                raise ProtocolError(f"a ControlNet's hint is {wire.shown(data['made'])}")
            control.cond_hint = data["made"]
        if data["previous"] is not None:
            control.set_previous_controlnet(self._restored(data["previous"]))
        return control

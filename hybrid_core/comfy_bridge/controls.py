"""ControlNets and GLIGEN for another process: their models by the nodes that load them, the rest as
data.

A control object is a model, a hint, a strength, a range of steps, and the control before it;
GLIGEN's is a model, and boxes with what is in them. The worker executes the loaders that are in the
graph and takes the one whose weights are these.
"""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import comfy.controlnet
import comfy.gligen
import torch
from comfy.model_patcher import ModelPatcher

from hybrid_core.errors import NotPartitionable, NotYet, ProtocolError
from hybrid_core.machine.checksum import checksum

if TYPE_CHECKING:  # the worker has no graph
    from hybrid_core.comfy_bridge.graph_path import Graph, GraphPath

KINDS = ("ControlNet", "ControlLora", "QwenFunControlNet", "T2IAdapter")
MODELS = ("control_model", "t2i_model", "model")
LOADED = ("CONTROL_NET", "GLIGEN")  # what loaders give
VALUES = ("strength", "timestep_percent_range", "cond_hint_original", "extra_concat_orig")
SET_IN_A_RUN = "base_model"  # an extra argument that a control gives itself

_digests: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
_made: weakref.WeakKeyDictionary[Any, torch.Tensor] = weakref.WeakKeyDictionary()  # of earlier runs


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
        for one in found.values():
            _check(one)
        self._paths = _loaders(graph) if found else []
        self._digests = sorted({digest(one) for one in found.values()})

    @property
    def key(self) -> str:
        return ",".join(self._digests)

    def data(self) -> dict[str, Any]:
        """For the worker, before the controls themselves."""
        return {"loaders": [path.data() for path in self._paths], "wanted": self._digests}

    def describe(self, control: Any) -> dict[str, Any]:
        """One control with those before it. Raises NotYet, NotPartitionable."""
        name = self._known(control)
        arguments = {k: v for k, v in control.extra_args.items() if k != SET_IN_A_RUN}
        before = control.previous_controlnet
        return {
            "model": name,
            "values": {value: getattr(control, value) for value in VALUES},
            "extra_args": arguments,
            "made": None if control.vae is None else self._hint(control),
            "previous": None if before is None else self.describe(before),
        }

    def _hint(self, control: Any) -> torch.Tensor:
        """What a VAE has made of the hint, in this run or, for the same size, an earlier one."""
        if control.cond_hint is not None:
            _made[control] = control.cond_hint
            return _made[control]
        earlier, ratio = _made.get(control), control.compression_ratio
        sides = tuple(side * ratio for side in self._shape[-2:])
        if earlier is None or tuple(earlier.shape[-2:]) != sides:
            raise NotYet("the VAE makes the ControlNet's hint in the next evaluation")
        return earlier

    def describe_boxes(self, gligen: tuple[Any, ...]) -> dict[str, Any]:
        """An entry's GLIGEN. Raises NotPartitionable."""
        kind, model, boxes = gligen
        return {"model": self._known(model), "kind": kind, "boxes": boxes}

    def _known(self, one: Any) -> str:
        _check(one)
        name = digest(one)
        if name not in self._digests:
            raise NotPartitionable("a ControlNet came into the conditioning while it was sampled")
        return name


def hints(control: Any) -> int:
    """How many pictures the longest hint of a chain has."""
    lengths = [
        1 if c.cond_hint_original is None else len(c.cond_hint_original) for c in chain(control)
    ]
    return max(lengths, default=1)


def _check(control: Any) -> None:
    if isinstance(control, ModelPatcher):
        if type(control.model) is not comfy.gligen.Gligen:
            raise NotPartitionable(f"a GLIGEN is another pack's ({type(control.model).__name__})")
        return
    kind = type(control)
    if getattr(comfy.controlnet, kind.__name__, None) is not kind or kind.__name__ not in KINDS:
        raise NotPartitionable(f"a ControlNet is another pack's ({kind.__name__})")
    if control.extra_hooks is not None:
        raise NotPartitionable("a ControlNet carries hooks")


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


def digest(control: Any) -> str:
    """Of a control's kind and weights."""
    model = next((m for name in MODELS if (m := getattr(control, name, None)) is not None), None)
    weights: Any = getattr(control, "control_weights", None)
    if weights is None:
        if model is None:
            raise NotPartitionable(f"a ControlNet ({type(control).__name__}) has no weights")
        if model in _digests:
            return _digests[model]
        weights = model.state_dict()
    try:
        sums = {name: checksum(w) for name, w in weights.items() if isinstance(w, torch.Tensor)}
    except (RuntimeError, TypeError) as error:
        raise NotPartitionable(f"a ControlNet's weights cannot be compared: {error}") from error
    kind = type(model if isinstance(control, ModelPatcher) else control)
    text = json.dumps([kind.__name__, sums], sort_keys=True)
    found = hashlib.sha256(text.encode()).hexdigest()
    if model is not None and getattr(control, "control_weights", None) is None:
        _digests[model] = found
    return found


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
            self._held.setdefault(digest(control), control)
        if not wanted <= self._held.keys():
            raise NotPartitionable("no node of the graph loads a ControlNet with these weights")

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
        for name in VALUES:
            setattr(control, name, data["values"][name])
        control.extra_args = dict(data["extra_args"])
        control.vae = None
        if data["made"] is not None:
            control.cond_hint = data["made"]
        if data["previous"] is not None:
            control.set_previous_controlnet(self._restored(data["previous"]))
        return control

"""ControlNets for another process: their models by the nodes that load them, the rest as data.

A control object is a model, a hint, a strength, a range of steps, and the control before it. The
worker executes the loaders that are in the graph and takes the one whose weights are these.
"""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import comfy.controlnet
import torch

from hybrid_core.errors import NotPartitionable, NotYet, ProtocolError
from hybrid_core.machine.checksum import checksum

if TYPE_CHECKING:  # the worker has no graph
    from hybrid_core.comfy_bridge.graph_path import Graph, GraphPath

KINDS = ("ControlNet", "ControlLora", "QwenFunControlNet", "T2IAdapter")
MODELS = ("control_model", "t2i_model")
VALUES = ("strength", "timestep_percent_range", "cond_hint_original", "extra_concat_orig")
SET_IN_A_RUN = "base_model"  # an extra argument that a control gives itself

_digests: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


def chain(control: Any) -> Iterator[Any]:
    """The control and those before it."""
    while control is not None:
        yield control
        control = control.previous_controlnet


def of_conds(conds: Mapping[str, Any]) -> list[Any]:
    """Every control that takes part in a run's conditioning, each once."""
    entries = [entry for entries in conds.values() for entry in entries or ()]
    found = [one for entry in entries for one in chain(entry.get("control"))]
    return list({id(control): control for control in found}.values())


class RunsControls:
    """The controls of one run, as the parent tells the worker of them."""

    def __init__(self, controls: Sequence[Any], graph: Graph | None):
        """Raises NotPartitionable for controls that cannot be repeated elsewhere."""
        self._paths = _loaders(graph) if controls else []
        for control in controls:
            _check(control)
        self._digests = sorted({digest(control) for control in controls})

    @property
    def key(self) -> str:
        return ",".join(self._digests)

    def data(self) -> dict[str, Any]:
        """For the worker, before the controls themselves."""
        return {"loaders": [path.data() for path in self._paths], "wanted": self._digests}

    def describe(self, control: Any) -> dict[str, Any]:
        """One control with those before it. Raises NotYet, NotPartitionable."""
        _check(control)
        name = digest(control)
        if name not in self._digests:
            raise NotPartitionable("a ControlNet came into the conditioning while it was sampled")
        if control.vae is not None and control.cond_hint is None:
            raise NotYet("the VAE makes the ControlNet's hint in the next evaluation")
        arguments = {k: v for k, v in control.extra_args.items() if k != SET_IN_A_RUN}
        before = control.previous_controlnet
        return {
            "model": name,
            "values": {value: getattr(control, value) for value in VALUES},
            "extra_args": arguments,
            "made": control.cond_hint if control.vae is not None else None,
            "previous": None if before is None else self.describe(before),
        }


def hints(control: Any) -> int:
    """How many pictures the longest hint of a chain has."""
    lengths = [
        1 if c.cond_hint_original is None else len(c.cond_hint_original) for c in chain(control)
    ]
    return max(lengths, default=1)


def _check(control: Any) -> None:
    kind = type(control)
    if getattr(comfy.controlnet, kind.__name__, None) is not kind or kind.__name__ not in KINDS:
        raise NotPartitionable(f"a ControlNet is another pack's ({kind.__name__})")
    if control.extra_hooks is not None:
        raise NotPartitionable("a ControlNet carries hooks")


def _loaders(graph: Graph | None) -> list[GraphPath]:
    """Nodes of the graph that give a ControlNet and can be repeated, those with least before them
    first. Raises NotPartitionable where there is none.
    """
    if graph is None:
        raise NotPartitionable("a ControlNet is applied, and the graph that loads it is not known")
    paths, why = [], "no node of the graph loads it"
    for node, slot in graph.outputs_of("CONTROL_NET"):
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
    text = json.dumps([type(control).__name__, sums], sort_keys=True)
    found = hashlib.sha256(text.encode()).hexdigest()
    if model is not None and getattr(control, "control_weights", None) is None:
        _digests[model] = found
    return found


class HeldControls:
    """In the worker: the control models of the replica that is held."""

    def __init__(self) -> None:
        self._held: dict[str, Any] = {}

    def load(self, told: Mapping[str, Any], replaying: Any) -> None:
        """Execute loaders until every wanted model is here. Raises NotPartitionable."""
        wanted = set(told["wanted"])
        self._held = {name: held for name, held in self._held.items() if name in wanted}
        for path in told["loaders"]:
            if wanted <= self._held.keys():
                return
            control = replaying.output(path)
            self._held.setdefault(digest(control), control)
        if not wanted <= self._held.keys():
            raise NotPartitionable("no node of the graph loads a ControlNet with these weights")

    def models(self) -> list[Any]:
        """Patchers, to be loaded beside the replica."""
        return [model for control in self._held.values() for model in control.get_models()]

    def restore(self, data: Mapping[str, Any], model: Any) -> Any:
        """The control that `RunsControls.describe` described, ready for `model`."""
        control = self._restored(data)
        sampling = model.model_sampling
        control.pre_run(model, sampling.percent_to_sigma)
        return control

    def _restored(self, data: Mapping[str, Any]) -> Any:
        held = self._held.get(data["model"])
        if held is None:
            raise ProtocolError(f"ControlNet {str(data['model'])[:16]} is not held here")
        control = held.copy()
        for name in VALUES:
            setattr(control, name, data["values"][name])
        control.extra_args = dict(data["extra_args"])
        control.vae = None
        if data["made"] is not None:
            control.cond_hint = data["made"]
        if data["previous"] is not None:
            control.set_previous_controlnet(self._restored(data["previous"]))
        return control

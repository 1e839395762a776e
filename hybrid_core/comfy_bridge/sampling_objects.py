"""model_sampling objects as data: ComfyUI makes their classes on the spot, so none pickles."""

from __future__ import annotations

from typing import Any

import comfy.model_sampling
import torch

from hybrid_core.errors import NotPartitionable, ProtocolError

_MODULE_STATE = frozenset(vars(torch.nn.Module()))


def _class_here(name: str) -> type | None:
    """A class that both processes have under this name."""
    found = getattr(comfy.model_sampling, name, None)
    if found is None:
        from comfy_extras import nodes_model_advanced  # LCM, X0 and the distilled schedule

        found = getattr(nodes_model_advanced, name, None)
    return found if isinstance(found, type) else None


def describe(sampling: torch.nn.Module) -> dict[str, Any]:
    """Base classes by name, attributes and buffers. Raises NotPartitionable for foreign code."""
    own = type(sampling)
    bases = [own] if _class_here(own.__name__) is own else list(own.__bases__)
    foreign = [base.__name__ for base in bases if _class_here(base.__name__) is not base]
    methods = [] if bases == [own] else [n for n, v in vars(own).items() if callable(v)]
    if foreign or methods:
        raise NotPartitionable(
            f"the model's sampling ({own.__name__}) is another pack's: "
            f"{', '.join(foreign + methods)}"
        )
    if sampling._parameters or sampling._modules:
        raise NotPartitionable(f"the model's sampling ({own.__name__}) holds layers of its own")
    return {
        "bases": [base.__name__ for base in bases],
        "values": {k: v for k, v in vars(sampling).items() if k not in _MODULE_STATE},
        "buffers": dict(sampling._buffers),
    }


def rebuild(described: dict[str, Any]) -> torch.nn.Module:
    """The object that `describe` described. Raises ProtocolError for unknown classes."""
    bases = [found for name in described["bases"] if (found := _class_here(name)) is not None]
    if not bases or len(bases) != len(described["bases"]):
        raise ProtocolError(f"sampling classes {described['bases']} are not known here")
    own = bases[0] if len(bases) == 1 else type("ModelSampling", tuple(bases), {})
    sampling: Any = object.__new__(own)
    torch.nn.Module.__init__(sampling)
    for name, buffer in described["buffers"].items():
        sampling.register_buffer(name, buffer, persistent=False)
    for name, value in described["values"].items():
        setattr(sampling, name, value)
    return sampling

"""What is known of a worker between runs."""

from __future__ import annotations

import json
import weakref
from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn

from hybrid_core.machine.contents import Contents
from hybrid_core.stages.tokens import Plans
from hybrid_core.transport.carry import Carried
from hybrid_core.workers.contract import Tick, Worker
from hybrid_core.workers.evaluator import CONTEXTS_KEPT

PACES_KEPT = 5


class Loading(NamedTuple):
    """A model that the worker was asked for."""

    number: int  # of the request
    key: str
    since: float  # time.monotonic()


class Held(NamedTuple):
    """A context that the worker was told."""

    signature: str  # where its tensors are, and what is beside them
    tensors: list[torch.Tensor]  # held, so that no other tensor gets their place
    contents: Contents  # then


@dataclass
class Holdings:
    """What a worker holds and was told. Void when another one takes its place."""

    worker: Worker
    epoch: int = -1
    bases: set[str] = field(default_factory=set)
    key: str | None = None  # of the replica, once it was found equal
    model_name: str | None = None
    loading: Loading | None = None
    contexts: OrderedDict[int, Held] = field(default_factory=OrderedDict)
    next_context: int = 0
    to_forget: list[str] = field(default_factory=list)
    load_seconds: float | None = None
    loads: int = 0  # replicas loaded or patched anew
    refused: dict[str, str] = field(default_factory=dict)  # models that came out different
    # what was seen to be evaluated alike, and models that were not: the fingerprint then
    compared: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    different: dict[str, tuple[Any, str]] = field(default_factory=dict)
    inseparable: set[Hashable] = field(default_factory=set)  # whose pictures depend on each other
    # by model and sizes, why tokens are not divided; and how this process's networks divide them
    undivided: dict[Hashable, str] = field(default_factory=dict)
    unpaid: set[Hashable] = field(default_factory=set)  # the latest run's that did not pay
    plans: weakref.WeakKeyDictionary[nn.Module, Plans] = field(
        default_factory=weakref.WeakKeyDictionary
    )
    # seconds of a forward pass there, for one here, of the latest steps that both measured
    paces: deque[float] = field(default_factory=lambda: deque(maxlen=PACES_KEPT))

    @property
    def up_to_date(self) -> bool:
        """Whether this is known of the present worker."""
        return self.epoch == self.worker.epoch

    @property
    def awaits_load(self) -> bool:
        """Whether the reply to a load is still to be taken in, by a run."""
        return self.loading is not None and self.up_to_date

    @property
    def holds_model(self) -> bool:
        """Whether the present worker has a model, or is loading one."""
        return self.up_to_date and (self.key is not None or self.loading is not None)

    @property
    def replica_name(self) -> str | None:
        """Class of the model that the worker holds."""
        return self.model_name if self.up_to_date else None

    def saw(self, here: float, there: float) -> None:
        """Seconds of a forward pass, by this process and by the worker."""
        if here > 0 and there > 0:
            self.paces.append(there / here)

    def sync(self) -> None:
        if not self.up_to_date:
            self.epoch = self.worker.epoch
            self.bases, self.key, self.loading, self.model_name = set(), None, None, None
            self.contexts, self.compared, self.undivided = OrderedDict(), {}, {}
            self.unpaid.clear()
            self.paces.clear()

    def context_number(self, context: Carried, tick: Tick) -> int:
        """The number under which the worker holds this context; sends it when it is new."""
        known = self.contexts
        signature = json.dumps([context.tree, [identity(tensor) for tensor in context.tensors]])
        same = (number for number in reversed(known) if known[number].signature == signature)
        latest = next(same, None)
        if latest is not None:
            contents = known[latest].contents
            contents.ask()
            if not contents.changed():
                return latest
        number = self.next_context
        self.next_context += 1
        held = dict(known)
        known.clear()  # should the sending be interrupted, nothing is taken for known
        self.worker.hold(number, context, tick)
        known.update(held)
        known[number] = Held(signature, context.tensors, Contents(context.tensors))
        while len(known) > CONTEXTS_KEPT:  # the oldest, as the worker does
            known.popitem(last=False)
        return number


def identity(tensor: torch.Tensor) -> list[Any]:
    """Equal for the same memory seen the same way and, where torch knows, not written to since."""
    version = 0 if tensor.is_inference() else tensor._version
    return [tensor.data_ptr(), list(tensor.shape), tensor.stride(), str(tensor.dtype), version]

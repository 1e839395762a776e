"""A MODEL as the part of the graph that made it: for what cannot be described as data."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from comfy.model_patcher import ModelPatcher

from hybrid_core.comfy_bridge import conds, sampling_objects, support
from hybrid_core.comfy_bridge.acting import acting, memory
from hybrid_core.comfy_bridge.brought import Brought
from hybrid_core.comfy_bridge.graph_path import GraphPath
from hybrid_core.comfy_bridge.portrait import compare_outlines, outline
from hybrid_core.comfy_bridge.replaying import TOO_SLOW
from hybrid_core.comfy_bridge.replica import ModelSource, Tokens, check_base, check_not_refused
from hybrid_core.comfy_bridge.trial import Trial
from hybrid_core.errors import NotPartitionable, ProtocolError, ReplicaMismatch
from hybrid_core.workers.contract import Worker

TRIALS_KEPT = 64


def code_inside(patcher: ModelPatcher, options: dict[str, Any]) -> NotPartitionable | None:
    """What other nodes' code does inside a forward pass; None where it acts in weights at most."""
    try:
        support.check_model(patcher)
        support.check_options(options)
    except NotPartitionable as error:
        return error
    return None


def why_not_data(patcher: ModelPatcher, options: dict[str, Any]) -> NotPartitionable | None:
    """Why a model without such code, as it is in a run, cannot be described to another process."""
    try:
        sampling_objects.describe(patcher.get_model_object("model_sampling"))
        check_base(patcher)
        conds.check_options_plain(options)
    except NotPartitionable as error:
        return error
    return None


@dataclass
class Replays:
    """What is known of replayed graphs in this session."""

    refused: dict[str, str] = field(default_factory=dict)  # why a module is not imported again
    trials: OrderedDict[tuple[Any, ...], Trial] = field(default_factory=OrderedDict)
    _asked: set[str] = field(default_factory=set)  # modules that a worker was told to import
    _imported: set[str] = field(default_factory=set)

    def check(self, path: GraphPath, worker: Worker) -> None:
        """Raise NotPartitionable for a path with a module that is not imported again."""
        for _, module in path.modules:
            ended = f"exit code {TOO_SLOW}" in (worker.last_error or "")
            if ended and module in self._asked - self._imported:
                self.refused[module] = "importing a node before this one again takes too long"
            if module in self.refused:
                raise NotPartitionable(f"{self.refused[module]} (not tried again)")

    def asked(self, path: GraphPath) -> None:
        self._asked |= {module for _, module in path.modules}

    def imported(self, path: GraphPath) -> None:
        self._imported |= {module for _, module in path.modules}

    def refuse(self, path: GraphPath, module: Any, reason: str) -> None:
        """Not to import this module of the path again; what a worker names else is nothing."""
        if any(module == mine for _, mine in path.modules):
            self.refused[module] = reason

    def trial(self, key: str, shape: tuple[int, ...], path: GraphPath) -> Trial:
        """Of this model at this size, as far as it has come."""
        known = self.trials.setdefault((key, shape), Trial(path))
        self.trials.move_to_end((key, shape))
        while len(self.trials) > TRIALS_KEPT:
            self.trials.popitem(last=False)
        return known


class ReplaySource(ModelSource):
    """A model that the worker makes by executing the same nodes; key names them as they are now."""

    tokens: Tokens = weakref.WeakKeyDictionary()  # the worker's copy is another than one by data

    def __init__(
        self,
        patcher: ModelPatcher,
        on_gone: Callable[[str], None],
        path: GraphPath,
        replays: Replays,
        shape: tuple[int, ...],
        brought: Brought,
        attached: ModelPatcher,
    ):
        super().__init__(patcher, on_gone, shape, brought, attached)
        self.path, self._replays = path, replays
        self.by = path.by
        self._sampling: dict[str, Any] | None = None
        try:
            self._sampling = sampling_objects.describe(self._sampling_object)
        except NotPartitionable as error:  # the nodes make it
            before = attached.get_model_object("model_sampling")
            if sampling_objects.digest(before) != self._sampling_digest:
                raise NotPartitionable(f"{error}, put there behind Hybrid Attach Model") from error
        of_model = f"{self.base_key}:{self._patches_uuid.hex}:{self._sampling_digest}"
        self.key = f"{of_model}:{path.digest}:{self._brought.key}"

    def fingerprint(self) -> Any:
        """Of the network, and of what other nodes' code remembers."""
        code = acting(self._patcher, self._patcher.model_options)
        return super().fingerprint(), memory(code)

    def changed_since(self, before: Any) -> str | None:
        return super().changed_since(before[0])

    def payload(self, with_base: bool) -> dict[str, Any]:
        self._replays.asked(self.path)
        return {
            "base_key": self.base_key,
            "key": self.key,
            "replay": self.path.data(),
            "sampling": self._sampling,
            "brought": self._brought.data(),
            "activation_bytes": self._activation_bytes(),
        }

    def verify(self, theirs: Any) -> None:
        """Raise ReplicaMismatch unless the worker has the same kind of model.

        Raises ProtocolError when it has imported what it must not hold.
        """
        try:
            check_not_refused(theirs)
        except ReplicaMismatch as error:
            if theirs.get("import"):
                self._replays.refuse(self.path, theirs["import"], str(error))
                raise ProtocolError(str(error)) from error
            raise
        self._replays.imported(self.path)
        compare_outlines(outline(self._patcher), theirs)

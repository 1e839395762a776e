"""Whether other packs' code lets an evaluation be divided: seen at its first evaluations.

ComfyUI evaluates both prompts in one batch, in one process. Code that draws random numbers,
remembers something from one evaluation to the next, or looks at both prompts at once gives
something else when each process evaluates its part. So the first evaluation is ComfyUI's own, and
watched.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy
import torch
from comfy.model_patcher import ModelPatcher

from hybrid_core.comfy_bridge import support
from hybrid_core.comfy_bridge.acting import acting, added, memory, plain_among
from hybrid_core.comfy_bridge.fingerprint import difference, fingerprint
from hybrid_core.comfy_bridge.graph_path import GraphPath
from hybrid_core.comfy_bridge.hooks import without_hooks
from hybrid_core.comfy_bridge.option_keys import is_nobodys
from hybrid_core.errors import NotPartitionable, NotYet
from hybrid_core.machine.checksum import checksum
from hybrid_core.stages import described
from hybrid_core.workers.likeness import ROUNDING, relative

log = logging.getLogger("hybrid_ksampler")
Tensor = torch.Tensor
Outputs = dict[int, Tensor]  # by branch
Evaluate = Callable[[Sequence[int]], Outputs]  # of these branches
MOST_NUMBERS = 1 << 22  # of a tensor whose contents are looked at
MOST_FIRST_TIMES = 2  # evaluations after which code has made what it makes once


class Trial:
    """What is known of one model at one size of latents."""

    def __init__(self, path: GraphPath):
        self.path = path
        self.reason: str | None = None
        self._passed: set[int] = set()  # evaluations of so many branches
        self._evaluations: Counter[int] = Counter()  # by their number of branches

    def undecided(self, branches: int) -> bool:
        """Whether evaluations of so many branches are still to be watched."""
        return self.reason is None and branches not in self._passed

    def watch(
        self,
        patcher: ModelPatcher,
        options: Mapping[str, Any],
        evaluate: Evaluate,
        branches: Sequence[int],
    ) -> Outputs:
        """The framework's own evaluation of all branches, and what it shows."""
        before = self._seen(patcher, options)
        out = evaluate(branches)
        after = self._seen(patcher, options)
        self._evaluations[len(branches)] += 1
        if before is None or after is None:
            return out
        changed = before.changed_to(after)
        if before.numbers != after.numbers:
            self.reason = (
                f"a node before this one ({self.path.by}) draws random numbers at each step"
            )
        elif changed is None:
            self._compare(patcher, options, evaluate, out)
        elif self._evaluations[len(branches)] >= MOST_FIRST_TIMES:
            value, place = changed
            self.reason = (
                f"{self.path.maker(value)} remembers something from step to step ({place})"
            )
        return out

    def _seen(self, patcher: ModelPatcher, options: Mapping[str, Any]) -> _Seen | None:
        try:
            return _Seen(patcher, options)
        except Exception as error:  # noqa: BLE001  objects of other packs may refuse to be looked at
            log.debug("other nodes' code cannot be watched", exc_info=error)
            self.reason = f"a node before this one ({self.path.by}) cannot be watched: {error}"
            return None

    def _compare(
        self,
        patcher: ModelPatcher,
        options: Mapping[str, Any],
        evaluate: Evaluate,
        out: Outputs,
    ) -> None:
        """Each branch alone gives what it gave beside the others."""
        allowed = ROUNDING[patcher.model.get_dtype_inference().itemsize < 4]
        before = self._seen(patcher, options)
        try:
            alone = [relative(out[b], evaluate([b])[b]) for b in out] if len(out) > 1 else []
        except Exception as error:  # noqa: BLE001  other packs' code, in a use that is not theirs
            self.reason = (
                f"nodes before this one ({self.path.by}) do not work on one prompt alone: {error}"
            )
            return
        after = self._seen(patcher, options)
        if any(not error <= allowed for error in alone):
            self.reason = (
                f"a node before this one ({self.path.by}) makes one prompt's evaluation depend on "
                "the other's"
            )
        elif before is not None and after is not None and before.changed_to(after) is None:
            self._passed.add(len(out))


class Replayed:
    """One run of a model that the worker makes by its nodes."""

    def __init__(self, trial: Trial, patcher: ModelPatcher, attached: ModelPatcher):
        """attached: the MODEL at this pack's node, where the path ends."""
        self._trial, self._patcher, self._attached = trial, patcher, attached
        self._before = acting(attached, attached.model_options)
        self._said: dict[str, Any] | None = None  # at the evaluation before
        self._changes = 0
        self.on_change: Callable[[], None] = lambda: None

    def undecided(self, branches: int) -> bool:
        return self._trial.undecided(branches)

    def check(self, options: Mapping[str, Any], branches: int) -> None:
        """Raise NotYet before the verdict, NotPartitionable where the worker would lack something.

        options: of an evaluation of so many branches.
        """
        support.check_around(options)
        run = acting(self._patcher, options)
        self._check_nothing_added(run)
        if self._trial.reason is not None:
            raise NotPartitionable(self._trial.reason)
        if self._trial.undecided(branches):
            raise NotYet("this evaluation shows whether other nodes' code can be shared")
        self._compare_with_before(run, options)

    def watch(
        self, options: Mapping[str, Any], evaluate: Evaluate, branches: Sequence[int]
    ) -> Outputs:
        return self._trial.watch(self._patcher, options, evaluate, branches)

    def _compare_with_before(self, run: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        """A sampler or a wrapper of the run may turn what code on the model goes by.

        Once is taken for a thing that is made at its first use, and compared anew.
        """
        path = self._trial.path
        code = {place: run[place] for place in run if not _is_nobodys(place, run, path)}
        plain = plain_among(options, {place.split()[0] for place in code})
        beside = {place: described.describe(value) for place, value in plain.items()}
        before, now = self._said, memory(code) | beside
        self._said = now
        if before is None or now == before:
            return
        self._changes += 1
        if self._changes >= MOST_FIRST_TIMES:
            place = next(p for p in now.keys() | before.keys() if now.get(p) != before.get(p))
            raise NotPartitionable(
                f"what {path.maker(code.get(place))} does to the model changes from step to step "
                f"({place})"
            )
        self.on_change()

    def _check_nothing_added(self, run: Mapping[str, Any]) -> None:
        patcher, path = self._patcher, self._trial.path
        if without_hooks(patcher, self._attached) != self._attached.patches_uuid:
            raise NotPartitionable(
                "a node after Hybrid Attach Model changes the model's weights; put Hybrid Attach "
                "Model behind it"
            )
        more = [place for place in added(run, self._before) if not _is_nobodys(place, run, path)]
        if not more:
            return
        place, who = more[0], path.maker(run[more[0]])
        if place in acting(patcher, patcher.model_options):
            raise NotPartitionable(
                f"a node after Hybrid Attach Model changes the model ({place}); put Hybrid Attach "
                "Model behind it"
            )
        raise NotPartitionable(f"{who} keeps a memory of its own for each run ({place})")


def _is_nobodys(place: str, run: Mapping[str, Any], path: GraphPath) -> bool:
    """Whether it is an option that no code on the path is known to ask for."""
    return path.maker(run[place]) == path.maker(None) and is_nobodys(place.split()[0], run[place])


class _Seen:
    """Everything that an evaluation may leave behind, at one moment."""

    def __init__(self, patcher: ModelPatcher, options: Mapping[str, Any]):
        self._code = acting(patcher, options)
        self._tensors: dict[str, list[Tensor]] = {}
        self._memory = memory(self._code, self._tensors)
        self._contents = {
            place: [checksum(t) for t in some if t.numel() <= MOST_NUMBERS]
            for place, some in self._tensors.items()
        }
        self._network = fingerprint(patcher)
        self.numbers = _random_numbers()

    def changed_to(self, later: _Seen) -> tuple[Any, str] | None:
        """Whose memory is another, and its place."""
        for place, value in self._code.items():
            same = self._memory[place] == later._memory.get(place)
            if not same or self._contents[place] != later._contents.get(place):
                return value, place
        changed = difference(self._network, later._network)
        return None if changed is None else (None, changed)


def _random_numbers() -> tuple[Any, ...]:
    """Where every generator stands that code may draw from without having its own."""
    on_gpu = b""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        on_gpu = torch.cuda.get_rng_state().numpy().tobytes()
    kind, keys, *rest = numpy.random.get_state()  # noqa: NPY002  the one that packs use
    of_numpy = [kind, numpy.asarray(keys).tobytes(), *rest]
    return torch.get_rng_state().numpy().tobytes(), on_gpu, random.getstate(), of_numpy

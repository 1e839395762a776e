"""Whether a worker's model predicts what this process's does: seen, not concluded."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Protocol

import torch

from hybrid_core.workers.holdings import Holdings

ROUNDING = {False: 1e-4, True: 1e-2}  # of a network in half precision: other cards round otherwise
CHANGED = (
    "another node changed the network while it sampled, which the second process cannot follow: "
    "this image may differ from KSampler's; use mode off with that node"
)
Tensor = torch.Tensor
Taken = tuple[Any, int]  # a fingerprint, and how often the run had been doubted by then


class Source(Protocol):
    """The parent's model, as a lease needs it."""

    base_key: str
    key: str
    name: str
    by: str  # what made the model, in words; empty where nobody would look there
    half: bool  # whether the network computes in less than 32 bits

    def fingerprint(self) -> Any:
        """Equal while the network computes the same. Asked once a run."""
        ...

    def changed_since(self, fingerprint: Any) -> str | None:
        """What has changed in the network, in words; None when nothing has."""
        ...

    def payload(self, with_base: bool) -> dict[str, Any]: ...
    def verify(self, theirs: Any) -> None: ...
    def needed_bytes(self) -> int: ...


class Likeness:
    """Of one run. What is known of earlier ones is held by a fingerprint of the network then."""

    def __init__(self, holdings: Holdings, source: Source):
        self._holdings, self._source = holdings, source
        self._taken: Taken | None = None
        self._doubts = 0
        self._unpaid: dict[Hashable, str] = {}

    @property
    def _fingerprint(self) -> Taken:
        """Of this process's network at the run's first shared evaluation: whatever wraps the run
        has done its work by then.
        """
        if self._taken is None:
            self._taken = self._source.fingerprint(), self._doubts
        return self._taken

    def doubt(self) -> None:
        """What acts beside the network has changed: nothing is known to be alike any more."""
        self._taken, self._doubts = None, self._doubts + 1

    @property
    def known_to_differ(self) -> str:
        """Why this very network is not shared, empty where nothing is known."""
        then, reason = self._holdings.different.get(self._source.key, (None, ""))
        return reason if self._fingerprint == then and then is not None else ""

    def seen(self, shape: Sequence[int], by_picture: bool = False) -> bool:
        """Whether a prediction of this network on latents of `shape` was seen to be equal.

        by_picture: one that was put together from parts of the batch.
        """
        then = self._holdings.compared.get((self._source.key, by_picture, *shape))
        return then is not None and then == self._fingerprint

    def evaluated(self, shape: Sequence[int]) -> bool:
        """Whether the worker was seen to evaluate this model on latents of `shape`, as the network
        is or was.
        """
        return (self._source.key, False, *shape) in self._holdings.compared

    def difference(self, ours: Tensor, theirs: Tensor, shape: Sequence[int]) -> str | None:
        """How two evaluations of the same differ beyond rounding. Waits for the device."""
        error = relative(ours, theirs)
        if error <= ROUNDING[self._source.half]:
            if bool(ours.any()):  # zeros, for a prompt that is not in force yet, show nothing
                self._holdings.compared[(self._source.key, False, *shape)] = self._fingerprint
            return None
        nodes = f"; nodes before this one: {self._source.by}" if self._source.by else ""
        reason = (
            "the worker's model gives another prediction than this process's (relative difference "
            f"{error:.2g}): another node has changed the network{self._what_changed()}{nodes}"
        )
        self._holdings.different[self._source.key] = self._fingerprint, reason
        return reason

    def same_in_parts(self, ours: Tensor, theirs: Tensor, shape: Sequence[int]) -> bool:
        """Whether a batch in parts, from here, equals the whole from there, up to rounding.

        Waits for the device.
        """
        if not relative(ours, theirs) <= ROUNDING[self._source.half]:  # NaN is not equal
            return False
        self._holdings.compared[(self._source.key, True, *shape)] = self._fingerprint
        return True

    def separable(self, shape: Sequence[int]) -> bool:
        """Whether the pictures of a batch are not known to depend on each other."""
        return (self._source.key, *shape) not in self._holdings.inseparable

    def keep_together(self, shape: Sequence[int]) -> None:
        """Batches of `shape` are not divided any more."""
        self._holdings.inseparable.add((self._source.key, *shape))

    def divides(self, form: Hashable) -> bool:
        """Whether forward passes of these sizes were seen to be the same by tokens."""
        then = self._holdings.compared.get(self._by_tokens(form))
        return then is not None and then == self._fingerprint

    def same_by_tokens(self, ours: Tensor, theirs: Tensor, form: Hashable) -> bool:
        """Whether an evaluation by tokens equals one in full. Waits for the device."""
        if not relative(ours, theirs) <= ROUNDING[self._source.half]:
            return False
        self._holdings.compared[self._by_tokens(form)] = self._fingerprint
        return True

    def _by_tokens(self, form: Hashable) -> tuple[Hashable, ...]:
        """The worker forgets with each load how its network divides tokens."""
        return (self._source.key, "tokens", self._holdings.loads, form)

    def undivided(self, form: Hashable) -> str | None:
        """Why tokens are not divided at these sizes; None where nothing is known against it."""
        return self._unpaid.get(form) or self._holdings.undivided.get((self._source.key, form))

    def keep_tokens_together(self, form: Hashable, reason: str) -> None:
        self._holdings.undivided[(self._source.key, form)] = reason

    def learn_pay(self, form: Hashable, pays: bool, reason: str | None) -> None:
        """Whether a division paid; with a reason, that this run makes no more of them.

        The second run in succession speaks for the later ones too: what slowed down one may pass.
        """
        of, unpaid = (self._source.key, form), self._holdings.unpaid
        if pays:
            unpaid.discard(of)
        elif reason is not None and of in unpaid:
            self.keep_tokens_together(form, reason)
        elif reason is not None:
            unpaid.add(of)
            self._unpaid[form] = reason

    def changed_meanwhile(self) -> str | None:
        """What somebody has changed in the network since the run began to share, in words."""
        changed = self._source.changed_since(self._taken[0]) if self._taken else None
        if changed is None:
            return None
        self._holdings.compared.clear()
        return f"{CHANGED} ({changed})"

    def _what_changed(self) -> str:
        """Since the model was last seen to be evaluated alike."""
        key = self._source.key
        earlier = [then for (of, *_), then in self._holdings.compared.items() if of == key]
        changed = self._source.changed_since(earlier[-1][0]) if earlier else None
        return "" if changed is None else f" ({changed})"


def relative(ours: Tensor, theirs: Tensor) -> float:
    ours, theirs = ours.float(), theirs.float()
    return float((theirs - ours).norm() / ours.norm().clamp_min(1e-12))

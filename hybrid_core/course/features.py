"""The network's features at the cut over a run: received, captured, and continued by a call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from hybrid_core.course import discrepancy
from hybrid_core.course.discrepancy import UNSEEN, Tensor
from hybrid_core.stages.swap import alike, mapped, tensors


class Features:
    """Boundaries of the two latest calls that had one; each nests tensors in dicts and tuples."""

    def __init__(self, sigmas: Sequence[float], mask: Tensor | None, continued: bool):
        """sigmas: the schedule; continued: whether a boundary of the step before is continued."""
        self._sigmas, self._mask, self._continued = sigmas, mask, continued
        self._known: list[tuple[int, Any]] = []
        self._share: Tensor | None = None  # of the boundary's slope that goes on
        self._prediction: tuple[int, Tensor] | None = None
        self._in_a_row = False  # whether the call before that one was evaluated too

    def keep(self, call: int, boundary: Any) -> None:
        """Cond's boundary at `call`, true or looked ahead."""
        self._known = [*self._known[-1:], (call, boundary)]

    def predicted(self, call: int, own: Tensor) -> None:
        """The cond prediction at `call`."""
        self._in_a_row = self._prediction is not None and self._prediction[0] == call - 1
        self._prediction = call, own

    def reach(self, call: int) -> bool:
        """Whether there is a boundary of `call`, or of the one before.

        After a forecast call the latter can only be held, and errs several times as much as one
        that is continued: not where this one continues.
        """
        at = self._known[-1][0] if self._known else None
        return at == call or (at == call - 1 and (self._in_a_row or not self._continued))

    def forecast(self, call: int) -> Any:
        """The boundary for `call`: received for it, or the last one, continued where that helps.

        Ask where `reach` says so.
        """
        return self._course(self._slopes(call))

    def _course(self, slopes: list[Tensor] | None) -> Any:
        """The last boundary, continued by the share of `slopes` that was right."""
        last = self._known[-1][1]
        if slopes is None or self._share is None:
            return last
        share, left = self._share, iter(slopes)
        return mapped(last, lambda tensor: tensor + next(left) * share.to(tensor))

    def _slopes(self, call: int) -> list[Tensor] | None:
        """What the boundary's latest change makes of `call`'s, tensor by tensor.

        None where nothing is to be continued, or there are no two boundaries in a row before it.
        """
        if not self._continued or len(self._known) < 2:
            return None
        (before, first), (at, last) = self._known
        if before != at - 1 or call != at + 1 or not alike(first, last):
            return None
        sigma = self._sigmas
        if sigma[at] == sigma[before]:
            return None
        factor = (sigma[call] - sigma[at]) / (sigma[at] - sigma[before])
        return [(b - a) * factor for a, b in zip(tensors(first), tensors(last), strict=True)]

    def drift(self, call: int, own: Tensor, boundary: Any, scale: Tensor) -> Tensor:
        """What the error of a forecast changes in the prediction, by `scale`. Ask before `keep`.

        The prediction's change over the last call, times the share of the boundary's change that
        its forecast misses. boundary: the true one, None when it was not captured.
        """
        unseen = own.new_full((), UNSEEN, dtype=torch.float32)
        if boundary is None or not self._known or self._prediction is None:
            return unseen
        (before, old), (at, known) = self._prediction, self._known[-1]
        if not before == at == call - 1 or not alike(known, boundary):
            return unseen
        slopes = self._slopes(call)
        missed = discrepancy.difference(tensors(boundary), tensors(self._course(slopes)))
        if slopes is not None:
            changes = [a - b for a, b in zip(tensors(boundary), tensors(known), strict=True)]
            self._share = discrepancy.projection(changes, slopes)
        moved = discrepancy.difference(tensors(boundary), tensors(known))
        change = discrepancy.mean((own - old).abs(), self._mask) / scale
        return torch.where(moved > 0, change * missed / moved.clamp_min(1e-30), moved)

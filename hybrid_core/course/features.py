"""The network's features at the cut over a run: received, captured, and continued by a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from hybrid_core.course import discrepancy
from hybrid_core.course.discrepancy import UNSEEN, Tensor
from hybrid_core.course.policy import COND, Branch
from hybrid_core.stages.swap import alike, mapped, tensors


class Features:
    """The boundaries of the two latest steps. A boundary nests tensors in dicts and tuples."""

    def __init__(self, sigmas: Sequence[float], mask: Tensor | None, continued: bool):
        """sigmas: the schedule; continued: whether a boundary of the step before is continued."""
        self._sigmas, self._mask, self._continued = sigmas, mask, continued
        self._known: list[tuple[int, Any]] = []
        self._branch: Branch = COND  # that the latest one is for
        self._share: Tensor | None = None  # of the boundary's slope that goes on
        self._prediction: tuple[int, Tensor] | None = None

    def keep(self, step: int, boundary: Any, branch: Branch = COND) -> None:
        """A boundary at `step`, true or looked ahead. One branch's says nothing of the other's."""
        if branch != self._branch:
            self._known, self._branch = [], branch
        self._known = [*self._known[-1:], (step, boundary)]

    def predicted(self, step: int, own: Tensor) -> None:
        """The cond prediction at `step`."""
        self._prediction = step, own

    def reach(self, step: int) -> Branch | None:
        """The branch that there is a boundary for at `step` or, of cond's, a step before."""
        if not self._known:
            return None
        at = self._known[-1][0]
        return self._branch if at >= step or (at == step - 1 and self._branch == COND) else None

    def forecast(self, step: int) -> Any:
        """The boundary for `step`: received for it, or the last one, continued where that helps.

        Ask where `reach` names a branch.
        """
        return self._course(self._slopes(step))

    def _course(self, slopes: list[Tensor] | None) -> Any:
        """The last boundary, continued by the share of `slopes` that was right."""
        last = self._known[-1][1]
        if slopes is None or self._share is None:
            return last
        share, left = self._share, iter(slopes)
        return mapped(last, lambda tensor: tensor + next(left) * share.to(tensor))

    def _slopes(self, step: int) -> list[Tensor] | None:
        """What the boundary's latest change makes of `step`'s, tensor by tensor.

        None where nothing is to be continued, or there are no two boundaries in a row before it.
        """
        if not self._continued or len(self._known) < 2:
            return None
        (before, first), (at, last) = self._known
        if before != at - 1 or step != at + 1 or not alike(first, last):
            return None
        sigma = self._sigmas
        if sigma[at] == sigma[before]:
            return None
        factor = (sigma[step] - sigma[at]) / (sigma[at] - sigma[before])
        return [(b - a) * factor for a, b in zip(tensors(first), tensors(last), strict=True)]

    def drift(self, step: int, own: Tensor, boundary: Any, scale: Tensor) -> Tensor:
        """What the error of a forecast changes in the prediction, by `scale`. Ask before `keep`.

        The prediction's change over the last step, times the share of the boundary's change that
        its forecast misses. boundary: the true one, None when it was not captured.
        """
        unseen = own.new_full((), UNSEEN, dtype=torch.float32)
        if boundary is None or not self._known or self._prediction is None or self._branch != COND:
            return unseen
        (before, old), (at, known) = self._prediction, self._known[-1]
        if not before == at == step - 1 or not alike(known, boundary):
            return unseen
        slopes = self._slopes(step)
        missed = discrepancy.difference(tensors(boundary), tensors(self._course(slopes)))
        if slopes is not None:
            changes = [a - b for a, b in zip(tensors(boundary), tensors(known), strict=True)]
            self._share = discrepancy.projection(changes, slopes)
        moved = discrepancy.difference(tensors(boundary), tensors(known))
        change = discrepancy.mean((own - old).abs(), self._mask) / scale
        return torch.where(moved > 0, change * missed / moved.clamp_min(1e-30), moved)

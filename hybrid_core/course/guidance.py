"""The two branches over a run: what is known of them, and what stands in for one not evaluated."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hybrid_core.course import discrepancy
from hybrid_core.course.discrepancy import UNSEEN, Tensor
from hybrid_core.course.policy import COND, UNCOND, Branch


class Difference:
    """cond - uncond prediction, (B, ...), in epsilon or velocity."""

    def __init__(self, mask: Tensor | None):
        self._mask = mask
        self._known: list[tuple[int, Tensor]] = []  # of the two latest steps that showed it
        self._share: Tensor | None = None  # of its slope that goes on
        self._debt = 0.0  # sum over a gap's steps of length * (steps since it was known)**2

    @property
    def known(self) -> bool:
        return bool(self._known)

    def expected(self, step: int) -> Tensor:
        """At `step`: held, or continued as far as that was right."""
        at, latest = self._known[-1]
        if len(self._known) < 2 or self._share is None:
            return latest
        return latest + self._slope() * (self._share.to(latest) * (step - at))

    def _slope(self) -> Tensor:
        (a, first), (b, second) = self._known
        return (second - first) / (b - a)

    def used(self, step: int, length: float) -> None:
        """The expected difference stands in for the true one in a step of `length` in sigma."""
        self._debt += length * (step - self._known[-1][0]) ** 2

    def missed(self, step: int, new: Tensor) -> Tensor | None:
        """What the steps since it was known should have added, for each unit of guidance.

        The difference is taken to have left its expected course like the square of the steps.
        None when there were none. Ask before `learn`.
        """
        debt, self._debt = self._debt, 0.0
        if debt == 0 or not self._known:
            return None
        return (new - self.expected(step)) * (debt / (step - self._known[-1][0]) ** 2)

    def learn(self, step: int, new: Tensor, scale: Tensor, doubt: Tensor | None = None) -> Tensor:
        """Drift a step from what was expected, by `scale`; now `new` is what is expected.

        doubt: how far `new` may itself be from the truth, mean absolute.
        """
        drift = new.new_full((), UNSEEN, dtype=torch.float32)
        if self._known:
            gap = step - self._known[-1][0]
            missed = discrepancy.mean((new - self.expected(step)).abs(), self._mask)
            if doubt is not None:
                missed = (missed.square() - doubt.square()).clamp_min(0.0).sqrt()
            drift = missed / (gap * scale)
            if len(self._known) > 1:
                change = new - self._known[-1][1]
                self._share = discrepancy.projection([change], [self._slope() * gap])
        self._known = [*self._known[-1:], (step, new)]
        return drift


class Predictions:
    """One branch's predictions at the latest steps that evaluated it."""

    def __init__(self, mask: Tensor | None):
        self._mask = mask
        self._kept: list[tuple[int, Tensor]] = []
        self.bend: Tensor | None = None  # mean distance from halfway between the neighbours

    def keep(self, step: int, value: Tensor) -> None:
        self._kept = [*self._kept[-2:], (step, value)]
        if [at for at, _ in self._kept] == [step - 2, step - 1, step]:
            before, middle, after = (kept for _, kept in self._kept)
            self.bend = discrepancy.mean(((before + after) / 2 - middle).abs(), self._mask)

    def at(self, step: int) -> Tensor | None:
        """The prediction at `step`; halfway between its neighbours where it was not evaluated."""
        kept = dict(self._kept)
        if step in kept:
            return kept[step]
        if step - 1 in kept and step + 1 in kept:
            return (kept[step - 1] + kept[step + 1]) / 2
        return None


@dataclass(frozen=True)
class Shown:
    """What a step showed of the guidance; measures are UNSEEN where it did not."""

    missed: Tensor | None  # what is to be made good, for each unit of guidance
    drift: Tensor
    bend: Tensor


class Guidance:
    """Learns from every step, and reconstructs the branch that a pipelined step leaves out."""

    def __init__(self, mask: Tensor | None):
        self._difference = Difference(mask)
        self._branches = {COND: Predictions(mask), UNCOND: Predictions(mask)}

    @property
    def known(self) -> bool:
        return self._difference.known

    def saw_both(self, step: int, cond: Tensor, uncond: Tensor, scale: Tensor) -> Shown:
        """Predictions of an exact step; scale: mean|denoised latent|."""
        for branch, value in ((COND, cond), (UNCOND, uncond)):
            self._branches[branch].keep(step, value)
        missed = self._difference.missed(step, cond - uncond)
        drift = self._difference.learn(step, cond - uncond, scale)
        bends = [b.bend for b in self._branches.values() if b.bend is not None]
        return Shown(missed, drift, torch.stack(bends).max() / scale if bends else unseen(cond))

    def saw_one(
        self, step: int, branch: Branch, value: Tensor, scale: Tensor, joins: bool
    ) -> Shown:
        """The prediction of a pipelined step that evaluated `branch`.

        joins: whether the step before evaluated the other branch alone, and the one before that
        this one; then the difference of the step before is known now.
        """
        own, missed, drift = self._branches[branch], None, unseen(value)
        own.keep(step, value)
        if joins:
            cond, uncond = (self._branches[b].at(step - 1) for b in (COND, UNCOND))
            assert cond is not None and uncond is not None
            missed = self._difference.missed(step - 1, cond - uncond)
            drift = self._difference.learn(step - 1, cond - uncond, scale, own.bend)
        return Shown(missed, drift, unseen(value) if own.bend is None else own.bend / scale)

    def other(self, step: int, branch: Branch, value: Tensor) -> Tensor:
        """The other branch's prediction when `branch` came to `value` at `step`."""
        difference = self._difference.expected(step)
        return value - difference if branch == COND else value + difference

    def used(self, step: int, length: float) -> None:
        """`other` stands in at `step`, of `length` in sigma as the guider weighs the difference."""
        self._difference.used(step, length)


def unseen(like: Tensor) -> Tensor:
    return like.new_full((), UNSEEN, dtype=torch.float32)

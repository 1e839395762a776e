"""What a call showed, in numbers that are still on their device."""

from __future__ import annotations

from dataclasses import fields

import torch

from hybrid_core.course.discrepancy import UNSEEN, Tensor
from hybrid_core.course.policy import Policy, Seen
from hybrid_core.telling.report import StepRecord

NAMES = tuple(field.name for field in fields(Seen))


class Measures:
    """The latest call's. They are read with the next one's latent, in one wait for the device."""

    def __init__(self, policy: Policy):
        self._policy = policy
        self._latest: tuple[StepRecord, int, Tensor] | None = None

    def keep(self, record: StepRecord, call: int, **values: Tensor) -> None:
        """Measures () by the names of Seen's fields."""
        some = next(iter(values.values()))
        none = some.new_full((), UNSEEN)
        self._latest = record, call, torch.stack([values.get(name, none) for name in NAMES])

    def unread(self, device: torch.device) -> Tensor:
        """As many numbers as `read` wants, in fp32."""
        if self._latest is None:
            return torch.zeros(0, device=device)
        return self._latest[2].float().to(device)

    def read(self, numbers: list[float]) -> None:
        """Put `unread`'s numbers on the call's record, and tell the policy."""
        latest, self._latest = self._latest, None
        if latest is None:
            return
        record, call, _ = latest
        seen = Seen(*(None if number == UNSEEN else number for number in numbers))
        for name in NAMES:
            setattr(record, name, getattr(seen, name))
        self._policy.saw(call, seen)

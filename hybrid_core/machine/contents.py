"""Whether tensors were written to where torch does not count that: under inference mode."""

from __future__ import annotations

from collections.abc import Sequence

import torch

SAMPLES = 16  # words of each tensor beside their sum, which does not see what changes places


class Contents:
    """What some tensors hold at this moment; those whose writes torch counts are left to it.

    `ask` queues the comparison where the tensors are and waits for nothing; `changed` reads the
    answer, which is there once work that was queued after it has been waited for anyway.
    """

    def __init__(self, tensors: Sequence[torch.Tensor]):
        self._tensors = [tensor for tensor in tensors if tensor.is_inference() and tensor.numel()]
        self._before = [digest(tensor) for tensor in self._tensors]
        self._differs: list[torch.Tensor] = []

    def ask(self) -> None:
        """Compare what they hold now with what they held."""
        by_device: dict[torch.device, list[torch.Tensor]] = {}
        for tensor, before in zip(self._tensors, self._before, strict=True):
            by_device.setdefault(tensor.device, []).append((digest(tensor) != before).any())
        self._differs = [torch.stack(several).any() for several in by_device.values()]

    def changed(self) -> bool:
        """Whether anything was different when `ask` was called last."""
        return any(bool(one) for one in self._differs)


def digest(tensor: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor's words and a few of them, (n,) int64 on its device."""
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    wide = len(flat) % 8 == 0 and flat.data_ptr() % 8 == 0
    words = flat.view(torch.int64) if wide else flat
    some = words[:: max(1, len(words) // SAMPLES)].long()
    return torch.cat([words.sum(dtype=torch.int64).reshape(1), some, words[-1:].long()])

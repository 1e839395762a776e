"""Exact checksums of weights, to compare two processes' copies."""

from __future__ import annotations

from collections.abc import Iterable

import torch


def checksum(tensor: torch.Tensor) -> int:
    """Sum of a tensor's bytes taken as whole numbers: equal bytes, equal sum, on any device."""
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    if flat.data_ptr() % 8:  # mapped from a file that does not align its tensors
        flat = flat.clone()
    words = len(flat) // 8 * 8
    total = int(flat[:words].view(torch.int64).sum())  # modulo 2**64
    return total + int(flat[words:].sum(dtype=torch.int64))


def checksums(named: Iterable[tuple[str, torch.Tensor]]) -> dict[str, int]:
    return {name: checksum(tensor) for name, tensor in named}


def first_difference(ours: dict[str, int], theirs: dict[str, int]) -> str | None:
    """The name of the first weight that is missing on a side or differs, None when all agree."""
    if ours == theirs:
        return None
    return min(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))

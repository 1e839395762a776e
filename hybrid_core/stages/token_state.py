"""A block's output of which one place has its tokens: whole only when somebody looks at it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from hybrid_core.stages.swap import mapped
from hybrid_core.stages.token_streams import Cut, Tensor

Gather = Callable[[Tensor, Cut, tuple[int, ...]], Tensor]  # a piece, its cut, the whole's sizes

_TOLD_BY_SIZES = {
    getattr(torch.Tensor, name).__get__
    for name in ("shape", "dtype", "device", "ndim", "is_cuda", "layout", "requires_grad")
} | {
    torch.Tensor.dim, torch.Tensor.size, torch.Tensor.numel, torch.Tensor.stride,
    torch.Tensor.element_size, torch.Tensor.is_floating_point, torch.Tensor.is_complex,
    torch.Tensor.__len__, torch.Tensor.get_device, torch.Tensor.is_inference,
}  # fmt: skip


class Divided(torch.Tensor):
    """Stands for the whole tensor. Any operation on it, but asking its sizes, gathers it first."""

    piece: Tensor
    cut: Cut
    _gather: Gather
    _whole: Tensor | None

    @staticmethod
    def of(piece: Tensor, cut: Cut, whole: Sequence[int], gather: Gather) -> Divided:
        made: Divided = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            Divided, tuple(whole), dtype=piece.dtype, device=piece.device
        )
        made.piece, made.cut, made._gather, made._whole = piece, cut, gather, None
        return made

    def whole(self) -> Tensor:
        """The tensor itself, the same one each time: it may be written to."""
        if self._whole is None:
            with torch._C.DisableTorchFunctionSubclass():
                sizes = tuple(self.shape)
            self._whole = self._gather(self.piece, self.cut, sizes)
        return self._whole

    def part(self, cut: Cut) -> Tensor | None:
        """This place's piece by `cut`, None where that takes the whole tensor."""
        return self.piece if self._whole is None and cut == self.cut else None

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _TOLD_BY_SIZES:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        args, kwargs = mapped((tuple(args), kwargs), undivided)
        return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        args, kwargs = mapped((tuple(args), kwargs or {}), undivided)
        return func(*args, **kwargs)


def undivided(tensor: Tensor) -> Tensor:
    return tensor.whole() if isinstance(tensor, Divided) else tensor

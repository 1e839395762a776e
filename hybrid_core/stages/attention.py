"""A thread's attention, seen and answered for the length of a forward pass.

A framework's networks call attention by functions of many names; a seam is one such function,
replaced while any thread divides a forward pass. Other threads are not affected.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch

Tensor = torch.Tensor
Kernel = Callable[[Tensor, Tensor, Tensor, "Tensor | None"], Tensor]  # q, k, v, mask
# what is called instead: the kernel, q, k, v, mask, and the dimension of their tokens
Attend = Callable[[Kernel, Tensor, Tensor, Tensor, "Tensor | None", int], Tensor]
Entry = Callable[..., Any]


class Seam(Protocol):
    """One function that networks call for attention."""

    def get(self) -> Entry:
        """What is called now."""
        ...

    def put(self, entry: Entry) -> None:
        """Have `entry` called from now on."""
        ...

    def read(self, function: Entry, args: Any, keywords: Any) -> Any:
        """(kernel, q, k, v, mask, dimension of the tokens) of a call of `function`."""
        ...


class TorchSeam:
    """torch.nn.functional.scaled_dot_product_attention: (..., tokens, channels)."""

    def get(self) -> Entry:
        return torch.nn.functional.scaled_dot_product_attention

    def put(self, entry: Entry) -> None:
        space: Any = torch.nn.functional
        space.scaled_dot_product_attention = entry

    def read(self, function: Entry, args: Any, keywords: Any) -> Any:
        names = ("query", "key", "value", "attn_mask")
        given = {**dict(zip(names, args, strict=False)), **keywords}
        rest = {name: value for name, value in given.items() if name not in names}
        mask, more = given.get("attn_mask"), args[4:]

        def kernel(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Any:
            return function(q, k, v, mask, *more, **rest)

        return kernel, given["query"], given["key"], given["value"], mask, -2


class Attention:
    """The seams of one framework, and what answers in each thread."""

    def __init__(self, seams: Sequence[Seam] = ()):
        self._seams = (*seams, TorchSeam())
        self._local = threading.local()
        self._lock = threading.Lock()
        self._users = 0
        self._before: list[Entry] = []

    @contextmanager
    def by(self, attend: Attend) -> Iterator[None]:
        """Meanwhile this thread's attention goes by `attend`."""
        self._enter()
        before = getattr(self._local, "attend", None)
        self._local.attend = attend
        try:
            yield
        finally:
            self._local.attend = before
            self._leave()

    def _enter(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._before = [seam.get() for seam in self._seams]
                for index, seam in enumerate(self._seams):
                    seam.put(self._entry(index))

    def _leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                for seam, function in zip(self._seams, self._before, strict=True):
                    seam.put(function)

    def _entry(self, index: int) -> Entry:
        def entry(*args: Any, **keywords: Any) -> Any:
            attend, function = getattr(self._local, "attend", None), self._before[index]
            if attend is None:
                return function(*args, **keywords)
            self._local.attend = None  # what the function itself calls is part of it
            try:
                return attend(*self._seams[index].read(function, args, keywords))
            finally:
                self._local.attend = attend

        return entry


PLAIN = Attention()  # of networks that call torch's function alone

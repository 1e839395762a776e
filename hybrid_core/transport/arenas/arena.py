"""What every data plane offers. A message's tensors travel in a slot, their headers in the message.

message number n uses slot n & 1 of its direction, and a side writes its slot only after the other
side has answered message n - 1, or asked message n: so a writer never touches what the other side
may still be reading.

host         shared host memory, blocking copies: everywhere
host_pinned  the same memory, pinned in both processes: copies to and from GPUs run in pieces
cuda_ipc     memory on the worker's GPU, mapped by both processes
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from hybrid_core.transport.headers import Header


class Arena(Protocol):
    """One side's view of the slots.

    For every message: `write` (also without tensors), then send the message, then `finish`. After
    the message has come in on the other side, `read`.
    """

    slot_bytes: int

    def write(self, number: int, tensors: Sequence[torch.Tensor]) -> list[Header]:
        """Put `tensors` (any device) into my slot of message `number`; their headers.

        What was read from earlier messages is out of their slots when the other side sees this
        message. Raises ArenaTooSmall when the tensors do not fit into one slot.
        """
        ...

    def finish(self) -> None:
        """After the message is sent: complete what `write` left to be done meanwhile."""
        ...

    def read(self, number: int, header: Any, device: torch.device | None = None) -> torch.Tensor:
        """A copy, on `device`, of a tensor in the other side's slot of message `number`.

        Raises ProtocolError for a header that is malformed or points outside the slot.
        """
        ...

    def close(self) -> None:
        """Let go of what this side holds. The worker's side closes first."""
        ...

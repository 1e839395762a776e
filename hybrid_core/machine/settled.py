"""Moments of work that a device does after it was asked."""

from __future__ import annotations

import time

import torch


def settled(device: torch.device) -> float:
    """time.monotonic(), once `device` has done what its current stream was asked for.

    A forward pass on a GPU returns when its kernels are queued; its time is known at their end.
    Waits for that stream only.
    """
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
    return time.monotonic()

"""The worker of a diffusers program: one process for as long as the program runs."""

from __future__ import annotations

import atexit
import os

import torch

from hybrid_core.config import DEVICE_VARIABLE, Settings, WorkerDevice, worker_device
from hybrid_core.errors import ConfigError, NotPartitionable
from hybrid_core.run import Partner
from hybrid_core.worker.host import WorkerHost

DEFAULTS = Settings()
_partners: dict[str, Partner] = {}


def partner_on(device: WorkerDevice, settings: Settings = DEFAULTS) -> Partner:
    """A worker of its own on `device`, started on first use."""
    host = WorkerHost(device, settings, {"bridge": "diffusers"})
    atexit.register(host.stop)
    return Partner(host)


def default_partner(own: torch.device) -> Partner:
    """The program's worker on a GPU other than `own`, or where DEVICE_VARIABLE says.

    Raises NotPartitionable when there is no second device.
    """
    try:
        device = worker_device(os.environ.get(DEVICE_VARIABLE), _other_gpu(own))
    except ConfigError as error:
        raise NotPartitionable(str(error)) from error
    if device is None:
        raise NotPartitionable(
            f"there is no second GPU: torch sees {torch.cuda.device_count()}, the pipeline is on "
            f"{own} (is CUDA_VISIBLE_DEVICES hiding one?)"
        )
    if device.label not in _partners:
        _partners[device.label] = partner_on(device)
    return _partners[device.label]


def _other_gpu(own: torch.device) -> str | None:
    if own.type != "cuda":
        return None
    for index in range(torch.cuda.device_count()):
        if index != (own.index or 0):
            return f"GPU-{torch.cuda.get_device_properties(index).uuid}"
    return None

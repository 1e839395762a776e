"""The worker of a diffusers program: one process for as long as the program runs."""

from __future__ import annotations

import atexit
import os

import torch

from hybrid_core.config import DEVICE_VARIABLE, Settings, WorkerDevice
from hybrid_core.machine import devices
from hybrid_core.workers.lease import Partner
from hybrid_core.workers.process.host import WorkerHost

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
    device = devices.for_worker(own, os.environ.get(DEVICE_VARIABLE), "torch")
    if device.label not in _partners:
        _partners[device.label] = partner_on(device)
    return _partners[device.label]

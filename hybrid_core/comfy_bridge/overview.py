"""Both processes in numbers, for the panel."""

from __future__ import annotations

import os
import time
from typing import Any

import comfy.model_management
import psutil
import torch

from hybrid_core.comfy_bridge.session import Session
from hybrid_core.errors import NotPartitionable


def overview(session: Session) -> dict[str, Any]:
    """Devices, memory in bytes, models and the worker's state. Does not start anything."""
    obstacle = None
    try:
        session.device()
    except NotPartitionable as error:
        obstacle = str(error)
    return {
        "obstacle": obstacle,
        "parent": _parent(),
        "worker": _worker(session),
        "idle_seconds": session.settings.idle_seconds,
    }


def _parent() -> dict[str, Any]:
    device = comfy.model_management.get_torch_device()
    names = [
        type(entry.model.model).__name__
        for entry in comfy.model_management.current_loaded_models
        if entry.model is not None
    ]
    free = int(comfy.model_management.get_free_memory(device))
    if device.type == "cuda":
        name = f"{device} {torch.cuda.get_device_name(device)}"
        used = torch.cuda.mem_get_info(device)[1] - torch.cuda.mem_get_info(device)[0]
    else:
        name, used = str(device), psutil.Process().memory_info().rss
    return {
        "device": name,
        "pid": os.getpid(),
        "memory_used": used,
        "memory_free": free,
        "model": ", ".join(names) or None,
    }


def _worker(session: Session) -> dict[str, Any]:
    state, host = session.state(), session.host
    nothing = dict.fromkeys(("pid", "memory_used", "memory_free", "model", "age_seconds"))
    if host is None:
        return {"state": state, "device": None, "last_error": None, **nothing}
    told = {"state": state, "device": host.device.label, "last_error": host.last_error, **nothing}
    pid = host.pid
    if pid is None:
        return told
    status = session.status()
    used, device = status.get("used_bytes"), status.get("device")
    if used is None:
        try:
            used = psutil.Process(pid).memory_info().rss
        except psutil.Error:
            return told  # it ended meanwhile
    return {
        **told,
        "device": device if device not in (None, "cpu") else host.device.label,
        "pid": pid,
        "memory_used": used,
        "memory_free": status.get("free_bytes"),
        "model": session.replica_name,
        "age_seconds": round(time.monotonic() - host.started_at, 1),
    }

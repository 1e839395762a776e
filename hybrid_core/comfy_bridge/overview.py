"""All processes in numbers, for the panel."""

from __future__ import annotations

import os
import time
from typing import Any

import comfy.model_management
import psutil
import torch

from hybrid_core.comfy_bridge.naming import spoken_name
from hybrid_core.comfy_bridge.session import Session
from hybrid_core.errors import NotPartitionable


def overview(session: Session) -> dict[str, Any]:
    """Devices and how they differ, memory in bytes, models, the data plane, the worker's state.

    Does not start anything.
    """
    obstacle, left_out = None, {}
    try:
        left_out = dict(session.devices().left_out)
    except NotPartitionable as error:
        obstacle = None if session.made or session.elsewhere.address else str(error)
    return {
        "obstacle": obstacle,
        "parent": _parent(),
        "worker": _worker(session, 0),
        "others": [_worker(session, number) for number in range(1, len(session.made))],
        "left_out": left_out,  # why, by the device
        "idle_seconds": session.settings.idle_seconds,
        "ray": {
            "address": session.elsewhere.wish,
            "weights": session.elsewhere.send_weights,
        },
    }


def _parent() -> dict[str, Any]:
    device = comfy.model_management.get_torch_device()
    models = [entry.model for entry in comfy.model_management.current_loaded_models]
    names = dict.fromkeys(spoken_name(model) for model in models if model is not None)
    free = int(comfy.model_management.get_free_memory(device))
    if device.type == "cuda":
        name = f"{device} {torch.cuda.get_device_name(device)}"
        unused, total = torch.cuda.mem_get_info(device)
        used = total - unused
    else:
        name, used = str(device), psutil.Process().memory_info().rss
    return {
        "device": name,
        "pid": os.getpid(),
        "memory_used": used,
        "memory_free": free,
        "model": ", ".join(names) or None,
    }


def _worker(session: Session, number: int) -> dict[str, Any]:
    state = session.state(number)
    nothing = dict.fromkeys(("pid", "memory_used", "memory_free", "model", "age_seconds"))
    if number >= len(session.made):
        unknown = dict.fromkeys(("device", "differs", "data_plane", "data_plane_reason"))
        return {"state": state, "last_error": None, **unknown, **nothing}
    holdings = session.made[number]
    worker = holdings.worker
    told = {
        "state": state,
        "device": worker.device.label,
        "differs": worker.device.differs,
        "data_plane": worker.data_plane,
        "data_plane_reason": worker.data_plane_reason,
        "last_error": worker.last_error,
        **nothing,
    }
    pid = worker.pid
    if pid is None:
        return told
    status = session.status(number)
    used = status.get("used_bytes")
    if used is None:
        try:
            used = psutil.Process(pid).memory_info().rss
        except psutil.Error:
            return told  # it ended meanwhile
    return {
        **told,
        "pid": pid,
        "memory_used": used,
        "memory_free": status.get("free_bytes"),
        "model": holdings.replica_name,
        "age_seconds": round(time.monotonic() - worker.started_at, 1),
    }

"""Which data planes can be tried here, and why the others cannot."""

from __future__ import annotations

import sys
from pathlib import Path

from hybrid_core.config import DATA_PLANES, WorkerDevice

AUTO, CUDA_IPC, HOST_PINNED, HOST = DATA_PLANES


def kernel() -> str:
    """The running system's kernel in its own words; empty where there is no /proc."""
    try:
        return Path("/proc/version").read_text()
    except OSError:
        return ""


def obstacle_to_ipc(worker: WorkerDevice) -> str | None:
    """Why this system cannot share memory on a GPU between processes, None when it may.

    Windows and WSL2 silently give zeros.
    """
    if sys.platform == "win32":
        return "Windows does not share GPU memory between processes reliably"
    if "microsoft" in kernel().lower():
        return "WSL2 does not share GPU memory between processes reliably"
    if not sys.platform.startswith("linux"):
        return f"{sys.platform} does not share GPU memory between processes"
    if worker.uuid is None:
        return f"which GPU {worker.label} is in this process cannot be told without its UUID"
    return None


def to_try(wanted: str, both_on_gpus: bool, obstacle: str | None) -> tuple[list[str], list[str]]:
    """Planes in the order of trying, and in words why better or wanted ones are left out."""
    if not both_on_gpus:
        return [HOST], [] if wanted in (AUTO, HOST) else [f"{wanted}: a process has no GPU"]
    order = [CUDA_IPC, HOST_PINNED, HOST]
    order = order[0 if wanted == AUTO else order.index(wanted) :]
    if obstacle is not None and CUDA_IPC in order:
        return order[1:], [f"{CUDA_IPC}: {obstacle}"]
    return order, []

"""The GPUs of this machine as NVIDIA's driver lists them, whatever CUDA_VISIBLE_DEVICES hides.

The library comes with the driver, so nothing has to be installed. Standard library only; asking
makes no CUDA context.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import Any

from hybrid_core.errors import NvmlError

LIBRARY = "nvml.dll" if os.name == "nt" else "libnvidia-ml.so.1"
TEXT_BYTES = 96
SM_CLOCK = 1
NOT_SUPPORTED, NO_PERMISSION, GPU_IS_LOST = 3, 4, 15


@dataclass(frozen=True)
class Gpu:
    """One GPU. Memory is in bytes; free is 0 where it is not known."""

    index: int  # NVML's, as nvidia-smi shows it
    uuid: str  # "GPU-" and five groups, as CUDA_VISIBLE_DEVICES takes it
    name: str
    total: int
    free: int
    capability: tuple[int, int]
    divided: bool = False  # MIG: a process gets one part only
    speed: float = 0.0  # cores x clock, to be compared with other cards'; 0 where not known

    def __str__(self) -> str:
        return f"GPU {self.index}, {self.name}"


class _Memory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


def load() -> Any:
    """The driver's library. Raises NvmlError where there is none."""
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise NvmlError(f"{LIBRARY} cannot be loaded: {error}") from error


def gpus() -> list[Gpu]:
    """Every GPU that may be used. Raises NvmlError."""
    library = load()
    _call(library, "nvmlInit_v2")
    try:
        count = ctypes.c_uint()
        _call(library, "nvmlDeviceGetCount_v2", ctypes.byref(count))
        found = [_gpu(library, index) for index in range(count.value)]
    finally:
        library.nvmlShutdown()
    return [gpu for gpu in found if gpu is not None]


def _gpu(library: Any, index: int) -> Gpu | None:
    """None: not this user's, or fallen off the bus."""
    handle, memory = ctypes.c_void_p(), _Memory()
    major, minor = ctypes.c_int(), ctypes.c_int()
    try:
        _call(library, "nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
        _call(library, "nvmlDeviceGetMemoryInfo", handle, ctypes.byref(memory))
        _call(
            library, "nvmlDeviceGetCudaComputeCapability",
            handle, ctypes.byref(major), ctypes.byref(minor),
        )  # fmt: skip
        uuid = _text(library, "nvmlDeviceGetUUID", handle)
        name = _text(library, "nvmlDeviceGetName", handle)
        divided, speed = _divided(library, handle), _speed(library, handle)
    except NvmlError as error:
        if error.code in (NO_PERMISSION, GPU_IS_LOST):
            return None
        raise
    capability = major.value, minor.value
    return Gpu(index, uuid, name, memory.total, memory.free, capability, divided, speed)


def _divided(library: Any, handle: ctypes.c_void_p) -> bool:
    current, pending = ctypes.c_uint(), ctypes.c_uint()
    try:
        _call(library, "nvmlDeviceGetMigMode", handle, ctypes.byref(current), ctypes.byref(pending))
    except NvmlError as error:
        if error.code == NOT_SUPPORTED:
            return False
        raise
    return bool(current.value)


def _speed(library: Any, handle: ctypes.c_void_p) -> float:
    cores, clock = ctypes.c_uint(), ctypes.c_uint()  # megahertz
    try:
        _call(library, "nvmlDeviceGetNumGpuCores", handle, ctypes.byref(cores))
        _call(
            library, "nvmlDeviceGetMaxClockInfo", handle, ctypes.c_int(SM_CLOCK),
            ctypes.byref(clock),
        )  # fmt: skip
    except (NvmlError, AttributeError):  # an older driver does not tell
        return 0.0
    return float(cores.value * clock.value)


def _text(library: Any, function: str, handle: ctypes.c_void_p) -> str:
    buffer = ctypes.create_string_buffer(TEXT_BYTES)
    _call(library, function, handle, buffer, ctypes.c_uint(TEXT_BYTES))
    return buffer.value.decode(errors="replace")


def _call(library: Any, function: str, *arguments: Any) -> None:
    code = int(getattr(library, function)(*arguments))
    if code != 0:
        raise NvmlError(f"{function} returned {code}, expected 0", code)

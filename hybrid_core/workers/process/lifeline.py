"""The worker ends with its parent, also one that is stopped or stuck and cannot see it go.

A worker that runs sees the end of its pipe. For any other, somebody else has to act:

Linux     the kernel kills it when the thread that created it ends (PR_SET_PDEATHSIG), which has to
          be one that lasts as long as the parent: see spawning.py
Windows   a job object ends its processes when the parent's handle of it is closed
else      a small process, forked before anything is loaded, looks whether the parent is there
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
import sys
import time
from multiprocessing.process import BaseProcess
from typing import Any

log = logging.getLogger("hybrid_ksampler")

PR_SET_PDEATHSIG = 1
KILL_ON_JOB_CLOSE = 0x2000
EXTENDED_LIMITS = 9  # JobObjectExtendedLimitInformation
WATCH_SECONDS = 0.5

_job: Any = None  # of all workers of this process; closed by the system when it ends


class _BasicLimits(ctypes.Structure):
    _fields_ = (
        ("PerProcessUserTimeLimit", ctypes.c_int64),
        ("PerJobUserTimeLimit", ctypes.c_int64),
        ("LimitFlags", ctypes.c_uint32),
        ("MinimumWorkingSetSize", ctypes.c_size_t),
        ("MaximumWorkingSetSize", ctypes.c_size_t),
        ("ActiveProcessLimit", ctypes.c_uint32),
        ("Affinity", ctypes.c_size_t),
        ("PriorityClass", ctypes.c_uint32),
        ("SchedulingClass", ctypes.c_uint32),
    )


class _ExtendedLimits(ctypes.Structure):
    _fields_ = (
        ("BasicLimitInformation", _BasicLimits),
        ("IoInfo", ctypes.c_uint64 * 6),
        ("ProcessMemoryLimit", ctypes.c_size_t),
        ("JobMemoryLimit", ctypes.c_size_t),
        ("PeakProcessMemoryUsed", ctypes.c_size_t),
        ("PeakJobMemoryUsed", ctypes.c_size_t),
    )


def hold() -> None:
    """In the worker, before it starts a thread or loads anything."""
    parent = multiprocessing.parent_process()
    if sys.platform == "win32" or parent is None:
        return
    if not by_kernel():
        by_watcher()
    if os.getppid() != parent.pid:  # it was gone before this took hold
        os._exit(0)


def bind(process: BaseProcess) -> None:
    """In the parent, for a process that was just started."""
    if sys.platform != "win32":
        return
    global _job
    try:
        kernel = windows_kernel()
        if _job is None:
            _job = new_job(kernel)
        if not kernel.AssignProcessToJobObject(_job, process.sentinel):
            raise OSError(ctypes.get_last_error(), "AssignProcessToJobObject")
    except (OSError, AttributeError) as error:  # the end of its pipe is left, for one that runs
        log.debug("the worker is not bound to this process: %s", error)


def by_kernel() -> bool:
    """Whether the kernel will kill this process when its creator ends."""
    try:
        return ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0
    except (OSError, AttributeError, TypeError):  # no such call here
        return False


def by_watcher() -> None:
    """A child that kills this process when it gets another parent, and ends with it."""
    worker, parent = os.getpid(), os.getppid()
    if os.fork() != 0:
        return
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # the pipe's end is the worker's alone
    os.setsid()
    try:
        import psutil

        watched = psutil.Process(worker)
        while os.getppid() == worker:
            if watched.ppid() != parent:
                os.kill(worker, signal.SIGKILL)
            time.sleep(WATCH_SECONDS)
    finally:
        os._exit(0)


def windows_kernel() -> Any:
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined,unused-ignore]
    kernel.CreateJobObjectW.restype = ctypes.c_void_p
    kernel.SetInformationJobObject.argtypes = (
        ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32,
    )  # fmt: skip
    kernel.AssignProcessToJobObject.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
    return kernel


def new_job(kernel: Any) -> Any:
    """A job whose processes end with its last handle. Raises OSError."""
    job = kernel.CreateJobObjectW(None, None)
    limits = _ExtendedLimits()
    limits.BasicLimitInformation.LimitFlags = KILL_ON_JOB_CLOSE
    size = ctypes.sizeof(limits)
    if not job or not kernel.SetInformationJobObject(
        job, EXTENDED_LIMITS, ctypes.byref(limits), size
    ):
        raise OSError(ctypes.get_last_error(), "CreateJobObjectW, SetInformationJobObject")  # type: ignore[attr-defined,unused-ignore]
    return job

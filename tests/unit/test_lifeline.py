"""A worker does not outlive its parent, whatever state it is in; what starting one may raise."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import lifeline_process
import psutil
import pytest

from hybrid_core.errors import WorkerFailed
from hybrid_core.workers.process import lifeline, spawning

OUTLIVES_SECONDS = 5.0
linux = pytest.mark.skipif(sys.platform != "linux", reason="signals of Linux")


@contextlib.contextmanager
def family(way):
    """A parent and its worker, as processes."""
    script = Path(lifeline_process.__file__)
    parent = subprocess.Popen([sys.executable, script, way], stdout=subprocess.PIPE, text=True)
    try:
        worker = psutil.Process(int(parent.stdout.readline()))
        yield parent, worker
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
        with contextlib.suppress(psutil.NoSuchProcess, UnboundLocalError):
            worker.kill()


def gone(process):
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def gone_in_time(process, seconds=OUTLIVES_SECONDS):
    deadline = time.monotonic() + seconds
    while not gone(process) and time.monotonic() < deadline:
        time.sleep(0.05)
    return gone(process)


@linux
@pytest.mark.parametrize("way", ["kernel", "watcher"])
def test_a_stopped_worker_ends_with_its_parent(way):
    with family(way) as (parent, worker):
        time.sleep(1.0)
        assert not gone(worker), "it outlives the thread that started it"
        worker.send_signal(signal.SIGSTOP)
        parent.kill()
        assert gone_in_time(worker)


@linux
def test_the_watcher_ends_with_its_worker():
    with family("watcher") as (_, worker):
        (watcher,) = worker.children()
        worker.kill()
        assert gone_in_time(watcher)


@linux
def test_a_worker_whose_parent_is_gone_already_does_not_begin(monkeypatch):
    ended = []
    monkeypatch.setattr(
        multiprocessing, "parent_process", lambda: SimpleNamespace(pid=os.getppid() + 1)
    )
    monkeypatch.setattr(lifeline, "by_kernel", lambda: True)
    monkeypatch.setattr(os, "_exit", ended.append)
    lifeline.hold()
    assert ended == [0]


@pytest.mark.parametrize("kernel", [OSError("no such library"), SimpleNamespace()])
def test_a_system_without_the_signal_says_so(kernel, monkeypatch):
    def library(_):
        if isinstance(kernel, Exception):
            raise kernel
        return kernel

    monkeypatch.setattr(ctypes, "CDLL", library)
    assert not lifeline.by_kernel()


class Windows:
    """What lifeline asks of kernel32."""

    def __init__(self, refuse=()):
        self.calls, self.refuse, self.flags = [], refuse, None
        self.CreateJobObjectW = self._call("CreateJobObjectW", 77)
        self.SetInformationJobObject = self._call("SetInformationJobObject", 1)
        self.AssignProcessToJobObject = self._call("AssignProcessToJobObject", 1)

    def _call(self, name, value):
        def call(*arguments):
            self.calls.append((name, arguments))
            if name == "SetInformationJobObject":
                limits = ctypes.cast(arguments[2], ctypes.POINTER(lifeline._ExtendedLimits))
                self.flags = limits.contents.BasicLimitInformation.LimitFlags
            return 0 if name in self.refuse else value

        return call


@pytest.fixture
def windows(monkeypatch):
    made = Windows()
    monkeypatch.setattr(lifeline.sys, "platform", "win32")
    monkeypatch.setattr(lifeline, "_job", None)
    monkeypatch.setattr(ctypes, "WinDLL", lambda name, use_last_error: made, raising=False)
    monkeypatch.setattr(ctypes, "get_last_error", lambda: 5, raising=False)
    return made


def test_windows_puts_every_worker_into_one_job_that_ends_them(windows):
    for handle in (11, 12):
        lifeline.bind(SimpleNamespace(sentinel=handle))
    names = [name for name, _ in windows.calls]
    assert names == [
        "CreateJobObjectW", "SetInformationJobObject",
        "AssignProcessToJobObject", "AssignProcessToJobObject",
    ]  # fmt: skip
    assert windows.flags == lifeline.KILL_ON_JOB_CLOSE
    job, kind, _, size = windows.calls[1][1]
    assert (job, kind, size) == (77, 9, 144)
    assert [arguments for _, arguments in windows.calls[2:]] == [(77, 11), (77, 12)]


@pytest.mark.parametrize("call", ["CreateJobObjectW", "AssignProcessToJobObject"])
def test_windows_that_refuses_a_job_costs_no_worker(windows, call):
    windows.refuse = (call,)
    lifeline.bind(SimpleNamespace(sentinel=11))
    assert windows.calls[-1][0] == call


def nothing():
    """A process's work."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(11, "Resource temporarily unavailable"), "temporarily unavailable"),
        (RuntimeError("can't start new thread"), "new thread"),
        (TypeError("cannot pickle"), "cannot pickle"),
        (MemoryError(), "could not be started"),
    ],
)
def test_a_refusal_to_start_is_a_named_error(error, said, monkeypatch):
    def refuse(process):
        raise error

    monkeypatch.setattr(spawning, "_start", refuse)
    with pytest.raises(WorkerFailed, match=said):
        spawning.start(nothing, ())


def test_inside_a_daemonic_process_is_a_named_error(monkeypatch):
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    with pytest.raises(WorkerFailed, match="daemonic processes"):
        spawning.start(nothing, ())


def test_no_thread_to_start_with_is_a_named_error_and_the_next_start_tries_again(monkeypatch):
    starter = spawning._Starter()
    monkeypatch.setattr(spawning, "_starter", starter)
    with monkeypatch.context() as patch:

        def refuse(self):
            raise RuntimeError("can't start new thread")

        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(WorkerFailed, match="can't start new thread"):
            spawning.start(nothing, ())
    seen = []
    starter.call(lambda: seen.append(threading.current_thread().name))
    assert seen == ["hybrid-starter"]


def test_no_more_descriptors_is_a_named_error(monkeypatch):
    def refuse(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(multiprocessing.connection.socket, "socketpair", refuse)
    with pytest.raises(WorkerFailed, match="Too many open files"):
        spawning.pipe()


def test_main_and_the_path_look_as_before_after_a_refusal(monkeypatch):
    main, path = dict(vars(sys.modules["__main__"])), sys.path[:]
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    with pytest.raises(WorkerFailed):
        spawning.start(nothing, ())
    assert (dict(vars(sys.modules["__main__"])), sys.path) == (main, path)

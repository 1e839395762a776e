"""A worker's process as a thread of this one, with GPUs that are not there."""

from __future__ import annotations

import contextlib
import mmap
import os
import queue
import socket
import threading
import time
from functools import partial
from multiprocessing.connection import Connection

import torch
from fake_cuda import FakeCalls
from fake_cuda_machine import Machine

from hybrid_core.config import Settings, WorkerDevice
from hybrid_core.errors import CudaFailed, PlaneUnavailable, WorkerDied
from hybrid_core.transport import wire
from hybrid_core.transport.channel import Channel
from hybrid_core.transport.choice import plane_choice
from hybrid_core.transport.choice.agreement import Side
from hybrid_core.transport.choice.data_planes import DataPlanes
from hybrid_core.workers.process import host, loop
from hybrid_core.workers.process.host import WorkerHost

STOP = wire.encode("stop", 0, {})


class Echo:
    """Answers with what it was sent."""

    def __init__(self):
        self.loaded = []

    def load(self, fields, tensors):
        self.loaded.append(len(tensors))
        return {"loads": len(self.loaded)}

    def conds(self, fields, tensors):
        return {}

    def step(self, fields, tensors):
        return list(tensors), None

    def status(self):
        return {"loads": len(self.loaded)}

    def interrupt(self, value):
        pass

    def after_failure(self):
        pass


class ThreadProcess:
    """What WorkerHost asks of a process."""

    def __init__(self, number, arguments, machine, calls, make_ipc):
        connection, ticket = arguments[:2]
        self.pid, self.exitcode = number, None
        self._machine, self._name = machine, calls.process
        self._connection = Connection(os.dup(connection.fileno()))
        self._fd = self._connection.fileno()
        self.inbox = queue.SimpleQueue()
        self.on_message = lambda data: False
        block = mmap.mmap(os.dup(ticket.handle), ticket.size)
        planes = partial(DataPlanes, pinned_calls=lambda: calls, ipc_calls=make_ipc)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._loop = threading.Thread(target=self._serve, args=(block, planes), daemon=True)
        self._reader.start()
        self._loop.start()

    def _read(self):
        with contextlib.suppress(EOFError, OSError):
            while True:
                data = self._connection.recv_bytes(wire.MAX_BYTES)
                if not self.on_message(data):
                    self.inbox.put(data)
        self._machine.die(self._name)
        self.inbox.put(STOP)

    def _serve(self, block, planes):
        name, machine = self._name, self._machine

        class Watching(Channel):
            def send(self, op, number, **fields):
                if op == "result":
                    machine.message(name)
                super().send(op, number, **fields)

        with loops_parts(block, planes, Watching), contextlib.suppress(CudaFailed, WorkerDied):
            loop.serve(self._connection, None, self, 0, Echo)
        self.exitcode = 0

    def is_alive(self):
        return self._loop.is_alive()

    def kill(self):
        if self._loop.is_alive():
            self._machine.die(self._name)
        self.inbox.put(STOP)
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._fd)) as pipe:
            pipe.shutdown(socket.SHUT_RDWR)  # also for the thread that reads

    def join(self, seconds):
        self._loop.join(seconds)

    def close(self):
        pass


_patching = threading.Lock()


@contextlib.contextmanager
def loops_parts(block, planes, channel):
    """What loop.serve makes for itself, while it makes it."""
    with _patching:
        before = loop.attach, loop.DataPlanes, loop.Channel
        made = threading.Event()

        def all_made(_):
            made.set()
            return planes(block)

        loop.attach, loop.DataPlanes, loop.Channel = lambda _: block, all_made, channel
        restore = threading.Thread(target=lambda: (made.wait(5), _put_back(before)))
        restore.start()
    yield
    restore.join()


def _put_back(before):
    loop.attach, loop.DataPlanes, loop.Channel = before


class World:
    """A WorkerHost whose worker is on GPU 1 of a machine; the parent computes on GPU 0."""

    def __init__(self, monkeypatch, **settings):
        self.machine = Machine(seed=1)
        self.ours = FakeCalls(self.machine, "parent", (0, 1))
        self.workers = []
        self.harm = lambda number, calls: None  # of each new worker's calls
        self.no_ipc = {"parent": None, "worker": None}  # why cuda.bindings is missing
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(
            plane_choice,
            "Side",
            partial(Side, pinned_calls=lambda: self.ours, ipc_calls=lambda: self._ipc("parent")),
        )
        monkeypatch.setattr(host.spawning, "start", self._start)
        monkeypatch.setattr(host, "Channel", self._channel())
        device = WorkerDevice("GPU 1", {}, uuid="GPU-1", parents_gpu=0)
        defaults = {"slot_bytes": 8192, "plane_seconds": 20.0}
        self.host = WorkerHost(device, Settings(**(defaults | settings)), {})

    def _ipc(self, process):
        if self.no_ipc[process] is not None:
            raise PlaneUnavailable(self.no_ipc[process])
        return self.ours if process == "parent" else self.workers[-1]

    def _start(self, target, arguments):
        number = len(self.workers) + 1
        calls = FakeCalls(self.machine, f"worker {number}", (1,))
        self.harm(number, calls)
        self.workers.append(calls)
        return ThreadProcess(number, arguments, self.machine, calls, lambda: self._ipc("worker"))

    def _channel(self):
        machine = self.machine

        class Watching(Channel):
            def send(self, op, number, **fields):
                if op in ("probe", "step", "conds", "status"):
                    machine.message("parent")
                super().send(op, number, **fields)

        return Watching

    def bring_up(self, seconds=60.0):
        deadline = time.monotonic() + seconds
        self.host.start()
        while not self.host.ready():
            assert time.monotonic() < deadline, "it did not come up"
            time.sleep(0.005)
        return self.host

    def exchange(self, tensor):
        """`tensor` of GPU 0 to the worker and back."""
        number = self.host.post("step", {}, [self.ours.place(tensor, 0)])
        reply = self.host.wait(number, "result", 10, device=torch.device("cuda", 0))
        self.ours.settle()
        return reply.tensors[0]

    def end(self):
        """Stop, and what is wrong or left by then."""
        self.host.stop()
        return self.machine.problems + self.machine.left()

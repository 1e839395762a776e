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
from hybrid_core.stages.attention import PLAIN
from hybrid_core.transport import wire
from hybrid_core.transport.carry import carry
from hybrid_core.transport.channel import Channel
from hybrid_core.transport.choice.agreement import Side
from hybrid_core.transport.choice.data_planes import DataPlanes
from hybrid_core.workers.process import loop
from hybrid_core.workers.process.host import Means
from hybrid_core.workers.process.worker import ProcessWorker

STOP = wire.encode("stop", 0, {})


class Echo:
    """Answers with what it was sent."""

    device = torch.device("cpu")
    attention = PLAIN

    def __init__(self):
        self.loaded = []

    def load(self, data):
        self.loaded.append(data)
        return len(self.loaded)

    def context(self, data):
        return data

    def evaluate(self, context, inputs, each):
        return list(inputs)

    def status(self):
        return {"loads": len(self.loaded)}

    def interrupt(self, value):
        pass

    def after_failure(self):
        pass


class ThreadProcess:
    """What Host asks of a process."""

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
            def send(self, op, number, *waits, **fields):
                if op == "result":
                    machine.message(name)
                super().send(op, number, *waits, **fields)

        with contextlib.suppress(CudaFailed, WorkerDied):
            channel = Watching(self._connection, wire.REQUESTS)
            loop.serve(channel, planes(block), self, Echo)
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


class World:
    """A Host whose worker is on GPU 1 of a machine; the parent computes on GPU 0."""

    def __init__(self, monkeypatch, **settings):
        self.machine = Machine(seed=1)
        self.ours = FakeCalls(self.machine, "parent", (0, 1))
        self.workers = []
        self.harm = lambda number, calls: None  # of each new worker's calls
        self.no_ipc = {"parent": None, "worker": None}  # why cuda.bindings is missing
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        side = partial(Side, pinned_calls=lambda: self.ours, ipc_calls=lambda: self._ipc("parent"))
        means = Means(start=self._start, channel=self._channel(), side=side)
        device = WorkerDevice("GPU 1", {}, uuid="GPU-1", parents_gpu=0)
        defaults = {"slot_bytes": 8192, "plane_seconds": 20.0}
        self.host = ProcessWorker(device, Settings(**(defaults | settings)), Echo, {}, means)

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
            def send(self, op, number, *waits, **fields):
                if op in ("probe", "evaluate", "conds", "status"):
                    machine.message("parent")
                super().send(op, number, *waits, **fields)

        return Watching

    def bring_up(self, seconds=60.0):
        deadline = time.monotonic() + seconds
        self.host.start()
        while not self.host.ready():
            assert time.monotonic() < deadline, "it did not come up"
            time.sleep(0.005)
        self.host.hold(0, carry(None), lambda: None)
        return self.host

    def exchange(self, tensor):
        """`tensor` of GPU 0 to the worker and back."""
        number = self.host.post("evaluate", {"context": 0}, [self.ours.place(tensor, 0)])
        reply = self.host.wait(number, "result", 10, device=torch.device("cuda", 0))
        self.ours.settle()
        return reply.tensors[0]

    def end(self):
        """Stop, and what is wrong or left by then."""
        self.host.stop()
        return self.machine.problems + self.machine.left()

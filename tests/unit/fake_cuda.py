"""GPUs that are not there, for two pretended processes. Checks how they are used.

Copies wait in their stream's queue until somebody waits for them, or until chance runs them; where
a copy will write, there is nonsense until it has run. Addresses of GPU memory are numbers that
nobody can read from, and differ in the two processes. Each thing that real processes must not do is
noted in `Machine.problems`.
"""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from fake_cuda_machine import Machine, Memory, Op, Point

from hybrid_core.errors import CudaFailed
from hybrid_core.transport.arenas.cuda_calls import Event, IpcCalls, Stream

NONSENSE = 0xA5
PAGE = 2 << 20


class FakeCalls(IpcCalls):
    """The calls of one process. visible: the machine's numbers of the GPUs that it sees."""

    def __init__(self, machine: Machine, process: str, visible: tuple[int, ...] = (0, 1)):
        self.machine, self.process, self.visible = machine, process, visible
        self.fails: dict[str, int] = {}  # call: how often it works before it fails once
        self.called: list[str] = []
        self.pinned: dict[int, int] = {}
        self.mapped: dict[int, Memory] = {}
        self.points: dict[int, Point] = {}
        self.storages: dict[int, int] = {}
        self.latest_gpu = 0
        self.current = threading.local()
        self.kept: list[torch.Tensor] = []  # or another tensor would get their place

    def _call(self, name: str) -> None:
        if self.process in self.machine.dead:
            raise CudaFailed("this process has ended")
        self.called.append(name)
        if name in self.fails:
            self.fails[name] -= 1
            if self.fails[name] < 0:
                del self.fails[name]
                raise CudaFailed(f"{name} returned cudaErrorInjected")
        self.machine.by_chance()

    def _problem(self, text: str) -> None:
        self.machine.problems.append(f"{self.process}: {text}")

    def _queue(self, stream: Stream) -> deque[Op]:
        key = (self.process, self.visible[stream.device], stream.handle)
        return self.machine.queues.setdefault(key, deque())

    # pinned memory

    def register(self, address: int, size: int) -> None:
        with self.machine.lock:
            self._call("register")
            self.pinned[address] = size

    def unregister(self, address: int) -> None:
        with self.machine.lock:
            self._call("unregister")
            for (process, _, _), queue in self.machine.queues.items():
                if process == self.process and any(op.pinned for op in queue):
                    self._problem("unpinned memory that a copy still uses")
            self.pinned.pop(address)

    def copy(self, destination: torch.Tensor, source: torch.Tensor) -> None:
        with self.machine.lock:
            self._call("copy")
            to, at, size = destination.data_ptr(), source.data_ptr(), len(source)
            assert len(destination) == size
            if not any(self._is_pinned(address, size) for address in (to, at)):
                self._problem("an asynchronous copy with memory that is not pinned")
            if self.gpu_of(destination) is not None:
                ctypes.memset(to, NONSENSE, size)
            found = [gpu for gpu in map(self.gpu_of, (destination, source)) if gpu is not None]
            gpu = found[0] if found else self.latest_gpu  # of a tensor that torch made contiguous
            op = Op("copy", lambda: ctypes.memmove(to, at, size), pinned=True)
            self._queue(self.current_stream(gpu)).append(op)
            self.kept += [destination, source]

    def _is_pinned(self, address: int, size: int) -> bool:
        return any(a <= address and address + size <= a + n for a, n in self.pinned.items())

    def mark(self, gpu: int) -> Any:
        event = self.new_event(gpu, shared=False)
        self.record(event, self.current_stream(gpu))
        return event

    def wait(self, mark: Any) -> None:
        with self.machine.lock:
            self._call("wait")
            point = self.points[mark.handle]
            self.machine.reach(point, point.recorded)

    # tensors

    def empty(self, shape: Any, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        tensor = torch.empty(shape, dtype=dtype)
        if device.type == "cuda":
            tensor.reshape(-1).view(torch.uint8).fill_(NONSENSE)
            self.storages[tensor.untyped_storage().data_ptr()] = device.index or 0
            self.kept.append(tensor)
        return tensor

    def place(self, tensor: torch.Tensor, gpu: int) -> torch.Tensor:
        """For tests: `tensor` on a GPU."""
        made = self.empty(tensor.shape, tensor.dtype, torch.device("cuda", gpu))
        made.reshape(-1).view(torch.uint8).copy_(tensor.contiguous().reshape(-1).view(torch.uint8))
        return made

    def gpu_of(self, tensor: torch.Tensor) -> int | None:
        gpu = self.storages.get(tensor.untyped_storage().data_ptr())
        self.latest_gpu = self.latest_gpu if gpu is None else gpu
        return gpu

    def current_device(self) -> int:
        return 0

    def same(self, one: torch.Tensor, other: torch.Tensor) -> bool:
        self.settle()
        return torch.equal(one, other)

    def settle(self) -> None:
        """Run what torch's own operations would wait for: the current streams."""
        with self.machine.lock:
            for gpu in range(len(self.visible)):
                self.machine.run(self._queue(self.current_stream(gpu)))

    def delay(self, gpu: int) -> None:
        self._call("delay")

    # shared memory on a GPU

    def gpu_by_uuid(self, uuid: str) -> int | None:
        number = int(uuid.removeprefix("GPU-"))
        return self.visible.index(number) if number in self.visible else None

    def _map(self, memory: Memory) -> int:
        address = self.machine.next_address
        self.machine.next_address += 1 << 34
        self.mapped[address] = memory
        return address

    def _find(self, address: int, size: int) -> tuple[Memory, int]:
        for base, memory in self.mapped.items():
            if base <= address and address + size <= base + len(memory.data):
                if memory.freed:
                    self._problem("memory used after it was freed")
                return memory, address - base
        raise CudaFailed("copy_bytes returned cudaErrorInvalidValue")

    def malloc(self, gpu: int, size: int) -> int:
        with self.machine.lock:
            self._call("malloc")
            if self.process != "parent":
                self._problem("only the parent allocates")
            if size % PAGE:
                self._problem(f"{size} bytes are no multiple of 2 MiB")
            memory = Memory(self.visible[gpu], bytearray(size), self.process, self.machine.handle())
            self.machine.memories[memory.handle] = memory
            return self._map(memory)

    def free(self, gpu: int, address: int) -> None:
        with self.machine.lock:
            self._call("free")
            memory = self.mapped.pop(address)
            if memory.open_in:
                self._problem("freed while the worker has it open")
            if memory.freed or memory.owner != self.process:
                self._problem("freed twice, or by another")
            memory.freed = True

    def memory_handle(self, gpu: int, address: int) -> bytes:
        with self.machine.lock:
            self._call("memory_handle")
            return self.mapped[address].handle

    def open_memory(self, gpu: int, handle: bytes) -> int:
        with self.machine.lock:
            self._call("open_memory")
            memory = self.machine.memories.get(handle)
            if memory is None or memory.freed or memory.owner == self.process:
                raise CudaFailed("cudaIpcOpenMemHandle returned cudaErrorInvalidValue")
            if memory.gpu != self.visible[gpu]:
                self._problem("opened on another GPU than it is on")
            memory.open_in.add(self.process)
            return self._map(memory)

    def close_memory(self, gpu: int, address: int) -> None:
        with self.machine.lock:
            self._call("close_memory")
            memory = self.mapped.pop(address)
            if memory.freed:
                self._problem("closed after the parent has freed it")
            memory.open_in.discard(self.process)

    def new_stream(self, gpu: int) -> Stream:
        with self.machine.lock:
            self._call("new_stream")
            self.machine.next_address += 1
            return Stream(gpu, self.machine.next_address)

    def current_stream(self, gpu: int) -> Stream:
        return Stream(gpu, getattr(self.current, "handle", 0))

    @contextmanager
    def apart(self, gpu: int) -> Iterator[None]:
        self._call("apart")
        self.current.handle = 1
        yield
        self.current.handle = 0

    def destroy_stream(self, stream: Stream) -> None:
        with self.machine.lock:
            self._call("destroy_stream")
            if self._queue(stream):
                self._problem("a stream was destroyed with work on it")

    def new_event(self, gpu: int, shared: bool) -> Event:
        with self.machine.lock:
            self._call("new_event")
            return self._event(gpu, Point(self.visible[gpu], self.process, shared))

    def _event(self, gpu: int, point: Point) -> Event:
        self.machine.next_address += 1
        self.points[self.machine.next_address] = point
        return Event(gpu, self.machine.next_address)

    def destroy_event(self, event: Event) -> None:
        with self.machine.lock:
            self._call("destroy_event")
            point = self.points.pop(event.handle)
            self.machine.points = {
                handle: p
                for handle, p in self.machine.points.items()
                if p is not point or point.owner != self.process
            }

    def event_handle(self, event: Event) -> bytes:
        with self.machine.lock:
            self._call("event_handle")
            handle, point = self.machine.handle(), self.points[event.handle]
            if not point.shared:
                raise CudaFailed("cudaIpcGetEventHandle returned cudaErrorInvalidResourceHandle")
            self.machine.points[handle] = point
            return handle

    def open_event(self, gpu: int, handle: bytes) -> Event:
        with self.machine.lock:
            self._call("open_event")
            point = self.machine.points.get(handle)
            if point is None or point.gpu != self.visible[gpu]:
                raise CudaFailed("cudaIpcOpenEventHandle returned cudaErrorInvalidResourceHandle")
            return self._event(gpu, point)

    def copy_bytes(
        self,
        to: int,
        to_gpu: int | None,
        source: int,
        source_gpu: int | None,
        size: int,
        stream: Stream,
    ) -> None:
        with self.machine.lock:
            self._call("copy_bytes")
            read, from_memory = self._reader(source, source_gpu, size)
            write, to_memory = self._writer(to, size)
            between = to_gpu is not None and source_gpu is not None
            between = between and self.visible[to_gpu] != self.visible[source_gpu]
            for gpu, memory in ((to_gpu, to_memory), (source_gpu, from_memory)):
                if memory is not None and (gpu is None or self.visible[gpu] != memory.gpu):
                    self._problem("a copy names another GPU than the memory is on")

            def work() -> None:
                data = read()
                if between and self.machine.corrupt:
                    data = data[:-1] + bytes([data[-1] ^ 1])
                write(data)

            self._queue(stream).append(Op("copy", work, shared=True))

    def _reader(self, address: int, gpu: int | None, size: int) -> tuple[Any, Memory | None]:
        if address < 1 << 50:
            if gpu is not None and not self._known(
                address
            ):  # torch's stream-ordered memory would outlive its tensor
                data = ctypes.string_at(address, size)
                return lambda: data, None
            return lambda: ctypes.string_at(address, size), None
        memory, at = self._find(address, size)
        return lambda: bytes(memory.data[at : at + size]), memory

    def _known(self, address: int) -> bool:
        spans = ((t.untyped_storage().data_ptr(), t.untyped_storage().nbytes()) for t in self.kept)
        return any(start <= address < start + size for start, size in spans)

    def _writer(self, address: int, size: int) -> tuple[Any, Memory | None]:
        if address < 1 << 50:
            ctypes.memset(address, NONSENSE, size)
            return lambda data: ctypes.memmove(address, data, size), None
        memory, at = self._find(address, size)

        def write(data: bytes) -> None:
            memory.data[at : at + size] = data

        return write, memory

    def record(self, event: Event, stream: Stream) -> None:
        with self.machine.lock:
            self._call("record")
            point = self.points[event.handle]
            if point.gpu != self.visible[stream.device]:
                raise CudaFailed("cudaEventRecord returned cudaErrorInvalidResourceHandle")
            if point.owner != self.process:
                self._problem("recorded another process's event")
            point.recorded += 1
            self._queue(stream).append(Op("record", point=point, version=point.recorded))

    def stream_wait(self, stream: Stream, event: Event) -> None:
        with self.machine.lock:
            self._call("stream_wait")
            point = self.points[event.handle]
            if self.process == "parent" and point.owner != "parent":
                self._problem("the parent's GPU waits for the worker")
            self._queue(stream).append(Op("wait", point=point, version=point.recorded))

    def synchronize(self, stream: Stream) -> None:
        with self.machine.lock:
            self._call("synchronize")
            self.machine.run(self._queue(stream))

"""Tensors in memory on the worker's GPU that both processes see (CUDA IPC).

    parent                                          worker
    copy in, event "sent" of the slot
    message ------------------------------------->  its stream waits for "sent", copies out,
                                                    evaluates, copies the results in,
    its stream copies out  <---------------- reply  and is synchronised before the reply

The parent never waits on its GPU for the worker: were the worker to die, nothing of the parent's
would hang. The memory is the parent's, so it outlives the worker; the worker closes first. Copies
go by address from and to tensors of torch's: no tensor is ever a view of this memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch

from hybrid_core.errors import CudaFailed, ProtocolError
from hybrid_core.transport.arenas.cuda_calls import HANDLE_BYTES, Event, IpcCalls, Stream
from hybrid_core.transport.headers import SLOTS, Header, in_slot, lay_out

UNIT = 2 << 20  # CUDA shares whole pages of this size: a smaller block would show its neighbours


def shared_bytes(slot_bytes: int) -> int:
    return -(-SLOTS * slot_bytes // UNIT) * UNIT


class _Slots:
    """Addresses and copies, the same on both sides."""

    def __init__(self, calls: IpcCalls, gpu: int, base: int, slot_bytes: int, parent: bool):
        self.slot_bytes = slot_bytes
        self._calls, self._gpu, self._base = calls, gpu, base
        slots = [base + i * slot_bytes for i in range(SLOTS)]
        self._mine, self._theirs = (slots[:2], slots[2:]) if parent else (slots[2:], slots[:2])

    def _copy_in(
        self, number: int, tensors: Sequence[torch.Tensor], beside: Stream
    ) -> tuple[list[Header], set[int]]:
        """Headers, and the GPUs on whose current streams copies were enqueued.

        A tensor in host memory is copied on `beside`, which is synchronised.
        """
        headers, used = lay_out(tensors, self.slot_bytes), set()
        for header, tensor in zip(headers, tensors, strict=True):
            _, _, at, size = in_slot(header, self.slot_bytes)
            if not size:
                continue
            whole, gpu = tensor.detach().contiguous(), self._calls.gpu_of(tensor)
            stream = beside if gpu is None else self._calls.current_stream(gpu)
            to = self._mine[number & 1] + at
            self._calls.copy_bytes(to, self._gpu, whole.data_ptr(), gpu, size, stream)
            if gpu is None:
                self._calls.synchronize(beside)
            else:
                used.add(gpu)
        return headers, used

    def _copy_out(
        self, number: int, header: Any, device: torch.device | None, beside: Stream
    ) -> tuple[torch.Tensor, int | None]:
        """The tensor, and the GPU on whose current stream its copy was enqueued."""
        dtype, shape, at, size = in_slot(header, self.slot_bytes)
        out = self._calls.empty(shape, dtype, device or torch.device("cpu"))
        gpu, source = self._calls.gpu_of(out), self._theirs[number & 1] + at
        if not size:
            return out, None
        stream = beside if gpu is None else self._calls.current_stream(gpu)
        self._calls.copy_bytes(out.data_ptr(), gpu, source, self._gpu, size, stream)
        if gpu is None:
            self._calls.synchronize(beside)
        return out, gpu

    def finish(self) -> None:
        """Nothing is left: events order what is still under way."""


class ExportedArena(_Slots):
    """The parent's side: allocates the memory on `gpu`, the worker's. Raises CudaFailed.

    One stream on that GPU is the line of all that the parent has done to the slots; it carries the
    events that the worker waits for.
    """

    def __init__(self, calls: IpcCalls, gpu: int, slot_bytes: int):
        base = calls.malloc(gpu, shared_bytes(slot_bytes))
        super().__init__(calls, gpu, base, slot_bytes, parent=True)
        self._line: Stream | None = None
        self._sent: list[Event] = []
        self._copied: dict[int, Event] = {}  # by GPU
        try:
            self._line = calls.new_stream(gpu)
            for _ in range(2):
                self._sent.append(calls.new_event(gpu, shared=True))
            self.offer = {
                "size": shared_bytes(slot_bytes),
                "memory": calls.memory_handle(gpu, base).hex(),
                "events": [calls.event_handle(event).hex() for event in self._sent],
            }
        except CudaFailed:
            self.close()
            raise

    def write(self, number: int, tensors: Sequence[torch.Tensor]) -> list[Header]:
        assert self._line is not None
        headers, used = self._copy_in(number, tensors, self._line)
        for gpu in used:
            self._join(gpu)
        self._calls.record(self._sent[number & 1], self._line)
        return headers

    def read(self, number: int, header: Any, device: torch.device | None = None) -> torch.Tensor:
        assert self._line is not None
        out, gpu = self._copy_out(number, header, device, self._line)
        if gpu is not None:
            self._join(gpu)
        return out

    def _join(self, gpu: int) -> None:
        """What comes on the line from now on comes after what `gpu`'s current stream has copied."""
        assert self._line is not None
        if gpu not in self._copied:
            self._copied[gpu] = self._calls.new_event(gpu, shared=False)
        self._calls.record(self._copied[gpu], self._calls.current_stream(gpu))
        self._calls.stream_wait(self._line, self._copied[gpu])

    def close(self) -> None:
        """After the worker's side is closed, or its process has ended."""
        if self._line is not None:
            with suppress(CudaFailed):
                self._calls.synchronize(self._line)
            with suppress(CudaFailed):
                self._calls.destroy_stream(self._line)
        for event in (*self._sent, *self._copied.values()):
            with suppress(CudaFailed):
                self._calls.destroy_event(event)
        with suppress(CudaFailed):
            self._calls.free(self._gpu, self._base)


class OpenedArena(_Slots):
    """The worker's side: opens what `offer` describes. Raises CudaFailed, ProtocolError."""

    def __init__(self, calls: IpcCalls, gpu: int, slot_bytes: int, offer: dict[str, Any]):
        memory, handles = _checked(offer, slot_bytes)
        base = calls.open_memory(gpu, memory)
        super().__init__(calls, gpu, base, slot_bytes, parent=False)
        self._sent: list[Event] = []
        try:
            for handle in handles:
                self._sent.append(calls.open_event(gpu, handle))
        except CudaFailed:
            self.close()
            raise

    def write(self, number: int, tensors: Sequence[torch.Tensor]) -> list[Header]:
        stream = self._after_sent(number)
        headers, used = self._copy_in(number, tensors, stream)
        for gpu in {self._gpu, *used}:
            self._calls.synchronize(self._calls.current_stream(gpu))
        return headers

    def read(self, number: int, header: Any, device: torch.device | None = None) -> torch.Tensor:
        return self._copy_out(number, header, device, self._after_sent(number))[0]

    def _after_sent(self, number: int) -> Stream:
        """The current stream, made to wait for the parent's copies of message `number`."""
        stream = self._calls.current_stream(self._gpu)
        self._calls.stream_wait(stream, self._sent[number & 1])
        return stream

    def close(self) -> None:
        """Before the parent frees the memory."""
        with suppress(CudaFailed):
            self._calls.synchronize(self._calls.current_stream(self._gpu))
        for event in self._sent:
            with suppress(CudaFailed):
                self._calls.destroy_event(event)
        with suppress(CudaFailed):
            self._calls.close_memory(self._gpu, self._base)


def _checked(offer: dict[str, Any], slot_bytes: int) -> tuple[bytes, list[bytes]]:
    """The handles of memory and events in `offer`. Raises ProtocolError."""
    size, events = offer.get("size"), offer.get("events")
    if size != shared_bytes(slot_bytes):
        raise ProtocolError(f"{size!r} bytes are offered, expected {shared_bytes(slot_bytes)}")
    if not isinstance(events, list) or len(events) != 2:
        raise ProtocolError(f"the events offered are {str(events)[:80]}, expected two handles")
    return _handle(offer.get("memory")), [_handle(event) for event in events]


def _handle(text: Any) -> bytes:
    if isinstance(text, str) and len(text) == 2 * HANDLE_BYTES:
        with suppress(ValueError):
            return bytes.fromhex(text)
    raise ProtocolError(f"a handle is {str(text)[:80]!r}, expected {HANDLE_BYTES} bytes in hex")

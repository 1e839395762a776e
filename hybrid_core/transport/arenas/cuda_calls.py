"""Every CUDA call of the data planes, and nothing else: tests put a stand-in in its place.

CudaCalls   what pinned host memory needs, through torch alone
IpcCalls    what memory shared on a GPU needs, through cuda.bindings.runtime, which torch's CUDA
            wheels for Linux bring along

torch's own sharing of tensors is not used: it depends on torch's allocator, and ComfyUI's default
one, cudaMallocAsync, cannot share.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch

from hybrid_core.errors import CudaFailed, PlaneUnavailable

HANDLE_BYTES = 64  # of memory and of events, by CUDA's ABI
PORTABLE = 1  # cudaHostRegisterPortable: pinned for every GPU that this process uses


class Stream(NamedTuple):
    device: int
    handle: int


class Event(NamedTuple):
    device: int
    handle: int


class CudaCalls:
    """Copies between GPUs and pinned host memory, on torch's current streams."""

    def register(self, address: int, size: int) -> None:
        """Pin `size` bytes of host memory for all GPUs. Raises CudaFailed."""
        code = int(torch.cuda.cudart().cudaHostRegister(address, size, PORTABLE))
        if code:
            _clear_torchs_error()
            raise CudaFailed(f"cudaHostRegister of {size} bytes returned error {code}")

    def unregister(self, address: int) -> None:
        """Raises CudaFailed."""
        code = int(torch.cuda.cudart().cudaHostUnregister(address))
        if code:
            _clear_torchs_error()
            raise CudaFailed(f"cudaHostUnregister returned error {code}")

    def empty(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    def gpu_of(self, tensor: torch.Tensor) -> int | None:
        """Index of the GPU that holds `tensor`, None for host memory."""
        if tensor.device.type != "cuda":
            return None
        index = tensor.device.index
        return torch.cuda.current_device() if index is None else index

    def copy(self, destination: torch.Tensor, source: torch.Tensor) -> None:
        """Enqueue a copy between a GPU and pinned memory, both (n,) uint8."""
        destination.copy_(source, non_blocking=True)

    def mark(self, gpu: int) -> Any:
        """An event after what has been enqueued on `gpu`'s current stream so far."""
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(gpu))
        return event

    def wait(self, mark: Any) -> None:
        """Block this thread until `mark` is reached. Raises CudaFailed."""
        try:
            mark.synchronize()
        except RuntimeError as error:
            raise CudaFailed(f"a copy failed: {error}") from error

    def current_device(self) -> int:
        return torch.cuda.current_device()

    def same(self, one: torch.Tensor, other: torch.Tensor) -> bool:
        """Whether two tensors on one device hold equal values, after what is enqueued."""
        return torch.equal(one, other)

    @contextmanager
    def apart(self, gpu: int) -> Iterator[None]:
        """This thread works on a stream of its own: it does not wait for what others enqueue."""
        with torch.cuda.stream(torch.cuda.Stream(gpu)):
            yield

    def delay(self, gpu: int) -> None:
        """Keep `gpu`'s current stream busy for some milliseconds."""
        with torch.cuda.device(gpu):
            torch.cuda._sleep(20_000_000)  # clock cycles


class IpcCalls(CudaCalls):
    """Memory and events on a GPU that two processes share. Raises PlaneUnavailable when made."""

    def __init__(self) -> None:
        try:
            from cuda.bindings import runtime
        except ImportError as error:
            raise PlaneUnavailable(f"cuda.bindings cannot be imported: {error}") from error
        self._runtime = runtime

    def gpu_by_uuid(self, uuid: str) -> int | None:
        """Index in this process of the GPU with `uuid` (GPU-...), None when it is not visible."""
        wanted = uuid.removeprefix("GPU-")
        for index in range(torch.cuda.device_count()):
            seen = str(torch.cuda.get_device_properties(index).uuid)
            if seen.removeprefix("GPU-") == wanted:
                return index
        return None

    def malloc(self, gpu: int, size: int) -> int:
        with self._on(gpu):
            torch.cuda.current_stream(gpu).synchronize()  # makes the GPU's context exist
            return int(self._checked("cudaMalloc", size))

    def free(self, gpu: int, address: int) -> None:
        with self._on(gpu):
            self._checked("cudaFree", address)

    def memory_handle(self, gpu: int, address: int) -> bytes:
        with self._on(gpu):
            return _to_bytes(self._checked("cudaIpcGetMemHandle", address))

    def open_memory(self, gpu: int, handle: bytes) -> int:
        with self._on(gpu):
            torch.cuda.current_stream(gpu).synchronize()  # as in malloc
            made = _from_bytes(self._runtime.cudaIpcMemHandle_t(), handle)
            flags = self._runtime.cudaIpcMemLazyEnablePeerAccess
            return int(self._checked("cudaIpcOpenMemHandle", made, flags))

    def close_memory(self, gpu: int, address: int) -> None:
        with self._on(gpu):
            self._checked("cudaIpcCloseMemHandle", address)

    def new_stream(self, gpu: int) -> Stream:
        """A stream that does not wait for the default one."""
        with self._on(gpu):
            flags = self._runtime.cudaStreamNonBlocking
            return Stream(gpu, int(self._checked("cudaStreamCreateWithFlags", flags)))

    def current_stream(self, gpu: int) -> Stream:
        """The one on which torch works now."""
        return Stream(gpu, int(torch.cuda.current_stream(gpu).cuda_stream))

    def destroy_stream(self, stream: Stream) -> None:
        with self._on(stream.device):
            self._checked("cudaStreamDestroy", stream.handle)

    def new_event(self, gpu: int, shared: bool) -> Event:
        """shared: another process can open it."""
        with self._on(gpu):
            flags = self._runtime.cudaEventDisableTiming
            if shared:
                flags |= self._runtime.cudaEventInterprocess
            return Event(gpu, int(self._checked("cudaEventCreateWithFlags", flags)))

    def destroy_event(self, event: Event) -> None:
        with self._on(event.device):
            self._checked("cudaEventDestroy", event.handle)

    def event_handle(self, event: Event) -> bytes:
        with self._on(event.device):
            return _to_bytes(self._checked("cudaIpcGetEventHandle", event.handle))

    def open_event(self, gpu: int, handle: bytes) -> Event:
        with self._on(gpu):
            made = _from_bytes(self._runtime.cudaIpcEventHandle_t(), handle)
            return Event(gpu, int(self._checked("cudaIpcOpenEventHandle", made)))

    def copy_bytes(
        self,
        to: int,
        to_gpu: int | None,
        source: int,
        source_gpu: int | None,
        size: int,
        stream: Stream,
    ) -> None:
        """Enqueue a copy between addresses on GPUs or, None, in host memory."""
        with self._on(stream.device):
            if None in (to_gpu, source_gpu) or to_gpu == source_gpu:
                kind = self._runtime.cudaMemcpyKind.cudaMemcpyDefault
                self._checked("cudaMemcpyAsync", to, source, size, kind, stream.handle)
            else:
                self._checked(
                    "cudaMemcpyPeerAsync", to, to_gpu, source, source_gpu, size, stream.handle
                )

    def record(self, event: Event, stream: Stream) -> None:
        with self._on(stream.device):
            self._checked("cudaEventRecord", event.handle, stream.handle)

    def stream_wait(self, stream: Stream, event: Event) -> None:
        """What is enqueued on `stream` from now on runs after `event` was reached."""
        with self._on(stream.device):
            self._checked("cudaStreamWaitEvent", stream.handle, event.handle, 0)

    def synchronize(self, stream: Stream) -> None:
        """Block this thread until `stream` has done what is enqueued on it."""
        with self._on(stream.device):
            self._checked("cudaStreamSynchronize", stream.handle)

    @contextmanager
    def _on(self, gpu: int) -> Iterator[None]:
        """`gpu` is the current one of both CUDA runtimes, torch's and cuda.bindings' own."""
        with nullcontext() if torch.cuda.current_device() == gpu else torch.cuda.device(gpu):
            self._checked("cudaSetDevice", gpu)
            yield

    def _checked(self, name: str, *arguments: Any) -> Any:
        """The result of a CUDA call. Raises CudaFailed."""
        code, *results = getattr(self._runtime, name)(*arguments)
        if int(code):
            self._runtime.cudaGetLastError()  # or a later call would report it again
            raise CudaFailed(f"{name} returned {code.name}")
        return results[0] if results else None


def _to_bytes(handle: Any) -> bytes:
    return ctypes.string_at(handle.getPtr(), HANDLE_BYTES)


def _from_bytes(handle: Any, data: bytes) -> Any:
    if len(data) != HANDLE_BYTES:
        raise CudaFailed(f"a handle has {len(data)} bytes, expected {HANDLE_BYTES}")
    ctypes.memmove(handle.getPtr(), data, HANDLE_BYTES)
    return handle


def _clear_torchs_error() -> None:
    """torch would report a failed call of ours at its own next check."""
    try:
        torch.zeros(1, device="cuda")
    except RuntimeError:
        return

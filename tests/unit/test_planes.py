"""The arenas of the data planes over a stand-in for CUDA: bytes, protocol, failures."""

from __future__ import annotations

import json
import mmap
import sys
import threading
import time
from operator import attrgetter
from pathlib import Path

import pytest
import torch
from fake_cuda import FakeCalls
from fake_cuda_machine import Machine
from hypothesis import given, settings
from hypothesis import strategies as st
from tensors import raw

from hybrid_core.errors import (
    ArenaTooSmall,
    CudaFailed,
    PlaneUnavailable,
    ProtocolError,
    WorkerTimeout,
)
from hybrid_core.transport.arenas import cuda_arena, cuda_calls, pinned_arena
from hybrid_core.transport.arenas.cuda_arena import ExportedArena, OpenedArena, shared_bytes
from hybrid_core.transport.arenas.host_arena import HostArena, block_bytes
from hybrid_core.transport.arenas.pinned_arena import PinnedArena
from hybrid_core.transport.headers import DTYPES

ROOT = Path(__file__).resolve().parents[2]
SLOT = 8192
CPU = torch.device("cpu")
PLANES = ("cuda_ipc", "host_pinned", "host")


class Both:
    """Both sides of one plane in this process, and the messages between them."""

    def __init__(self, plane: str, seed: int = 0, slot: int = SLOT):
        self.plane, self.machine, self.number = plane, Machine(seed), 0
        self.ours = FakeCalls(self.machine, "parent", (0, 1))
        self.theirs = FakeCalls(self.machine, "worker", (1,))
        block = mmap.mmap(-1, block_bytes(slot))
        if plane == "cuda_ipc":
            self.parent = ExportedArena(self.ours, 1, slot)
            offer = json.loads(json.dumps(self.parent.offer))
            self.worker = OpenedArena(self.theirs, 0, slot, offer)
        elif plane == "host_pinned":
            self.parent = PinnedArena(block, True, self.ours)
            self.worker = PinnedArena(block, False, self.theirs)
        else:
            self.parent, self.worker = HostArena(block, True), HostArena(block, False)

    def send(self, tensors, device):
        """What the worker sees of `tensors` of the parent's, on `device`."""
        self.number += 1
        headers = self.parent.write(self.number, tensors)
        self.message("parent")
        self.parent.finish()
        return [self.worker.read(self.number, h, device) for h in json.loads(json.dumps(headers))]

    def answer(self, tensors, devices):
        """What the parent sees of the worker's `tensors`, on `devices`."""
        headers = self.worker.write(self.number, tensors)
        self.message("worker")
        self.worker.finish()
        return [
            self.parent.read(self.number, header, device)
            for header, device in zip(headers, devices, strict=True)
        ]

    def message(self, sender):
        if self.plane == "cuda_ipc":
            self.machine.message(sender)

    def close(self):
        self.worker.close()
        self.parent.close()
        assert self.machine.left() == []


def random_bytes(shape, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    size = int(torch.Size(shape).numel()) * dtype.itemsize
    most = 2 if dtype == torch.bool else 256
    data = torch.randint(0, most, (size,), dtype=torch.uint8, generator=generator)
    return data.view(dtype).view(shape)


tensors = st.tuples(
    st.sampled_from(sorted(DTYPES)),
    st.lists(st.integers(0, 6), max_size=4),
    st.sampled_from(["cpu", "gpu 0", "gpu 1"]),
    st.booleans(),  # whether its dimensions are swapped
)


@pytest.mark.parametrize("plane", PLANES)
@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_random_exchanges_come_back_byte_for_byte(plane, data, seed):
    """The parent runs ahead: nothing is looked at before all has been exchanged."""
    both, expected, seen = Both(plane, seed, slot=8 * SLOT), [], []
    for _ in range(data.draw(st.integers(1, 6), "messages")):
        sent = []
        for dtype, shape, where, swapped in data.draw(st.lists(tensors, max_size=3)):
            tensor = random_bytes(shape, DTYPES[dtype], len(expected) + seed % 1000)
            expected.append(tensor.mT.clone() if swapped and tensor.dim() > 1 else tensor.clone())
            if where != "cpu" and plane != "host":
                tensor = both.ours.place(tensor, int(where[-1]))
            sent.append(tensor.mT if swapped and tensor.dim() > 1 else tensor)
        on_gpu = plane != "host" and data.draw(st.booleans(), "worker on its GPU")
        there = both.send(sent, torch.device("cuda", 0) if on_gpu else None)
        places = [None, CPU] + [torch.device("cuda", i) for i in (0, 1)] * (plane != "host")
        seen += both.answer(there, [data.draw(st.sampled_from(places)) for _ in there])
    both.ours.settle()
    assert both.machine.problems == []
    for one, other in zip(seen, expected, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert torch.equal(raw(one), raw(other))
    both.close()
    assert both.machine.problems == []


@pytest.mark.parametrize("plane", PLANES)
def test_what_was_read_is_a_copy(plane):
    both = Both(plane)
    sent = [both.ours.place(torch.full((64,), i, dtype=torch.uint8), 0) for i in range(4)]
    seen = [both.send([tensor], None)[0] for tensor in sent]
    assert [int(tensor[0]) for tensor in seen] == [0, 1, 2, 3]
    both.close()
    assert [int(tensor[0]) for tensor in seen] == [0, 1, 2, 3]


@pytest.mark.parametrize("plane", PLANES)
def test_too_large_and_malformed_are_refused(plane):
    both = Both(plane)
    with pytest.raises(ArenaTooSmall, match=f"8193 bytes .* holds {SLOT}"):
        both.parent.write(1, [torch.zeros(SLOT + 1, dtype=torch.uint8)])
    for at, size in ((SLOT, 1), (64, SLOT), (-64, 1), (3, 1)):
        with pytest.raises(ProtocolError):
            both.worker.read(1, {"dtype": "uint8", "shape": [size], "at": at}, None)


# memory on a GPU


def test_the_worker_closes_first_and_the_parent_frees():
    both = Both("cuda_ipc")
    assert both.machine.left() == ["parent"]
    both.parent.close()
    assert both.machine.problems == ["parent: freed while the worker has it open"]


def test_the_parent_frees_what_a_dead_worker_had_open():
    both = Both("cuda_ipc")
    both.send([both.ours.place(torch.ones(8), 0)], torch.device("cuda", 0))
    both.machine.die("worker")
    both.parent.close()
    assert (both.machine.problems, both.machine.left()) == ([], [])


def test_a_dead_worker_does_not_hold_up_the_parent():
    """Its copies never run; what the parent enqueues afterwards does."""
    both = Both("cuda_ipc")
    both.send([both.ours.place(torch.ones(8), 0)], torch.device("cuda", 0))
    both.machine.die("worker")
    for number in (2, 3, 4):
        both.parent.write(number, [both.ours.place(torch.ones(8), 0)])
    both.parent.close()
    assert not any(both.machine.queues.values()), "everything the parent enqueued has run"
    assert (both.machine.problems, both.machine.left()) == ([], [])


def without_record(monkeypatch, both):
    monkeypatch.setattr(both.ours, "record", lambda *_: None)


def without_synchronize(monkeypatch, both):
    monkeypatch.setattr(both.theirs, "synchronize", lambda *_: None)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (without_record, "0 events recorded before a message"),
        (without_synchronize, "the worker replied before it was synchronised"),
    ],
)
def test_the_stand_in_notices(monkeypatch, harm, said):
    seen = set()
    for seed in range(30):
        both = Both("cuda_ipc", seed)
        with monkeypatch.context() as patch:
            harm(patch, both)
            there = both.send([both.ours.place(torch.ones(8), 0)], torch.device("cuda", 0))
            both.answer(there, [torch.device("cuda", 0)])
        seen |= set(both.machine.problems)
    assert said in seen


def test_the_stand_in_shows_a_wait_that_is_left_out(monkeypatch):
    wrong = 0
    for seed in range(60):
        both = Both("cuda_ipc", seed)
        monkeypatch.setattr(both.theirs, "stream_wait", lambda *_: None)
        there = both.send([both.ours.place(torch.ones(8), 0)], torch.device("cuda", 0))
        both.theirs.settle()
        wrong += not torch.equal(there[0], torch.ones(8))
    assert wrong


def test_the_stand_in_notices_a_parent_that_waits_for_the_worker():
    both = Both("cuda_ipc")
    event = both.theirs.new_event(0, shared=True)
    both.machine.points[b"x" * 64] = both.theirs.points[event.handle]
    opened = both.ours.open_event(1, b"x" * 64)
    both.ours.stream_wait(both.ours.current_stream(1), opened)
    assert both.machine.problems == ["parent: the parent's GPU waits for the worker"]


def good_offer():
    return {"size": shared_bytes(SLOT), "memory": "00" * 64, "events": ["00" * 64] * 2}


@pytest.mark.parametrize(
    "harm",
    [
        {"size": 1}, {"size": None}, {"memory": None}, {"memory": "00" * 63}, {"memory": "zz" * 64},
        {"memory": ["00" * 64]}, {"events": []}, {"events": ["00" * 64]}, {"events": "0" * 256},
        {"events": ["00" * 64, 7]}, {"events": ["00" * 64] * 3},
    ],
)  # fmt: skip
def test_a_malformed_offer_is_refused_before_cuda_sees_it(harm):
    theirs = FakeCalls(Machine(), "worker", (1,))
    with pytest.raises(ProtocolError):
        OpenedArena(theirs, 0, SLOT, good_offer() | harm)
    assert theirs.called == []


def test_a_handle_of_nothing_is_cudas_to_refuse():
    with pytest.raises(CudaFailed, match="cudaIpcOpenMemHandle"):
        OpenedArena(FakeCalls(Machine(), "worker", (1,)), 0, SLOT, good_offer())


SET_UP = ("malloc", "new_stream", "new_event", "memory_handle", "event_handle")


@pytest.mark.parametrize("name", SET_UP)
@pytest.mark.parametrize("after", [0, 1])
def test_a_parent_that_fails_to_set_up_leaves_nothing(name, after):
    machine = Machine()
    calls = FakeCalls(machine, "parent")
    calls.fails[name] = after
    if after and name in ("malloc", "new_stream", "memory_handle"):
        ExportedArena(calls, 1, SLOT).close()  # these are called once
    else:
        with pytest.raises(CudaFailed, match=f"{name} returned"):
            ExportedArena(calls, 1, SLOT)
    assert (machine.left(), machine.problems) == ([], [])


@pytest.mark.parametrize("name", ["open_memory", "open_event"])
def test_a_worker_that_fails_to_open_has_nothing_open(name):
    machine = Machine()
    parent = ExportedArena(FakeCalls(machine, "parent"), 1, SLOT)
    theirs = FakeCalls(machine, "worker", (1,))
    theirs.fails[name] = 0
    with pytest.raises(CudaFailed):
        OpenedArena(theirs, 0, SLOT, parent.offer)
    parent.close()
    assert (machine.left(), machine.problems) == ([], [])


@pytest.mark.parametrize("name", ["synchronize", "destroy_stream", "destroy_event", "free"])
def test_closing_goes_on_after_a_failure(name):
    both = Both("cuda_ipc")
    both.ours.fails[name] = 0
    both.worker.close()
    both.parent.close()
    assert both.machine.left() == (["parent"] if name == "free" else [])


# pinned memory


def test_pieces_arrive_while_the_writer_is_still_copying(monkeypatch):
    monkeypatch.setattr(pinned_arena, "PIECE", 1024)
    both = Both("host_pinned")
    sent = [both.ours.place(torch.arange(1024).to(torch.uint8), 0) for _ in range(4)]
    headers, seen = both.parent.write(1, sent), []
    gpu = torch.device("cuda", 0)

    def read():
        seen.extend(both.worker.read(1, header, gpu) for header in headers)

    seen.append(both.worker.read(1, headers[0], gpu))  # the first piece was waited for
    reader = threading.Thread(target=read)
    reader.start()
    reader.join(0.2)
    assert reader.is_alive(), "the others were not there yet"
    both.parent.finish()
    reader.join(5)
    both.theirs.settle()
    assert len(seen) == 5
    assert all(torch.equal(tensor, sent[0]) for tensor in seen)
    both.close()
    assert both.machine.problems == []


def test_pieces_that_never_arrive_are_a_time_out(monkeypatch):
    monkeypatch.setattr(pinned_arena, "STALLED_SECONDS", 0.1)
    both = Both("host_pinned")
    began = time.monotonic()
    with pytest.raises(WorkerTimeout, match="64 bytes of message 3 had not arrived"):
        both.worker.read(3, {"dtype": "uint8", "shape": [64], "at": 0}, None)
    assert time.monotonic() - began < 2


def test_a_slot_is_not_given_back_while_it_is_read():
    """The copy out of message 1 is done when message 2 says that its slot may be used again."""
    for seed in range(20):
        both = Both("host_pinned", seed)
        seen = both.send([torch.full((64,), 1, dtype=torch.uint8)], torch.device("cuda", 0))
        both.answer([], [])
        for value in (2, 3):
            both.send([torch.full((64,), value, dtype=torch.uint8)], None)
        assert int(seen[0][0]) == 1


def test_memory_that_cannot_be_pinned_is_a_cuda_failure():
    calls = FakeCalls(Machine(), "parent")
    calls.fails["register"] = 0
    with pytest.raises(CudaFailed, match="register"):
        PinnedArena(mmap.mmap(-1, block_bytes(SLOT)), True, calls)


# the real calls


def test_only_one_file_calls_cuda_and_never_waits_for_a_whole_device():
    for path in (ROOT / "hybrid_core").rglob("*.py"):
        text = path.read_text()
        assert "cudaDeviceSynchronize" not in text
        if path.parent.name in ("transport", "worker"):
            assert "cuda.synchronize(" not in text
            assert "record_stream(" not in text
            assert path.name == "cuda_calls.py" or "cuda.bindings.runtime" not in text
            assert path.name == "cuda_calls.py" or "import runtime" not in text


def test_without_cuda_bindings_the_plane_is_not_available(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(PlaneUnavailable, match="cuda.bindings cannot be imported"):
        cuda_calls.IpcCalls()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: tests/gpu uses the calls")
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("cudaSetDevice", (0,)),
        ("cudaMalloc", (1 << 21,)),
        ("cudaFree", (1 << 40,)),
        ("cudaIpcGetMemHandle", (1 << 40,)),
        ("cudaIpcOpenMemHandle", ("cudaIpcMemHandle_t", "cudaIpcMemLazyEnablePeerAccess")),
        ("cudaIpcCloseMemHandle", (1 << 40,)),
        ("cudaStreamCreateWithFlags", ("cudaStreamNonBlocking",)),
        ("cudaStreamDestroy", (5,)),
        ("cudaStreamSynchronize", (0,)),
        ("cudaStreamWaitEvent", (0, 5, 0)),
        ("cudaEventCreateWithFlags", ("cudaEventInterprocess",)),
        ("cudaEventDestroy", (5,)),
        ("cudaEventRecord", (5, 0)),
        ("cudaIpcGetEventHandle", (5,)),
        ("cudaIpcOpenEventHandle", ("cudaIpcEventHandle_t",)),
        ("cudaMemcpyAsync", (1 << 40, 1 << 41, 64, "cudaMemcpyKind.cudaMemcpyDefault", 0)),
        ("cudaMemcpyPeerAsync", (1 << 40, 0, 1 << 41, 1, 64, 0)),
    ],
)
def test_cuda_bindings_take_our_arguments_and_name_the_error(name, arguments):
    runtime = pytest.importorskip("cuda.bindings.runtime")
    made = [attrgetter(a)(runtime) if isinstance(a, str) else a for a in arguments]
    made = [a() if isinstance(a, type) else a for a in made]
    with pytest.raises(CudaFailed, match=f"{name} returned cudaError"):
        cuda_calls.IpcCalls()._checked(name, *made)


@pytest.mark.skipif(not hasattr(torch._C, "_cudart"), reason="a torch without CUDA")
def test_torch_offers_what_pinning_calls():
    assert {"cudaHostRegister", "cudaHostUnregister"} <= set(dir(torch._C._cudart))
    assert callable(torch.cuda._sleep)


def test_handles_are_64_bytes_there_and_back():
    runtime = pytest.importorskip("cuda.bindings.runtime")
    data = bytes(range(64))
    for kind in (runtime.cudaIpcMemHandle_t, runtime.cudaIpcEventHandle_t):
        assert cuda_calls._to_bytes(cuda_calls._from_bytes(kind(), data)) == data
        with pytest.raises(CudaFailed, match="63 bytes, expected 64"):
            cuda_calls._from_bytes(kind(), data[:63])


def test_blocks_are_whole_pages():
    for slot in (4096, SLOT, 64 << 20, (64 << 20) + 64):
        assert shared_bytes(slot) % cuda_arena.UNIT == 0
        assert 0 <= shared_bytes(slot) - 4 * slot < cuda_arena.UNIT

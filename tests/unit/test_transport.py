"""Messages, tensors in shared memory, nested values: what is written comes back or is refused."""

from __future__ import annotations

import json
import mmap
import os
import uuid

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybrid_core.errors import (
    ArenaTooSmall,
    NotPartitionable,
    ProtocolError,
)
from hybrid_core.transport import wire
from hybrid_core.transport.arenas import shared_memory
from hybrid_core.transport.arenas.host_arena import HostArena, block_bytes
from hybrid_core.transport.bulk import Assembly, pieces
from hybrid_core.transport.carry import flatten, unflatten
from hybrid_core.transport.headers import DTYPES, check_header


def arenas(slot=4096):
    block = mmap.mmap(-1, block_bytes(slot))
    return HostArena(block, parent=True), HostArena(block, parent=False)


def random_tensor(dtype, shape=(3, 5)):
    bits = torch.randint(0, 2 if dtype == torch.bool else 100, shape)
    return bits.to(torch.float32).to(dtype)


# messages


def test_message_comes_back():
    data = wire.encode("evaluate", 7, {"context": 3})
    assert wire.decode(data, wire.REQUESTS) == {"op": "evaluate", "seq": 7, "context": 3}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x80\x04N.", "not JSON"),
        (b"[1]", "expected an object"),
        (b'{"op": "result", "seq": 1}', "asks for 'result'"),
        (b'{"op": "evaluate"}', "'seq' is None"),
        (b'{"op": "evaluate", "seq": true}', "'seq' is True"),
        (b'{"op": "evaluate", "seq": -1}', "'seq' is -1"),
        (b'{"op": "evaluate", "seq": 1.5}', "'seq' is 1.5"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_malformed_message_is_refused(data, said):
    with pytest.raises(ProtocolError, match=said):
        wire.decode(data, wire.REQUESTS)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_protocol_error(data):
    try:
        message = wire.decode(data, wire.REPLIES)
    except ProtocolError:
        return
    assert message["op"] in wire.REPLIES


def test_overlong_message_is_refused():
    with pytest.raises(ProtocolError, match="the limit is"):
        wire.encode("conds", 1, {"data": "x" * wire.MAX_BYTES})


# tensors


@pytest.mark.parametrize("dtype", DTYPES.values())
def test_tensor_comes_back_bit_for_bit(dtype):
    parent, worker = arenas()
    tensors = [random_tensor(dtype), random_tensor(dtype, ()), random_tensor(dtype, (0, 4))]
    headers = json.loads(json.dumps(parent.write(5, tensors)))
    for header, tensor in zip(headers, tensors, strict=True):
        seen = worker.read(5, header)
        assert seen.dtype == tensor.dtype
        assert seen.shape == tensor.shape
        assert torch.equal(seen.float(), tensor.float())


def test_directions_and_neighbouring_messages_do_not_touch():
    parent, worker = arenas()
    one, two, back = torch.ones(9), torch.full((9,), 2.0), torch.full((9,), 3.0)
    (first,) = parent.write(0, [one])
    (second,) = parent.write(1, [two])
    (reply,) = worker.write(0, [back])
    assert torch.equal(worker.read(0, first), one)
    assert torch.equal(worker.read(1, second), two)
    assert torch.equal(parent.read(0, reply), back)


def test_read_is_a_copy():
    parent, worker = arenas()
    (header,) = parent.write(0, [torch.ones(4)])
    seen = worker.read(0, header)
    parent.write(2, [torch.zeros(4)])
    assert torch.equal(seen, torch.ones(4))


def test_tensor_that_does_not_fit_is_refused_with_both_sizes():
    parent, _ = arenas(4096)
    parent.write(0, [torch.zeros(1024)])
    with pytest.raises(ArenaTooSmall, match="4100 bytes were .* holds 4096"):
        parent.write(0, [torch.zeros(1025)])


@pytest.mark.parametrize(
    "header",
    [
        None,
        {},
        {"dtype": "float32", "shape": [4], "at": 0, "more": 1},
        {"dtype": "float128", "shape": [4], "at": 0},
        {"dtype": ["float32"], "shape": [4], "at": 0},
        {"dtype": "float32", "shape": [-4], "at": 0},
        {"dtype": "float32", "shape": [4.0], "at": 0},
        {"dtype": "float32", "shape": "4", "at": 0},
        {"dtype": "float32", "shape": [1] * 40, "at": 0},
        {"dtype": "float32", "shape": [4], "at": -64},
        {"dtype": "float32", "shape": [4], "at": 4},
        {"dtype": "float32", "shape": [4], "at": 4096},
        {"dtype": "float32", "shape": [1 << 40, 1 << 40], "at": 0},
    ],
)
def test_malformed_tensor_header_is_refused(header):
    _, worker = arenas()
    with pytest.raises(ProtocolError):
        worker.read(0, header)


@given(st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_any_header_is_checked_without_another_error(value):
    with pytest.raises(ProtocolError):
        check_header({"dtype": value, "shape": value, "at": value})


# pieces


def test_tensors_of_any_size_come_back_in_pieces():
    parent, worker = arenas(4096)
    sent = [torch.randn(5000), torch.zeros(0), torch.arange(7), random_tensor(torch.bfloat16)]
    assembly = Assembly()
    for number, piece in enumerate(pieces(sent, parent.slot_bytes)):
        assembly.take(
            {
                "seq": number,
                "index": piece.index,
                "start": piece.start,
                "whole": piece.whole,
                "tensors": parent.write(number, [piece.data]),
            },
            worker,
        )
    for seen, tensor in zip(assembly.finish({"pieced": 4}), sent, strict=True):
        assert seen.dtype == tensor.dtype
        assert torch.equal(seen, tensor)


def test_pieces_that_do_not_fit_together_are_refused():
    parent, worker = arenas(4096)
    whole = {"dtype": "float32", "shape": [4], "at": 0}

    def take(index, start, data, assembly):
        headers = parent.write(0, [data])
        message = {"seq": 0, "index": index, "start": start, "whole": whole, "tensors": headers}
        assembly.take(message, worker)

    bytes_16 = torch.zeros(16, dtype=torch.uint8)
    with pytest.raises(ProtocolError, match="a piece of tensor 1 came after 0"):
        take(1, 0, bytes_16, Assembly())
    with pytest.raises(ProtocolError, match="outside a tensor of 16 bytes"):
        take(0, 0, torch.zeros(17, dtype=torch.uint8), Assembly())
    interrupted = Assembly()
    take(0, 0, bytes_16, interrupted)
    with pytest.raises(ProtocolError, match="1 tensors came in pieces, 2 were announced"):
        interrupted.finish({"pieced": 2})
    assert interrupted.finish({}) == []


# nested values

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner)
    ),
    max_leaves=12,
)


@given(plain)
def test_plain_values_come_back(value):
    tree = json.loads(json.dumps(flatten(value, [])))
    assert unflatten(tree, []) == value


def test_tensors_dtypes_and_uuids_come_back():
    tensor, identity = torch.randn(2, 3), uuid.uuid4()
    tensors = []
    tree = flatten({"a": [tensor, (torch.float16, identity)], 3: torch.Size([1])}, tensors)
    seen = unflatten(json.loads(json.dumps(tree)), tensors)
    assert torch.equal(seen["a"][0], tensor)
    assert seen["a"][1] == (torch.float16, identity)
    assert seen[3] == (1,)


@pytest.mark.parametrize("value", [print, object(), {1, 2}, b"bytes", torch.device("cpu")])
def test_what_is_not_plain_data_is_refused_by_name(value):
    with pytest.raises(NotPartitionable, match=f"conds.a.*{type(value).__name__}"):
        flatten({"a": [value]}, [], "conds")


@pytest.mark.parametrize(
    "tree",
    [
        [], {}, {"t": 0}, {"t": -1}, {"l": 3}, {"d": [[1]]}, {"d": [[{"l": []}, 1]]},
        {"dtype": "object"}, {"uuid": "1"}, {"eval": "1"}, {"l": [], "u": []},
    ],
)  # fmt: skip
def test_malformed_tree_is_refused(tree):
    with pytest.raises(ProtocolError):
        unflatten(tree, [])


def test_tree_that_is_too_deep_is_refused():
    tree = None
    for _ in range(50):
        tree = {"l": [tree]}
    with pytest.raises(ProtocolError, match="deeper"):
        unflatten(tree, [])


# shared memory


@pytest.mark.parametrize("kind", [k for k in ("memfd", "file") if k in shared_memory.kinds()])
def test_both_kinds_of_shared_memory(kind):
    memory = shared_memory.SharedMemory(8192, kind)

    class Handle:
        def __init__(self, fd):
            self.fd = os.dup(fd)

        def detach(self):
            return self.fd

    ticket = memory.ticket()
    theirs = shared_memory.attach(shared_memory.Ticket(kind, 8192, Handle(ticket.handle)))
    memory.close_descriptor()
    memory.map[100] = 7
    assert theirs[100] == 7


def test_windows_gets_a_named_mapping(monkeypatch):
    calls = []

    def fake(fd, size, tagname=None):
        calls.append((fd, size, tagname))
        return bytearray(size)

    monkeypatch.setattr(shared_memory.sys, "platform", "win32")
    monkeypatch.setattr(shared_memory.mmap, "mmap", fake)
    assert shared_memory.kinds() == ("named",)
    memory = shared_memory.SharedMemory(4096)
    ticket = memory.ticket()
    memory.close_descriptor()
    shared_memory.attach(ticket)
    assert [c[:2] for c in calls] == [(-1, 4096)] * 2
    assert calls[0][2] == calls[1][2] == ticket.handle
    assert len(ticket.handle) > 32, "a name that nobody guesses"


def test_without_memfd_a_nameless_file_is_used(monkeypatch, tmp_path):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr(shared_memory.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(shared_memory.sys, "platform", "darwin")
    memory = shared_memory.SharedMemory(4096)
    assert memory.kind == "file"
    assert list(tmp_path.iterdir()) == []
    memory.close_descriptor()

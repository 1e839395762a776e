"""Whatever the other process sends is a value or a ProtocolError, and takes bounded memory."""

from __future__ import annotations

import json
import mmap
import tracemalloc

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybrid_core.errors import NotPartitionable, ProtocolError
from hybrid_core.transport import wire
from hybrid_core.transport.arenas.host_arena import HostArena, block_bytes
from hybrid_core.transport.bulk import MAX_TENSOR_BYTES, Assembly
from hybrid_core.transport.carry import MAX_DEPTH, flatten, unflatten
from hybrid_core.transport.headers import DTYPES, check_header

SLOT = 4096
HUGE = (1 << 48) - 1
WORDS = st.sampled_from(
    ["t", "l", "u", "d", "dtype", "uuid", "op", "seq", "shape", "at", "float32", "0" * 32, "z" * 32]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, 1, 64, 4096, HUGE, 1 << 48, 1 << 53, 1 << 64, 10**300])
    | st.floats()
    | st.text()
    | st.text(alphabet="\ud800\udfff\0a", max_size=3)
    | WORDS
)
ANY = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(), inner),
    max_leaves=20,
)
NODES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"t": SCALARS}),
        st.fixed_dictionaries({"l": st.lists(inner, max_size=3)}),
        st.fixed_dictionaries({"u": st.lists(inner, max_size=3)}),
        st.fixed_dictionaries({"d": st.lists(st.lists(inner, max_size=3), max_size=3)}),
        st.fixed_dictionaries({"dtype": SCALARS}),
        st.fixed_dictionaries({"uuid": SCALARS}),
    ),
    max_leaves=12,
)
SIZES = st.sampled_from([0, 1, 2, 3, 16, 64, 1023, 1024, 1 << 20, 1 << 47, HUGE])
HEADERS = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(list(DTYPES)) | SCALARS,
        "shape": st.lists(SIZES, max_size=10) | ANY,
        "at": st.sampled_from([0, 64, 4032, 4096, 63]) | SCALARS,
    }
)


def arena():
    block = mmap.mmap(-1, block_bytes(SLOT))
    return HostArena(block, parent=True)


def printable(error):
    """Its text can be logged and shown."""
    return str(error).encode() and len(str(error)) < 2000


@given(st.fixed_dictionaries({"op": ANY | st.just("ok"), "seq": ANY | st.just(1)}) | ANY)
def test_any_json_is_a_message_or_a_protocol_error(value):
    try:
        message = wire.decode(json.dumps(value).encode(), wire.REPLIES)
    except ProtocolError as error:
        assert printable(error)
        return
    assert message["op"] in wire.REPLIES
    assert message["seq"] >= 0


@given(ANY)
def test_any_field_is_what_was_asked_for_or_a_protocol_error(value):
    for read, expected in (
        (wire.whole_number, int),
        (wire.text, str),
        (wire.items, list),
    ):
        try:
            seen = read({"field": value}, "field")
        except ProtocolError as error:
            assert printable(error)
        else:
            assert isinstance(seen, expected)
            if expected is str:
                assert seen.encode() is not None


@given(ANY | NODES)
def test_any_tree_is_a_value_or_a_protocol_error(tree):
    held = [torch.zeros(1)]
    try:
        value = unflatten(tree, held)
    except ProtocolError as error:
        assert printable(error)
        return
    again = flatten(value, [])
    assert flatten(unflatten(again, held * 99), []) == again or "nan" in str(again)


@given(HEADERS | ANY)
def test_any_header_is_a_tensor_in_the_slot_or_a_protocol_error(header):
    try:
        tensor = arena().read(1, header)
    except ProtocolError as error:
        assert printable(error)
        return
    assert tensor.numel() * tensor.element_size() <= SLOT
    assert list(tensor.shape) == header["shape"]


@given(
    st.lists(
        st.tuples(
            SCALARS | st.integers(0, 2),
            SCALARS | st.sampled_from([0, 64]),
            HEADERS | st.sampled_from([{"dtype": "uint8", "shape": [128], "at": 0}]),
            ANY | st.sampled_from([[], [{"dtype": "uint8", "shape": [64], "at": 0}]]),
        ),
        max_size=6,
    ),
    SCALARS | st.integers(0, 2),
)
def test_any_pieces_are_tensors_or_a_protocol_error(pieces, announced):
    assembly, slots = Assembly(), arena()
    for index, start, whole, tensors in pieces:
        message = {"seq": 1, "index": index, "start": start, "whole": whole, "tensors": tensors}
        try:
            assembly.take(message, slots)
        except (ProtocolError, MemoryError) as error:
            assert printable(error)
    try:
        tensors = assembly.finish({"pieced": announced})
    except ProtocolError as error:
        assert printable(error)
        return
    assert len(tensors) == announced


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 1_000_000,
        b'{"a":' * 100_000,
        b'{"op":"ok","seq":' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"op":' + b'{"a":' * 900 + b"1" + b"}" * 900 + b',"seq":1}',
        b'{"op":"ok","seq":' + b"9" * 100_000 + b"}",
        b'{"op":["ok"],"seq":1}',
        b'{"op":{},"seq":1}',
        b'{"op":"\\ud800","seq":1}',
        b'{"op":"\xff","seq":1}',
    ],
    ids=range(9),
)
def test_deep_and_odd_json_is_refused(data):
    with pytest.raises(ProtocolError) as caught:
        wire.decode(data, wire.REPLIES)
    assert printable(caught.value)


def test_a_deep_field_is_refused_in_few_words():
    deep = b'{"op":"ok","seq":1,"field":' + b"[" * 900 + b"]" * 900 + b"}"
    message = wire.decode(deep, wire.REPLIES)
    for read in (wire.whole_number, wire.text):
        with pytest.raises(ProtocolError) as caught:
            read(message, "field")
        assert printable(caught.value)
    with pytest.raises(ProtocolError):
        unflatten({"l": message["field"]}, [])
    with pytest.raises(ProtocolError):
        check_header(message["field"])


def test_text_that_no_log_takes_is_made_fit():
    assert wire.text({"error": "bad \ud800 name"}, "error") == "bad ? name"


@pytest.mark.parametrize(
    "shape", [[0, HUGE, HUGE, HUGE], [HUGE, 0, HUGE], [1 << 47, 0, 2], [0] + [1 << 20] * 8]
)
def test_an_empty_tensor_with_huge_sides_is_refused_where_torch_would_overflow(shape):
    header = {"dtype": "float32", "shape": shape, "at": 0}
    try:
        seen = arena().read(1, header)
    except ProtocolError:
        return
    assert list(seen.shape) == shape


@pytest.mark.parametrize(
    ("whole", "tensors", "said"),
    [
        ([128], [], "without its bytes"),
        ([128], [{"dtype": "uint8", "shape": [], "at": 0}], "expected bytes"),
        ([128], [{"dtype": "uint8", "shape": [2, 2], "at": 0}], "expected bytes"),
        ([128], [{"dtype": "int32", "shape": [4], "at": 0}], "expected bytes"),
        ([MAX_TENSOR_BYTES + 1], [{"dtype": "uint8", "shape": [4], "at": 0}], "is announced"),
    ],
)
def test_malformed_pieces_are_refused(whole, tensors, said):
    header = {"dtype": "uint8", "shape": whole, "at": 0}
    message = {"seq": 1, "index": 0, "start": 0, "whole": header, "tensors": tensors}
    with pytest.raises(ProtocolError, match=said):
        Assembly().take(message, arena())


def test_a_tensor_with_a_hole_is_refused():
    piece = {"dtype": "uint8", "shape": [64], "at": 0}
    message = {"seq": 1, "index": 0, "start": 0, "tensors": [piece]}
    message["whole"] = {"dtype": "uint8", "shape": [192], "at": 0}
    assembly, slots = Assembly(), arena()
    assembly.take(message, slots)
    with pytest.raises(ProtocolError, match="from 64 on"):
        assembly.take({**message, "start": 128}, slots)
    with pytest.raises(ProtocolError, match="64 of a tensor's 192 bytes"):
        assembly.finish({"pieced": 1})


def test_an_announced_tensor_takes_no_memory_before_its_bytes_come():
    header = {"dtype": "uint8", "shape": [1 << 34], "at": 0}
    piece = {"dtype": "uint8", "shape": [64], "at": 0}
    assembly, slots = Assembly(), arena()
    message = {"seq": 1, "index": 0, "start": 0, "whole": header, "tensors": [piece]}
    before = resident()
    try:
        assembly.take(message, slots)
    except MemoryError:
        return  # the system promises no more than it has
    assert resident() - before < 1 << 26


def test_memory_of_the_worst_message_is_a_multiple_of_its_length():
    data = b'{"op":"ok","seq":1,"x":[' + b"{}," * 100_000 + b"0]}"
    tracemalloc.start()
    wire.decode(data, wire.REPLIES)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 50 * len(data)


def resident():
    psutil = pytest.importorskip("psutil")
    return psutil.Process().memory_info().rss


def nested(levels):
    value = None
    for _ in range(levels):
        value = [value]
    return value


def test_what_is_nested_too_deep_is_refused_where_it_is_sent():
    assert unflatten(flatten(nested(MAX_DEPTH + 1), []), []) == nested(MAX_DEPTH + 1)
    with pytest.raises(NotPartitionable, match="deeper than 12"):
        flatten(nested(MAX_DEPTH + 2), [])
    around = []
    around.append(around)
    with pytest.raises(NotPartitionable, match="deeper than 12"):
        flatten({"a": around}, [])


def test_a_number_that_cannot_be_written_is_a_named_error():
    with pytest.raises(ProtocolError, match="cannot be written"):
        wire.encode("conds", 1, {"data": 10**5000})

"""The pipe between the processes: whole messages, and every wait ends. Both kinds of ends."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import struct
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid_core.errors import ProtocolError, WorkerDied, WorkerFailed, WorkerTimeout
from hybrid_core.transport import channel as channel_module
from hybrid_core.transport import ends as ends_module
from hybrid_core.transport import wire
from hybrid_core.transport.channel import Channel
from hybrid_core.transport.ends import MessageEnd, StreamEnd

MORE_THAN_A_PIPE_HOLDS = 4 << 20
MESSAGE = wire.encode("ok", 1, {})


def pair(end, monkeypatch):
    ours, theirs = multiprocessing.Pipe()
    monkeypatch.setattr(channel_module, "end_of", end)
    return Channel(ours, wire.REPLIES), theirs


@pytest.fixture(params=[StreamEnd, MessageEnd])
def ends(request, monkeypatch):
    channel, theirs = pair(request.param, monkeypatch)
    yield channel, theirs
    theirs.close()
    channel.close()


@pytest.fixture
def stream(monkeypatch):
    """A StreamEnd's channel, and the bare socket of the other side."""
    channel, theirs = pair(StreamEnd, monkeypatch)
    with socket_of(theirs) as raw:
        theirs.close()
        yield channel, raw
    channel.close()


def socket_of(connection):
    return socket.socket(fileno=os.dup(connection.fileno()))


class Cancelled(BaseException):
    pass


def cancel_after(ticks):
    left = [ticks]

    def tick():
        left[0] -= 1
        if left[0] < 0:
            raise Cancelled

    return tick


def took(seconds):
    return pytest.approx(seconds, abs=2.0)


def test_this_system_has_stream_sockets():
    ours, theirs = multiprocessing.Pipe()
    assert isinstance(ends_module.end_of(ours), StreamEnd)
    ours.close(), theirs.close()


@pytest.mark.parametrize("lacking", ["socket.MSG_DONTWAIT", "select.poll"])
def test_a_system_without_what_a_stream_needs_gets_the_writer(lacking, monkeypatch):
    monkeypatch.delattr(f"hybrid_core.transport.ends.{lacking}")
    ours, theirs = multiprocessing.Pipe()
    assert isinstance(ends_module.end_of(ours), MessageEnd)
    ours.close(), theirs.close()


def test_a_pipe_that_is_no_socket_gets_the_writer():
    reader, writer = multiprocessing.Pipe(duplex=False)
    assert isinstance(ends_module.end_of(writer), MessageEnd)
    reader.close(), writer.close()


def test_messages_of_all_sizes_go_and_come(ends):
    channel, theirs = ends
    for size in (0, 1, 20_000, 300_000):
        echo = threading.Thread(
            target=lambda: theirs.send_bytes(theirs.recv_bytes().replace(b"load", b"ok"))
        )
        echo.start()
        channel.send("load", 3, data="x" * size)
        seen = channel.receive(10)
        echo.join()
        assert seen == {"op": "ok", "seq": 3, "data": "x" * size}


def test_deadline(ends):
    channel, _ = ends
    began = time.monotonic()
    with pytest.raises(WorkerTimeout, match=r"no answer within 0.2 s"):
        channel.receive(0.2)
    assert time.monotonic() - began == took(0.2)


def test_tick_runs_while_waiting_and_may_raise(ends):
    channel, _ = ends
    with pytest.raises(Cancelled):
        channel.receive(60, cancel_after(0))


def test_what_a_tick_raises_is_not_taken_for_the_pipes_end(ends):
    channel, _ = ends

    def tick():
        raise OSError("of the server")

    with pytest.raises(OSError, match="of the server"):
        channel.receive(60, tick)
    with pytest.raises(OSError, match="of the server"):
        channel.send("load", 1, tick, data="x" * MORE_THAN_A_PIPE_HOLDS)


def test_a_message_that_comes_while_waiting(ends):
    channel, theirs = ends
    send = threading.Timer(0.1, theirs.send_bytes, [MESSAGE])
    send.start()
    assert channel.receive(10)["seq"] == 1
    send.join()


def test_waiting_does_not_take_the_message(ends):
    channel, theirs = ends
    assert not channel.waiting()
    theirs.send_bytes(MESSAGE)
    assert channel.waiting()
    assert channel.waiting()
    assert channel.receive(0.0)["seq"] == 1
    assert not channel.waiting()


def test_end_of_the_pipe_is_the_workers_death(ends):
    channel, theirs = ends
    theirs.close()
    with pytest.raises(WorkerDied):
        channel.receive(10)
    with pytest.raises(WorkerDied):
        channel.waiting()
    with pytest.raises(WorkerDied):
        channel.send("evaluate", 1)


def test_end_of_the_pipe_while_it_is_full(ends):
    channel, theirs = ends
    end = threading.Timer(0.1, theirs.close)
    end.start()
    with pytest.raises(WorkerDied):
        channel.send("load", 1, seconds=60, data="x" * MORE_THAN_A_PIPE_HOLDS)
    end.join()


def test_sending_to_who_does_not_read_keeps_its_deadline(ends):
    channel, _ = ends
    began = time.monotonic()
    with pytest.raises(WorkerTimeout, match=r"not read within 0.2 s"):
        channel.send("load", 1, seconds=0.2, data="x" * MORE_THAN_A_PIPE_HOLDS)
    assert time.monotonic() - began == took(0.2)


def test_sending_to_who_does_not_read_ticks(ends):
    channel, _ = ends
    with pytest.raises(Cancelled):
        channel.send("load", 1, cancel_after(2), data="x" * MORE_THAN_A_PIPE_HOLDS)


def test_a_message_that_was_interrupted_goes_out_whole_before_the_next_one(ends):
    channel, theirs = ends
    with pytest.raises(Cancelled):
        channel.send("load", 1, cancel_after(0), data="x" * MORE_THAN_A_PIPE_HOLDS)
    seen = []
    read = threading.Thread(target=lambda: seen.extend(theirs.recv_bytes() for _ in range(2)))
    read.start()
    channel.send("cancel", 1)
    read.join(10)
    assert [wire.decode(data, wire.REQUESTS)["op"] for data in seen] == ["load", "cancel"]


def test_a_message_that_was_interrupted_goes_out_while_waiting_for_its_reply(ends):
    channel, theirs = ends
    with pytest.raises(WorkerTimeout):
        channel.send("load", 1, seconds=0.0, data="x" * MORE_THAN_A_PIPE_HOLDS)
    answer = threading.Thread(target=lambda: (theirs.recv_bytes(), theirs.send_bytes(MESSAGE)))
    answer.start()
    assert channel.receive(10)["seq"] == 1
    answer.join()


def test_closing_while_a_message_is_stuck(ends):
    channel, theirs = ends
    with pytest.raises(WorkerTimeout):
        channel.send("load", 1, seconds=0.1, data="x" * MORE_THAN_A_PIPE_HOLDS)
    channel.close()
    theirs.close()
    with pytest.raises(WorkerDied):
        channel.receive(1)
    with pytest.raises(WorkerDied):
        channel.send("stop", 2, seconds=1)


def test_the_writer_ends_with_the_channel(monkeypatch):
    channel, theirs = pair(MessageEnd, monkeypatch)
    channel.send("evaluate", 1)
    writer = channel._end._writer
    channel.close()
    writer.join(10)
    assert not writer.is_alive()
    theirs.close()


def test_the_writer_of_a_stuck_message_ends_with_the_other_process(monkeypatch):
    channel, theirs = pair(MessageEnd, monkeypatch)
    with pytest.raises(WorkerTimeout):
        channel.send("load", 1, seconds=0.1, data="x" * MORE_THAN_A_PIPE_HOLDS)
    connection, writer = channel._end._connection, channel._end._writer
    while not channel._end._writing:
        time.sleep(0.01)
    channel.close()
    assert not connection.closed, "it is being written to"
    theirs.close()
    writer.join(10)
    assert connection.closed


def test_no_thread_to_write_with_is_a_named_error(monkeypatch):
    channel, theirs = pair(MessageEnd, monkeypatch)

    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(WorkerFailed, match="can't start new thread"):
        channel.send("evaluate", 1)
    channel.close()
    theirs.close()


# parts of messages: only a stream has them

PARTS = {
    "half a header": b"\0\0",
    "a header": struct.pack("!i", 100),
    "half a message": struct.pack("!i", len(MESSAGE)) + MESSAGE[:9],
}


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_a_part_of_a_message_keeps_deadline_and_tick(stream, part):
    channel, raw = stream
    raw.sendall(part)
    began = time.monotonic()
    with pytest.raises(WorkerTimeout):
        channel.receive(0.2)
    assert time.monotonic() - began == took(0.2)
    with pytest.raises(Cancelled):
        channel.receive(60, cancel_after(2))
    assert not channel.waiting()


def test_a_message_whose_second_half_comes_late_is_taken(stream):
    channel, raw = stream
    data = struct.pack("!i", len(MESSAGE)) + MESSAGE
    raw.sendall(data[:7])
    with pytest.raises(WorkerTimeout):
        channel.receive(0.0)
    raw.sendall(data[7:])
    assert channel.receive(10)["seq"] == 1


@pytest.mark.parametrize("length", [wire.MAX_BYTES + 1, -1, -5, (1 << 31) - 1, -(1 << 31)])
def test_a_length_that_no_message_has_is_refused_before_anything_is_kept(stream, length):
    channel, raw = stream
    raw.sendall(struct.pack("!i", length) + struct.pack("!Q", 1 << 60))
    with pytest.raises(ProtocolError, match="expected 0 to"):
        channel.receive(10)
    assert len(channel._end._come) <= 12


def test_death_in_the_middle_of_a_message(stream):
    channel, raw = stream
    raw.sendall(struct.pack("!i", 100) + b"x")
    raw.close()
    with pytest.raises(WorkerDied):
        channel.receive(10)


def test_another_reader_of_the_pipe_goes_on_blocking():
    socket.setdefaulttimeout(0.1)
    try:
        ours, theirs = multiprocessing.Pipe()
        end = StreamEnd(ours)
    finally:
        socket.setdefaulttimeout(None)
    late = threading.Timer(0.2, theirs.send_bytes, [b"late"])
    late.start()
    assert ours.recv_bytes() == b"late"
    late.join()
    end.close()
    theirs.close()


@given(st.lists(st.binary(max_size=40), max_size=8), st.lists(st.integers(1, 30), min_size=1))
def test_messages_in_any_pieces_come_whole(messages, sizes):
    ours, theirs = multiprocessing.Pipe()
    end, data = StreamEnd(ours), b"".join(struct.pack("!i", len(m)) + m for m in messages)
    seen, at, turn = [], 0, 0
    with contextlib.closing(theirs), contextlib.closing(end), socket_of(theirs) as raw:
        while at < len(data):
            size = sizes[turn % len(sizes)]
            raw.sendall(data[at : at + size])
            at, turn = at + size, turn + 1
            while (message := end.taken(0.0)) is not None:
                seen.append(message)
    assert seen == messages

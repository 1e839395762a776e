"""Exchanges inside a request end by deadline, Cancel, death and failure, on both sides."""

from __future__ import annotations

import mmap
import multiprocessing
import queue
import threading
import time

import pytest
import torch

from hybrid_core.errors import (
    ProtocolError,
    WorkerDied,
    WorkerFailed,
    WorkerStopped,
    WorkerTimeout,
)
from hybrid_core.transport import wire
from hybrid_core.transport.arenas.host_arena import HostArena, block_bytes
from hybrid_core.transport.channel import Channel
from hybrid_core.workers.contract import Tokens
from hybrid_core.workers.process.gathering import Incoming, parents_side, worker_side

CPU = torch.device("cpu")
NUMBER, SLOT = 8, 4096
HALVES = (0, 500, 1000)
FORM = ((2, 3), torch.float32)


class Cancelled(Exception):
    pass


class Pair:
    """A parent and a worker that are threads, with a real pipe between them."""

    def __init__(self, seconds=10.0, tick=lambda: None):
        ours, self.theirs = multiprocessing.Pipe()
        block = mmap.mmap(-1, block_bytes(SLOT))
        self.inbox, self.given_up, self.answered = queue.SimpleQueue(), False, []
        self.channel = Channel(self.theirs, wire.REQUESTS)
        incoming = Incoming(self.inbox, lambda: self.given_up)
        arenas = HostArena(block, True), HostArena(block, False)
        self.parent = parents_side(
            Channel(ours, wire.REPLIES), arenas[0], NUMBER, Tokens(0, HALVES), seconds, tick, CPU,
            lambda: self.answered.append(True),
        )  # fmt: skip
        self.worker = worker_side(
            self.channel, arenas[1], incoming, NUMBER, Tokens(1, HALVES), seconds, None
        )

    def pump(self):
        """What the worker's reader does, once."""
        self.inbox.put(self.theirs.recv_bytes())

    def gathered(self):
        """By the parent."""
        return self.parent.gather(0, [torch.ones(2, 3)], [[], [FORM]])


def test_both_sides_get_what_the_other_sent():
    pair, seen = Pair(), []

    def work():
        pair.pump()
        seen.append(pair.worker.gather(0, [torch.full((2, 3), 2.0)], [[FORM], []]))

    thread = threading.Thread(target=work)
    thread.start()
    ours = pair.gathered()
    thread.join()
    assert ours[1][0].tolist() == [[2.0] * 3] * 2 and seen[0][0][0].tolist() == [[1.0] * 3] * 2
    done = pair.parent.done
    assert (done.exchanges, done.sent, done.received) == (1, 24, 24) and done.seconds > 0
    assert pair.parent.number == pair.worker.number == NUMBER + 1


def test_the_parent_is_held_by_its_deadline_alone():
    since = time.monotonic()
    with pytest.raises(WorkerTimeout):
        Pair(seconds=0.2).gathered()
    assert time.monotonic() - since < 10


def test_the_parent_can_be_cancelled_inside_an_exchange():
    def tick():
        raise Cancelled

    with pytest.raises(Cancelled):
        Pair(tick=tick).gathered()


def test_the_parent_sees_that_the_worker_is_gone():
    pair = Pair()
    pair.theirs.close()
    pair.channel.close()
    with pytest.raises(WorkerDied):
        pair.gathered()


def test_the_parent_hears_what_the_worker_failed_at():
    pair = Pair()
    pair.channel.send("failed", NUMBER, error="out of memory")
    with pytest.raises(WorkerFailed, match="out of memory"):
        pair.gathered()
    assert pair.answered == [True], "no other answer comes"


@pytest.mark.parametrize(
    ("op", "number"), [("gather", NUMBER + 2), ("result", NUMBER), ("ok", NUMBER)]
)
def test_what_does_not_belong_here_is_a_protocol_error(op, number):
    pair = Pair()
    pair.channel.send(op, number, at=0, tensors=[])
    with pytest.raises(ProtocolError):
        pair.gathered()


def test_a_late_message_of_an_earlier_request_is_dropped():
    pair = Pair(seconds=0.3)
    pair.channel.send("gather", NUMBER - 3, at=0, tensors=[])
    pair.channel.send("failed", NUMBER - 4, error="cancelled")
    with pytest.raises(WorkerTimeout):
        pair.gathered()


def worker_gathers(pair):
    return pair.worker.gather(0, [torch.ones(2, 3)], [[FORM], []])


def test_the_worker_ends_where_its_request_is_given_up():
    pair = Pair()
    pair.given_up = True
    with pytest.raises(WorkerStopped):
        worker_gathers(pair)


def test_the_worker_is_held_by_its_deadline_alone():
    with pytest.raises(WorkerTimeout):
        worker_gathers(Pair(seconds=0.1))


def test_the_worker_leaves_other_requests_to_its_loop():
    pair = Pair()
    stop = wire.encode("stop", NUMBER + 9, {})
    pair.inbox.put(wire.encode("gather", NUMBER - 2, {}))
    pair.inbox.put(stop)
    with pytest.raises(ProtocolError, match="'stop' came inside"):
        worker_gathers(pair)
    assert pair.inbox.get() == stop

"""Exchanges inside a request: what each side gets, over every data plane."""

from __future__ import annotations

import json
import mmap
import queue
import threading
from itertools import pairwise

import pytest
import torch
from fake_cuda import FakeCalls
from fake_cuda_machine import Machine
from tensors import raw

from hybrid_core.errors import ProtocolError
from hybrid_core.transport.arenas.cuda_arena import ExportedArena, OpenedArena
from hybrid_core.transport.arenas.host_arena import HostArena, block_bytes
from hybrid_core.transport.arenas.pinned_arena import PinnedArena
from hybrid_core.transport.exchange import Exchange, turns
from hybrid_core.workers.contract import Tokens
from hybrid_core.workers.process.parts import fields_of, part_of, tokens

SLOT = 8192
CPU = torch.device("cpu")
PLANES = ("cuda_ipc", "host_pinned", "host")


class Sides:
    """Two exchanges over one plane, each on a thread of its own where both are asked."""

    def __init__(self, plane, harm=lambda message: message, device=CPU, seed=3):
        self.machine, self._plane, self._device = Machine(seed), plane, device
        self.calls = ours, theirs = (
            FakeCalls(self.machine, "parent", (0, 1)),
            FakeCalls(self.machine, "worker", (1,)),
        )
        block = mmap.mmap(-1, block_bytes(SLOT))
        if plane == "cuda_ipc":
            parent = ExportedArena(ours, 1, SLOT)
            worker = OpenedArena(theirs, 0, SLOT, json.loads(json.dumps(parent.offer)))
        elif plane == "host_pinned":
            parent, worker = (PinnedArena(block, p, c) for p, c in ((True, ours), (False, theirs)))
        else:
            parent, worker = HostArena(block, True), HostArena(block, False)
        self._arenas = worker, parent
        boxes = queue.SimpleQueue(), queue.SimpleQueue()
        self.sides = [
            self._exchange("parent", parent, *boxes, harm),
            self._exchange("worker", worker, *boxes[::-1], harm),
        ]

    def _exchange(self, name, arena, out, into, harm):
        def send(turn, at, headers):
            if self._plane == "cuda_ipc":
                self.machine.message(name)
            out.put(json.dumps(harm({"seq": turn, "at": at, "tensors": headers})))

        def receive(turn):
            message = json.loads(into.get(timeout=10))
            assert message["seq"] == turn
            return message

        return Exchange(arena, 4, send, receive, self._device)

    def swapped(self, at, ours, theirs):
        """What the parent and the worker get; the first error of either is raised."""
        given, out, errors = (ours, theirs), [None, None], []

        def run(place):
            forms = [(tuple(t.shape), t.dtype) for t in given[1 - place]]
            try:
                out[place] = self.sides[place].swap(at, given[place], forms)
            except Exception as error:  # noqa: BLE001  raised below
                errors.append(error)

        threads = [threading.Thread(target=run, args=(place,)) for place in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return out

    def end(self):
        for arena in self._arenas:
            arena.close()
        return self.machine.problems


def made(seed, *sizes):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=generator) for size in sizes]


@pytest.mark.parametrize("plane", PLANES)
def test_each_side_gets_the_others_tensors(plane):
    sides = Sides(plane)
    cases = [
        (((3, 5), (7,)), ((2, 5), (9,))),  # in one turn
        ((), ((40, 40),)),  # one side has nothing to send
        (((90, 60), (11,)), ((5,),)),  # one slot and many
        (((60, 90),), ((90, 120),)),
    ]
    for at, (ours, theirs) in enumerate(cases * 3):
        sent = made(at, *ours), made(at + 100, *theirs)
        got = sides.swapped(at, *sent)
        for side in (0, 1):
            assert all(map(torch.equal, got[side], sent[1 - side]))
            assert len(got[side]) == len(sent[1 - side])
    parent, worker = sides.sides
    assert (parent.sent, parent.received) == (worker.received, worker.sent)
    assert parent.number == worker.number > 4 + len(cases)
    assert sides.end() == []


@pytest.mark.parametrize("plane", PLANES[:2])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_tensors_on_gpus_are_read_before_their_slot_is_written_again(plane, seed):
    """Nothing waits for a copy before all has been exchanged, whoever is ahead."""
    sides, seen = Sides(plane, device=torch.device("cuda", 0), seed=seed), []
    for at in range(9):
        sent = made(at, (9, 5), (at,)), made(at + 100, (11, 5)) if at % 3 else []
        placed = [
            [calls.place(tensor, 0) for tensor in some]
            for calls, some in zip(sides.calls, sent, strict=True)
        ]
        seen.append((sides.swapped(at, *placed), sent))
    for calls in sides.calls:
        calls.settle()
    for got, sent in seen:
        for side in (0, 1):
            for one, other in zip(got[side], sent[1 - side], strict=True):
                assert torch.equal(raw(one), raw(other))
    assert sides.end() == []


def test_no_turn_is_larger_than_a_slot():
    forms = [((100, 100), torch.float32), ((3,), torch.float16)]
    whole = turns(forms, 1 << 20)
    assert [[(piece.index, piece.size) for piece in turn] for turn in whole] == [
        [(0, None), (1, None)]
    ]
    cut = turns(forms, 4096)
    assert all(len(turn) == 1 and turn[0].size <= 4096 for turn in cut)
    assert sum(turn[0].size for turn in cut) == 40006


@pytest.mark.parametrize(
    "change",
    [
        {"at": 1}, {"at": -1}, {"at": "0"}, {"tensors": []}, {"tensors": 5}, {"tensors": [{}]},
        {"tensors": [{"dtype": "float16", "shape": [3, 5], "at": 0}]},
        {"tensors": [{"dtype": "float32", "shape": [3, 6], "at": 0}]},
        {"tensors": [{"dtype": "float32", "shape": [3, 5], "at": SLOT}]},
        {"tensors": [{"dtype": "float32", "shape": [3, 5], "at": 0}] * 2},
    ],
)  # fmt: skip
def test_what_is_not_expected_is_a_protocol_error(change):
    sides = Sides("host", lambda message: {**message, **change})
    with pytest.raises(ProtocolError):
        sides.swapped(0, made(1, (3, 5)), made(2, (3, 5)))


def test_tokens_come_through_a_message():
    for place, bounds in ((0, (0, 500, 1000)), (2, (0, 100, 400, 1000))):
        part = part_of(fields_of(part_of({"tokens": [place, *bounds]})))
        assert part.tokens == Tokens(place, bounds)
        assert sum(Tokens(p, bounds).share for p, _ in enumerate(pairwise(bounds))) == 1


@pytest.mark.parametrize(
    "named",
    [
        [], [0], [0, 0, 1000], [2, 0, 500, 1000], [0, 0, 500], [0, 10, 500, 1000],
        [0, 0, 600, 600, 1000], [-1, 0, 500, 1000], [0, 0, 500, 1001], ["0", 0, 500, 1000],
        "tokens", [0, *range(1001)],
    ],
)  # fmt: skip
def test_tokens_that_cannot_be_are_refused(named):
    with pytest.raises(ProtocolError):
        tokens({"tokens": named})

"""The worker's verbs through frames of bytes: the relay and the actor, without a network."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybrid_core.errors import NotSplittable, ProtocolError, WorkerDied, WorkerFailed
from hybrid_core.transport import wire
from hybrid_core.transport.headers import DTYPES
from hybrid_core.workers.contract import Part, Pictures
from hybrid_core.workers.evaluator import Evaluator
from hybrid_core.workers.ray import cluster
from hybrid_core.workers.ray import relay as relay_module
from hybrid_core.workers.ray.actor import Actor
from hybrid_core.workers.ray.frame import Body, packed, unpacked
from hybrid_core.workers.ray.relay import Relay


class Weighing:
    """Multiplies what it is given by a weight that was sent."""

    device = torch.device("cpu")

    def __init__(self, told):
        self.told, self.interrupted = told, []

    def load(self, data):
        self.weight = data["weight"]
        return {"sum": float(self.weight.double().sum())}

    def context(self, data):
        return data

    def context_of(self, context, pictures):
        return [context[0][pictures.first : pictures.end]]

    def evaluate(self, context, inputs, each):
        return [context[0] * inputs[0] * self.weight.sum()]

    def forget(self, base_key):
        self.forgotten = base_key

    def status(self):
        return {"available_bytes": 7}

    def interrupt(self, value):
        self.interrupted.append(value)

    def after_failure(self):
        pass


class Direct:
    """A place whose actor is in this process; `spoil` changes its replies."""

    def __init__(self, spoil=lambda frame: frame):
        self.actor, self.spoil = Actor(Weighing), spoil
        self.actor.begin(json.dumps({"from": "here"}).encode())
        self.cancel = self.actor.cancel

    def ask(self, frame):
        return self.spoil(self.actor.ask(frame))


X = torch.arange(12.0).view(4, 3)
SIGMA = torch.ones(4)


@pytest.mark.parametrize("piece_bytes", [16, 1 << 20])
def test_models_contexts_and_pictures_go_there_and_outputs_come_back(monkeypatch, piece_bytes):
    monkeypatch.setattr(relay_module, "PIECE_BYTES", piece_bytes)
    place = Direct()
    here, there = Evaluator(Relay(place)), Weighing(None)
    weight = torch.rand(3, 3).to(torch.bfloat16)
    assert here.load({"weight": weight, "none": None}) == there.load({"weight": weight})
    for number in (1, 2):
        here.hold(number, [X + number])
    ((seen,), _) = here.evaluate(1, [X, SIGMA], Part((0,)))
    assert torch.equal(seen, there.evaluate([X + 1], [X], None)[0])
    some = Pictures(1, 3, 4)
    ((seen,), _) = here.evaluate(2, [X[1:3], SIGMA[1:3]], Part((0,), pictures=some))
    assert torch.equal(seen, there.evaluate([X[1:3] + 2], [X[1:3]], None)[0])
    assert here.models.status() == {"available_bytes": 7}
    here.forget("base")
    assert place.actor._evaluator.models.forgotten == "base"


def test_errors_there_are_the_workers_own_words():
    relay = Relay(Direct())
    with pytest.raises(WorkerFailed, match="context 9, which is not held"):
        relay.evaluate((9, None), [X, SIGMA], None)
    with pytest.raises(NotSplittable):
        relay.network()


def test_what_was_cancelled_is_not_begun_and_the_next_is():
    place = Direct()
    relay = Relay(place)
    relay.load({"weight": SIGMA})
    relay.interrupt(True)
    with pytest.raises(WorkerFailed, match="interrupted"):
        relay.context([X])
    place.actor.cancel(2)  # it comes before the request that it is of
    relay.interrupt(False)
    with pytest.raises(WorkerFailed, match="cancelled"):
        relay.context([X])
    assert relay.context([X]) == (3, None)


class Nodes:
    """Of Ray, what the choice of a place looks at."""

    def __init__(self, **others):
        told = {"own": {"GPU": 1.0}, **others}
        self._nodes = [
            {"NodeID": name, "Alive": has is not None, "Resources": has or {}}
            for name, has in told.items()
        ]

    def get_runtime_context(self):
        return SimpleNamespace(get_node_id=lambda: "own")

    def nodes(self):
        return self._nodes


def test_places_are_the_gpus_of_other_computers_and_those_that_name_themselves():
    ray = Nodes(a={"GPU": 2.0}, b={"CPU": 8.0}, c={"hybrid_ksampler": 1.0}, d=None)
    seen = [(node["NodeID"], needs) for node, needs in cluster.places(ray)]
    gpu, named = {"num_gpus": 1}, {"resources": {"hybrid_ksampler": 1}}
    assert seen == [("a", gpu), ("a", gpu), ("c", named)]
    assert cluster.places(Nodes(b={"CPU": 8.0})) == []


def test_a_lost_place_is_a_dead_worker():
    def lost(frame):
        raise WorkerDied("it is lost")

    with pytest.raises(WorkerDied):
        Relay(Direct(lost)).status()


def reply(op, number, body=b"", **fields):
    return packed(wire.encode(op, number, fields), Body(body))


OUTSIDE = {"dtype": "float32", "shape": [4], "at": 0}


@pytest.mark.parametrize(
    "frame",
    [
        None, b"", b"\xff" * 40, b"\x01" + b"\x00" * 7 + b"{", "text", [1],
        reply("ok", 2), reply("result", 1), reply("ok", 2, tensors=[]),
        reply("cancel", 1), reply("more", 1),
    ],
)  # fmt: skip
def test_a_malformed_reply_is_refused(frame):
    with pytest.raises(ProtocolError):
        Relay(Direct(lambda _: frame)).status()


@pytest.mark.parametrize(
    "header",
    [
        OUTSIDE, {**OUTSIDE, "shape": [-1]}, {**OUTSIDE, "at": 64}, {**OUTSIDE, "dtype": "object"},
        {**OUTSIDE, "shape": [1 << 40]}, {}, None, 7,
    ],
)  # fmt: skip
def test_a_tensor_outside_of_its_frame_is_refused(header):
    relay = Relay(Direct(lambda _: reply("result", 1, b"\0" * 15, tensors=[header])))
    with pytest.raises(ProtocolError):
        relay.evaluate((1, None), [X, SIGMA], None)


@pytest.mark.parametrize("op", ["stop", "plane", "probe", "gather", "cancel", "run"])
def test_the_actor_takes_the_verbs_of_models_alone(op):
    message = json.dumps({"op": op, "seq": 1}).encode()
    back, _ = unpacked(Direct().ask(packed(message, Body())), wire.REPLIES)
    assert back["op"] == "failed" and op in back["error"]


@pytest.mark.parametrize("field", [{"tokens": [1, 0, 500, 1000]}, {"pictures": [3, 1, 4]}])
def test_the_actor_refuses_parts_that_it_cannot_have(field):
    place = Direct()
    relay = Relay(place)
    relay.load({"weight": SIGMA})
    relay.context([X])
    body = Body()
    headers = body.write(9, [X, SIGMA])
    message = wire.encode("evaluate", 9, {"context": 1, "tensors": headers, **field})
    back, _ = unpacked(place.ask(packed(message, body)), wire.REPLIES)
    assert (back["op"], back["seq"]) == ("failed", 9)


@given(st.binary(max_size=200))
def test_the_actor_survives_any_bytes(data):
    back, _ = unpacked(ACTOR.ask(data), wire.REPLIES)
    assert back["op"] == "failed"


ACTOR = Actor(Weighing)


@given(st.data())
def test_every_kind_of_tensor_comes_back_as_it_was(data):
    kinds = st.sampled_from(sorted(DTYPES))
    sizes = st.lists(st.integers(0, 3), max_size=3)
    tensors = []
    for kind, shape in data.draw(st.lists(st.tuples(kinds, sizes), max_size=4)):
        tensors.append(torch.randint(0, 2, shape, dtype=torch.uint8).to(DTYPES[kind]))
    body = Body()
    message = wire.encode("ok", 3, {"tensors": body.write(3, tensors)})
    came, back = unpacked(packed(message, body), wire.REPLIES)
    seen = [back.read(3, header) for header in came["tensors"]]
    assert [(t.dtype, t.shape) for t in seen] == [(t.dtype, t.shape) for t in tensors]
    assert all(torch.equal(a.float(), b.float()) for a, b in zip(seen, tensors, strict=True))

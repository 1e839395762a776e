"""Every family of transformers: its tokens on two places give what the whole network gives."""

from __future__ import annotations

import threading

import pytest
import torch
from stage_families import FAMILIES, runner
from tensors import relative

from hybrid_core.comfy_bridge.attention_seams import ATTENTION
from hybrid_core.stages.tokens import Plans, TokenDivider

EQUAL = 1e-5
UNETS = [name for name, family in FAMILIES.items() if "input_blocks" in family.blocks]


class ThreadLink:
    """Places are threads."""

    def __init__(self, place, bounds, slots, barrier):
        self.place, self.bounds = place, bounds
        self._slots, self._barrier = slots, barrier
        self.sent = 0

    def gather(self, at, mine, forms):
        self._slots[self.place] = at, mine
        self._barrier.wait(60)
        found = list(self._slots)
        self._barrier.wait(60)
        self.sent += sum(tensor.numel() for tensor in mine)
        assert {at for at, _ in found} == {at}
        theirs = [list(tensors) for _, tensors in found]
        for place, expected in enumerate(forms):
            if expected:
                assert [(tuple(t.shape), t.dtype) for t in theirs[place]] == expected
        return theirs


def divided(family, network, plans, bounds, **more):
    """The result at place 0, and what each place sent."""
    places = len(bounds) - 1
    slots, barrier, results, errors = [None] * places, threading.Barrier(places), {}, []
    links = [ThreadLink(place, bounds, slots, barrier) for place in range(places)]
    networks = [network] + [family.network() for _ in range(places - 1)]

    def run(place):
        try:
            with torch.inference_mode():
                divider = TokenDivider(networks[place], plans, ATTENTION)
                forward = runner(networks[place], family, **more)
                results[place] = divider.divided(forward, links[place])
        except Exception as error:  # noqa: BLE001  raised by the test
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run, args=(place,)) for place in range(places)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        if not isinstance(error, threading.BrokenBarrierError):
            raise error
    assert not errors and all(results[place] is None for place in range(1, places))
    return results[0], [link.sent for link in links]


def gentle(network):
    """Weights that keep rounding small."""
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim > 1:
                weight.mul_(0.5)
    return network


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in UNETS])
def test_tokens_of_two_places_give_the_result_of_the_whole_network(name):
    family = FAMILIES[name]
    network = family.network()
    with torch.inference_mode():
        plain = runner(network, family)()
        plans = Plans()
        seen = TokenDivider(network, plans, ATTENTION).record(runner(network, family))
    assert torch.equal(seen, plain)
    out, sent = divided(family, network, plans, (0, 500, 1000))
    assert relative(out, plain) < EQUAL

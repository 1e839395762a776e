"""Every family of transformers: its tokens on two places give what the whole network gives."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch
from stage_families import FAMILIES, noise, runner
from tensors import relative

from hybrid_core.comfy_bridge.attention_seams import ATTENTION
from hybrid_core.errors import NotSplittable
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


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in UNETS])
def test_tokens_of_two_places_give_the_result_of_the_whole_network(name):
    family = FAMILIES[name]
    network = family.network()
    with torch.inference_mode():
        plain = runner(network, family)()
        plans = Plans()
        seen = TokenDivider(network, plans, ATTENTION).record(runner(network, family))
    assert torch.equal(seen, plain)
    for bounds in ((0, 500, 1000), (0, 300, 1000)):
        out, _ = divided(family, network, plans, bounds)
        assert relative(out, plain) < EQUAL


CASES = {
    "flux": [
        {"batch": 3},
        {"control": {"input": [noise(1, 16, 32)] * 2, "output": [noise(1, 9, 32, seed=1)] * 3}},
        {"ref_latents": [noise(1, 4, 4, 4)], "ref_latents_method": "index"},
    ],
    "qwen_image": [
        {"batch": 3},
        {"attention_mask": torch.tensor([[1, 1, 1, 0, 0]])},
        {"ref_latents": [noise(1, 4, 1, 4, 4)], "ref_latents_method": "index"},
        {"control": {"input": [noise(1, 16, 32)] * 4}},
    ],
    "wan": [{"batch": 3}],
    "z_image": [{"batch": 3}],
    "sd3": [{"batch": 3}, {"control": {"output": [noise(1, 16, 128)] * 4}}],
    "ltxv": [{"attention_mask": torch.tensor([[1, 1, 1, 0, 0]])}],
}


@pytest.mark.parametrize(("name", "more"), [(name, one) for name in CASES for one in CASES[name]])
def test_batches_masks_residuals_and_references_are_divided(name, more):
    family = FAMILIES[name]
    batch = more.get("batch", 1)
    more = {key: value for key, value in more.items() if key != "batch"}
    if batch > 1:
        conditions = {
            key: (batch, *value[1:]) if isinstance(value, tuple) else value
            for key, value in family.conditions.items()
        }
        family = replace(family, latent=(batch, *family.latent[1:]), conditions=conditions)
    network, plans = family.network(), Plans()
    with torch.inference_mode():
        plain = runner(network, family, **more)()
        divider = TokenDivider(network, plans, ATTENTION)
        assert torch.equal(divider.record(runner(network, family, **more)), plain)
        if more:
            assert relative(runner(network, family)(), plain) > 1e-3, "it matters"
    assert divider.latest.blocks >= 4
    for bounds in ((0, 500, 1000), (0, 200, 600, 1000)):
        out, _ = divided(family, network, plans, bounds, **more)
        assert relative(out, plain) < EQUAL


@pytest.mark.parametrize("name", UNETS)
def test_a_unet_is_refused(name):
    with pytest.raises(NotSplittable, match="tokens cannot be divided"):
        TokenDivider(FAMILIES[name].network(), Plans(), ATTENTION)


def test_a_size_that_was_not_recorded_is_refused():
    family = FAMILIES["flux"]
    network, plans = family.network(), Plans()
    with torch.inference_mode():
        TokenDivider(network, plans, ATTENTION).record(runner(network, family))
    with pytest.raises(NotSplittable, match="not recorded at these sizes"):
        divided(replace(family, latent=(1, 4, 8, 16)), network, plans, (0, 500, 1000))

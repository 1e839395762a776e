"""What a gap has missed, handed in afterwards, on samplers known by formula."""

from __future__ import annotations

import pytest
import torch
from samplers import adams_bashforth, euler, euler_cfg_pp, heun

from hybrid_core.course.made_good import MadeGood
from hybrid_core.course.matrix import trace

STEPS = 12
SIGMAS = [1 - i / STEPS for i in range(STEPS + 1)]
GAP, END = (4, 5), 6  # calls that were foreseen, and the exact one after them


def latents(run, missing, handed_in):
    """Those of each call; the denoised latents of the gap's calls lack what `missing` says.

    missing: call -> (of the guided one, of the uncond branch's). handed_in: call -> a shift.
    """
    seen = []
    generator = torch.Generator().manual_seed(2)

    def predict(x, sigma):
        call = len(seen)
        seen.append(x)
        denoised = torch.randn(1, 1, 1, 4, generator=generator)
        shift = handed_in(call)
        return tuple(
            denoised * share - lacks + (0.0 if shift is None else shift)
            for share, lacks in zip((1.0, 0.3), missing.get(call, (0.0, 0.0)), strict=True)
        )

    seen.append(run(predict, torch.ones(1, 1, 1, 4), None))
    return seen


VALUES = [
    torch.tensor(numbers).reshape(1, 1, 1, 4)
    for numbers in ([0.3, -0.2, 0.1, 0.4], [-0.1, 0.5, 0.2, 0.1])
]
SHARES, WEIGHTS = {4: 0.5, 5: 1.0}, [(1.0, 1.0), (4.0, -1.0)]  # cond's, the difference's


@pytest.mark.parametrize("sampler", [euler, euler_cfg_pp, adams_bashforth, heun])
def test_latents_after_the_gap_are_where_they_would_have_been(sampler):
    run = sampler(SIGMAS)
    matrix = trace(run, SIGMAS[0], 40)
    missing = {
        call: tuple(
            -matrix.sigmas[call]
            * share
            * sum(value * weights[branch] for value, weights in zip(VALUES, WEIGHTS, strict=True))
            for branch in (0, 1)
        )
        for call, share in SHARES.items()
    }
    truth = latents(run, {}, lambda call: None)
    left = latents(run, missing, lambda call: None)
    owed = MadeGood(matrix)

    def handed_in(call):
        if call == END:
            for value, weights in zip(VALUES, WEIGHTS, strict=True):
                owed.owe(value, SHARES, *weights)
        return owed.shift(call) if call >= END else None

    mended = latents(run, missing, handed_in)
    for call in range(END + 1, END + 4):
        off = float((mended[call] - truth[call]).abs().max())
        assert off <= 0.01 * float((left[call] - truth[call]).abs().max())
    assert float((left[END] - truth[END]).abs().max()) > 0.01


def owing(sigmas, shares):
    owed = MadeGood(trace(euler(sigmas), sigmas[0], 40))
    owed.owe(torch.ones(1), shares, 1.0, 1.0)
    return owed


def test_a_sampler_that_forgets_gets_one_shift():
    owed = owing(SIGMAS, {4: 1.0, 5: 1.0})
    assert owed.shift(6) is not None
    assert owed.shift(7) is None


def test_nothing_is_handed_in_at_the_runs_end():
    owed = owing(SIGMAS, {7: 1.0})
    assert owed.shift(9) is None and owed.shift(8) is None


def test_a_call_that_moves_nothing_leaves_it_to_the_next():
    """Equal neighbours in a schedule."""
    twin = [*SIGMAS]
    twin[7] = twin[6]
    owed = owing(twin, {4: 1.0, 5: 1.0})
    assert owed.shift(6) is None and owed.shift(7) is not None

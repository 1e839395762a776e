"""Samplers known by formula, as matrices."""

from __future__ import annotations

import pytest
import torch
from samplers import adams_bashforth, ancestral, euler, euler_cfg_pp, heun

from hybrid_core.course.matrix import trace
from hybrid_core.errors import NotLinear

SIGMAS = [1.0, 0.8, 0.5, 0.3, 0.1, 0.0]


def traced(sampler):
    return trace(sampler(SIGMAS), SIGMAS[0], 20)


def test_weights_are_the_samplers():
    matrix = traced(euler)
    assert matrix.sigmas == pytest.approx(SIGMAS[:-1]) and matrix.calls == 5
    assert matrix.weight(1, 0) == pytest.approx(0.2)
    assert matrix.weight(2, 0) == pytest.approx(0.2 * 0.5 / 0.8)
    assert not matrix.takes_uncond and not matrix.noisy
    assert float(matrix.rows[-1, 0]) == 0.0


def test_a_latent_to_come_is_a_sum_of_what_is_known():
    terms = traced(euler).between(1, 3)
    assert terms.latent == pytest.approx(0.3 / 0.8)
    assert set(terms.denoised) == {1, 2} and not terms.uncond and not terms.noises
    assert terms.denoised[2] == pytest.approx(1 - 0.3 / 0.5)


def test_a_sampler_that_remembers_has_terms_of_earlier_calls():
    terms = traced(adams_bashforth).between(2, 3)
    assert {1, 2} <= set(terms.denoised)


def test_the_uncond_branch_has_weights_of_its_own():
    matrix = traced(euler_cfg_pp)
    assert matrix.takes_uncond
    assert matrix.weight(1, 0) == 1.0
    assert matrix.uncond_weight(1, 0) == pytest.approx(-0.8)


def test_noises_have_columns_and_are_drawn_when_the_sampler_draws_them():
    matrix = traced(ancestral)
    assert matrix.noisy and matrix.drawn == (1, 2, 3, 4, 5)
    assert matrix.between(1, 2).noises == {1: pytest.approx(0.25)}


LENGTHS = [a - b for a, b in zip(SIGMAS, SIGMAS[1:], strict=False)]


def test_a_predictions_reach_is_the_steps_length_with_euler():
    matrix = traced(euler)
    assert matrix.reaches(SIGMAS, False, 1.0, 0.0) == pytest.approx(LENGTHS, rel=1e-5)
    in_noise_to_signal = [
        length / (1 - after) for length, after in zip(LENGTHS, SIGMAS[1:], strict=True)
    ]
    assert matrix.reaches(SIGMAS, True, 1.0, 0.0) == pytest.approx(in_noise_to_signal, rel=1e-5)


def test_a_predictions_reach_counts_how_often_the_sampler_takes_it():
    reaches = traced(adams_bashforth).reaches(SIGMAS, False, 1.0, 0.0)
    assert reaches[1:-1] == pytest.approx([1.5 * length for length in LENGTHS[1:-1]], rel=1e-5)


def test_the_difference_weighs_as_guidance_does():
    reach = traced(euler).reach(SIGMAS, False, 5.0)
    assert reach.difference == pytest.approx([4 * own for own in reach.own])
    assert not any(traced(euler).reach(SIGMAS, False, 1.0).difference)


def test_a_cfg_pp_samplers_branches_weigh_as_it_takes_them():
    """The guided prediction by the whole noise level, the uncond one by what is left of it."""
    matrix = traced(euler_cfg_pp)
    guided = matrix.reaches(SIGMAS, False, 1.0, 0.0)
    both = matrix.reaches(SIGMAS, False, 1.0, 1.0)
    assert guided[-1] == pytest.approx(0.1) and guided[0] > both[0]


def clamps(predict, x, noise):
    return euler(SIGMAS)(lambda y, sigma: (predict(y, sigma)[0].clamp(-1, 1), None), x)


def looks(predict, x, noise):
    calls = 3 if float(x.abs().max()) > 1.5 else 2
    for _ in range(calls):
        x = x - predict(x, torch.ones(1))[0] * 0.1
    return x


def draws_by_itself(predict, x, noise):
    return euler(SIGMAS)(predict, x) + torch.randn_like(x)


def endless(predict, x, noise):
    while True:
        x = predict(x, torch.ones(1))[0]


def reshapes(predict, x, noise):
    return predict(torch.cat([x, x]), torch.ones(2))[0]


@pytest.mark.parametrize("run", [clamps, looks, draws_by_itself, endless, reshapes])
def test_what_is_no_matrix_is_refused(run):
    with pytest.raises(NotLinear):
        trace(run, SIGMAS[0], 20)


def test_tracing_leaves_the_random_numbers_of_the_run_alone():
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    traced(euler)
    with pytest.raises(NotLinear):
        trace(draws_by_itself, SIGMAS[0], 20)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_latent_that_is_only_tried_counts_half():
    """Heun's first call moves the latent by half a step in the end, by a whole one for a try."""
    reaches = traced(heun).reaches(SIGMAS, False, 1.0, 0.0)
    assert reaches[0] == pytest.approx(LENGTHS[0] / 2) and reaches[2] == pytest.approx(
        LENGTHS[1] / 2
    )

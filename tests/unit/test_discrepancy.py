"""Measures of how far the branches are apart."""

from __future__ import annotations

import math

import pytest
import torch

from hybrid_core.course.discrepancy import difference, mean, prediction, projection, rel_mae

SHAPES = [(1, 4, 8, 8), (3, 16, 8, 6), (2, 16, 5, 8, 8), (1, 1, 640)]  # the last: packed latents


@pytest.mark.parametrize("shape", SHAPES)
def test_rel_mae_is_the_ratio_of_means_over_all_elements(shape):
    cond, uncond = torch.randn(shape), torch.randn(shape)
    expected = (cond - uncond).abs().double().mean() / uncond.abs().double().mean()
    assert rel_mae(cond, uncond).item() == pytest.approx(expected.item(), rel=1e-5)


def test_rel_mae_in_half_precision_sums_in_full():
    cond = torch.full((1, 4, 256, 256), 2.0, dtype=torch.float16)
    assert rel_mae(cond, cond / 2).item() == pytest.approx(1.0)


@pytest.mark.parametrize("shape", SHAPES)
def test_rel_mae_of_a_mask_is_that_of_the_masked_part(shape):
    cond, uncond = torch.randn(shape), torch.randn(shape)
    mask = torch.zeros(shape[0], 1, *shape[2:])
    mask[..., : shape[-1] // 2] = 1
    half = (..., slice(None, shape[-1] // 2))
    expected = rel_mae(cond[half], uncond[half]).item()
    assert rel_mae(cond, uncond, mask).item() == pytest.approx(expected, rel=1e-4)
    cond[..., shape[-1] // 2 :] = 1e6
    assert rel_mae(cond, uncond, mask).item() == pytest.approx(expected, rel=1e-4)


def test_rel_mae_of_zeros_and_of_what_is_not_finite():
    zero, one = torch.zeros(1, 4, 8, 8), torch.ones(1, 4, 8, 8)
    assert rel_mae(zero, zero).item() == 0
    assert rel_mae(one, zero).item() == math.inf
    assert rel_mae(one, one).item() == 0
    for value in (math.nan, math.inf):
        bad = one.clone()
        bad[0, 0, 0, 0] = value
        assert not math.isfinite(rel_mae(bad, one).item())
        assert not rel_mae(one, bad).item() > 0 or math.isnan(rel_mae(one, bad).item())


def test_an_empty_mask_gives_a_number():
    assert mean(torch.ones(1, 4, 8, 8), torch.zeros(1, 1, 8, 8)).item() == 0


def test_prediction_is_epsilon_and_velocity():
    clean, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    sigma = torch.tensor([0.5, 3.0])
    shaped = sigma.reshape(2, 1, 1, 1)
    assert torch.allclose(prediction(clean + shaped * noise, clean, sigma), noise, atol=1e-5)
    sigma = torch.tensor([0.5, 0.9])
    shaped = sigma.reshape(2, 1, 1, 1)
    flow = (1 - shaped) * clean + shaped * noise
    assert torch.allclose(prediction(flow, clean, sigma), noise - clean, atol=1e-5)


def test_projection_is_the_share_of_the_slope_from_0_to_1():
    slope = torch.randn(1, 4, 8, 8)
    assert projection([0.3 * slope], [slope]).item() == pytest.approx(0.3, abs=1e-5)
    assert projection([-slope], [slope]).item() == 0
    assert projection([5 * slope], [slope]).item() == 1
    assert projection([slope], [torch.zeros_like(slope)]).item() == 0
    assert projection([slope * math.nan], [slope]).item() == 0
    pair = [slope, torch.zeros(3)]
    assert projection([slope / 2, torch.ones(3)], pair).item() == pytest.approx(0.5, abs=1e-5)


def test_difference_sums_over_pairs():
    a, b = torch.zeros(2, 3), torch.ones(4)
    assert difference([a, b], [a + 1, b + 2]).item() == 3
    with pytest.raises(ValueError, match="shorter"):
        difference([a, b], [a])

"""The arithmetic of benchmarks/gpu.py's expected ratios, against values worked out by hand."""

from __future__ import annotations

import pytest

from benchmarks.expectations import Parts, exact_step, ideal, overhead, pipelined_step, ratio

FREE = Parts(both=100, branch=50, stage_a=25, stage_b=25, latents=0, boundary=0, measures=0)
REAL = Parts(both=96, branch=49, stage_a=24, stage_b=26, latents=0.25, boundary=1, measures=0.75)
SLOW_WAY = Parts(both=96, branch=49, stage_a=24, stage_b=26, latents=2, boundary=6, measures=1)


def test_without_overhead_the_ratio_is_the_ideal_one():
    assert ratio(FREE, 50, 0) == 2.0
    assert ratio(FREE, 50, 25) == pytest.approx(8 / 3)  # 25 * 50 + 25 * 25 = 1875 of 5000
    assert ratio(FREE, 50, 50) == 4.0
    for pipelined in (0, 4.75, 25, 50):
        assert ratio(FREE, 50, pipelined) == pytest.approx(ideal(50, pipelined))


def test_an_exact_step_adds_the_way_and_the_measures_to_a_branch():
    assert exact_step(REAL) == 50.0
    assert overhead(REAL) == pytest.approx(1 / 96)
    assert ratio(REAL, 50, 0) == pytest.approx(1.92)


def test_a_pipelined_step_is_the_longer_side():
    assert pipelined_step(REAL) == 26.75  # stage B 26, stage A with its way 25
    assert pipelined_step(SLOW_WAY) == 31  # stage B 26, stage A with its way 30
    assert ratio(REAL, 50, 30) == pytest.approx(4800 / (20 * 50 + 30 * 26.75))


def test_a_batch_that_costs_less_than_two_branches_costs_ratio():
    cheap = Parts(both=80, branch=50, stage_a=25, stage_b=25, latents=0, boundary=0, measures=0)
    assert ratio(cheap, 50, 0) == 1.6

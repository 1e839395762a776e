"""The course of a run on a sampler and a model that are known by formula."""

from __future__ import annotations

import sys

import pytest
import torch

from hybrid_core.config import Tuning
from hybrid_core.course.policy import (
    COND,
    Adaptive,
    Exact,
    Paper,
    PaperParameters,
    policy_for,
    step_lengths,
)
from hybrid_core.course.stepper import MULTISTEP, SEVERAL_CALLS, UNFORESEEN, Stepper
from hybrid_core.telling.report import Report, kinds

STEPS = 20
SIGMAS = [1 - i / STEPS for i in range(STEPS + 1)]
SHAPE = (2, 4, 8, 8)


class Branches:
    """Two velocity fields whose difference is a line in sigma; boundaries are the latent."""

    def __init__(self, seed=0, bend=0.0):
        generator = torch.Generator().manual_seed(seed)
        self.bend = bend
        self.base, self.apart, self.tilt = (torch.randn(SHAPE, generator=generator) for _ in "123")

    def cond(self, x, sigma):
        return x - sigma * (self.base + 0.1 * x)

    def uncond(self, x, sigma):
        return self.cond(x, sigma) + sigma * 0.1 * (
            self.apart + sigma * self.tilt + self.bend * sigma**2
        )


def run(stepper, noise=0.0, calls=1, cfg=5.0, guided=True, bend=0.0, order=1):
    """Euler's steps, or Adams-Bashforth's of order 2.

    The latent at the end and the latents that stage A was asked for.
    """
    branches, x, asked, slope = Branches(bend=bend), torch.randn(SHAPE), [], None
    for step in range(STEPS):
        sigma = torch.full((SHAPE[0],), SIGMAS[step])
        for _ in range(calls):
            decision = stepper.begin(x, sigma)
            cond = branches.cond(x, SIGMAS[step])
            if decision.branch is not None:
                assert stepper.forecast() is not None
                ahead = stepper.ahead()
                if ahead is not None:
                    asked.append((ahead.step, ahead.x))
                    stepper.keep_boundary(ahead.step, {"a": ahead.x}, ahead.branch)
                either = cond if decision.branch == COND else branches.uncond(x, SIGMAS[step])
                cond, uncond = stepper.saw_pipelined(either)
                if not guided:
                    uncond = None
            else:
                uncond = branches.uncond(x, SIGMAS[step]) if guided else None
                shift = stepper.saw_exact(cond, uncond, {"a": x} if decision.capture else None)
                if shift is not None:
                    cond, uncond = cond + shift, uncond + shift
        denoised = cond if uncond is None else uncond + cfg * (cond - uncond)
        before = x
        new = (x - denoised) / SIGMAS[step]
        used = new if order == 1 or slope is None else 1.5 * new - 0.5 * slope
        x, slope = x + used * (SIGMAS[step + 1] - SIGMAS[step]), new
        x = x + noise * torch.randn(SHAPE) * (x - before).abs().mean()
    return x, asked


def adaptive(tolerance=0.05, **more):
    return Stepper(Adaptive(tolerance, step_lengths(SIGMAS, True), 5.0), SIGMAS, **more)


def test_a_difference_that_is_a_line_is_continued_without_error():
    torch.manual_seed(1)
    exact, _ = run(Stepper(policy_for("exact", Tuning(), SIGMAS, True, 5.0), SIGMAS))
    torch.manual_seed(1)
    stepper = adaptive()
    seen, _ = run(stepper)
    assert kinds(stepper.records).count("p") >= 8
    assert torch.allclose(seen, exact, atol=1e-4)


def errors(bend, order):
    """Relative errors of the latent at the end, with and without the making good."""
    found = []
    for cfg in (5.0, None):
        torch.manual_seed(1)
        policy = policy_for("exact", Tuning(), SIGMAS, True, 5.0)
        exact, _ = run(Stepper(policy, SIGMAS), bend=bend, order=order)
        torch.manual_seed(1)
        stepper = Stepper(Adaptive(1e9, step_lengths(SIGMAS, True), 5.0, 4), SIGMAS, cfg=cfg)
        seen, _ = run(stepper, bend=bend, order=order)
        assert kinds(stepper.records) == "EEEpEppEppppEppppEpp"
        found.append(float((seen - exact).norm() / exact.norm()))
    return found


def test_an_exact_step_makes_good_what_the_gap_before_it_missed():
    made_good, left = errors(bend=3.0, order=1)
    assert 0 < made_good < 0.8 * left


def test_nothing_is_made_good_with_samplers_of_higher_order():
    made_good, left = errors(bend=3.0, order=2)
    assert made_good == left > 0


def test_uncond_steps_bring_what_they_are_for():
    """The branches' difference bends: less error where the uncond branch renews it in between."""
    torch.manual_seed(1)
    exact, _ = run(Stepper(Exact(), SIGMAS), bend=3.0)
    found = []
    for alternates in (False, True):
        torch.manual_seed(1)
        stepper = Stepper(Adaptive(1e9, step_lengths(SIGMAS, True), 5.0), SIGMAS, cfg=5.0)
        stepper.policy.alternates = alternates
        seen, _ = run(stepper, bend=3.0)
        branches = {record.branch for record in stepper.records if record.kind == "pipelined"}
        assert branches == ({"cond", "uncond"} if alternates else {"cond"})
        found.append(float((seen - exact).norm() / exact.norm()))
    assert 0 < found[1] < 0.5 * found[0]


def test_samplers_of_higher_order_weigh_a_drift_more():
    weights = []
    for order in (1, 2):
        torch.manual_seed(1)
        stepper = adaptive(cfg=5.0)
        run(stepper, bend=3.0, order=order)
        weights.append(stepper.policy.emphasis)
    assert weights == [1.0, MULTISTEP]


def test_stage_a_is_asked_for_where_the_next_step_will_be():
    torch.manual_seed(1)
    stepper = adaptive()
    _, asked = run(stepper)
    assert asked
    for step, latent in asked:
        assert kinds(stepper.records)[step] == "p"
        assert latent.shape == SHAPE


def test_without_look_ahead_stage_a_is_a_step_old():
    torch.manual_seed(1)
    stepper, latents = adaptive(look_ahead=False), []
    original = stepper.begin
    stepper.begin = lambda x, sigma: (latents.append(x), original(x, sigma))[1]
    _, asked = run(stepper)
    assert asked
    for step, latent in asked:
        assert torch.equal(latent, latents[step - 1])


def test_noise_between_steps_is_noticed():
    stepper = adaptive(tolerance=1e9)
    run(stepper, noise=2.0)
    assert "p" not in kinds(stepper.records)
    assert stepper.obstacle == UNFORESEEN


def test_several_calls_a_step_are_noticed():
    stepper = adaptive(tolerance=1e9)
    run(stepper, calls=2)
    assert "p" not in kinds(stepper.records)
    assert stepper.obstacle == SEVERAL_CALLS


def test_a_calm_run_has_no_obstacle():
    stepper = adaptive()
    run(stepper)
    assert stepper.obstacle is None


def test_sigmas_off_the_schedule_are_exact():
    stepper, x = adaptive(tolerance=1e9), torch.randn(SHAPE)
    for step in range(10):
        decision = stepper.begin(x, torch.full((2,), SIGMAS[step] + 0.01))
        assert decision.branch is None and not decision.capture
        stepper.saw_exact(x, x * 0.5)
    assert [record.step for record in stepper.records] == [None] * 10


def test_one_branch_is_pipelined_by_its_features():
    torch.manual_seed(1)
    policy = Adaptive(0.05, step_lengths(SIGMAS, True), 1.0)
    stepper = Stepper(policy, SIGMAS)
    run(stepper, guided=False)
    found = kinds(stepper.records)
    assert found.startswith("EEE") and "p" in found
    first = found.index("p")
    assert stepper.records[first - 1].feature_drift > 0
    assert all(record.guidance_drift is None for record in stepper.records)


def test_paper_returns_one_prediction_for_both_branches():
    policy = Paper(PaperParameters(window=3, slope=10.0, length=4, cap=6), STEPS)
    stepper, x = Stepper(policy, SIGMAS, look_ahead=False), torch.randn(SHAPE)
    branches, same = Branches(), []
    for step in range(STEPS):
        sigma = torch.full((2,), SIGMAS[step])
        decision = stepper.begin(x, sigma)
        cond = branches.cond(x, SIGMAS[step])
        if decision.branch is not None:
            same.append(all(one is cond for one in stepper.saw_pipelined(cond)))
            stepper.keep_boundary(step + 1, {"a": x})
        else:
            stepper.saw_exact(cond, branches.uncond(x, SIGMAS[step]), {"a": x})
        x = x + (x - cond) / SIGMAS[step] * (SIGMAS[step + 1] - SIGMAS[step])
    assert same == [True] * len(same) and same
    assert policy.tau2 - policy.tau1 == 4


def test_a_latent_that_is_not_finite_is_evaluated_in_full():
    stepper = adaptive(tolerance=1e9)
    torch.manual_seed(1)
    x = torch.randn(SHAPE)
    for step in range(STEPS):
        if step == 8:
            x = x * float("nan")
        decision = stepper.begin(x, torch.full((2,), SIGMAS[step]))
        assert step < 8 or decision.branch is None
        if decision.branch is not None:
            stepper.saw_pipelined(x * 0.9)
        else:
            stepper.saw_exact(x * 0.9, x * 0.8, {"a": x})
        x = x * (SIGMAS[step + 1] + 0.1) / (SIGMAS[step] + 0.1)


@pytest.mark.parametrize(
    ("counts", "ideal"),
    [
        ({"partitioned": 50}, 2.0),
        ({"partitioned": 45, "pipelined": 5}, 100 / 47.5),
        ({"partitioned": 30, "pipelined": 20}, 2.5),
        ({"local": 10}, 1.0),
        ({"single": 10, "pipelined": 10}, 20 / 15),
        ({}, 1.0),
    ],
)
def test_ideal_ratio_is_step_arithmetic(counts, ideal):
    assert Report(**counts).ideal == pytest.approx(ideal)


def test_equal_neighbours_in_a_schedule_do_no_harm(monkeypatch):
    """Few noise levels in a model's table, or a short denoise: a step of no length."""
    for twin in range(1, STEPS - 1):
        sigmas = [*SIGMAS]
        sigmas[twin + 1] = sigmas[twin]
        monkeypatch.setattr(sys.modules[__name__], "SIGMAS", sigmas)
        torch.manual_seed(1)
        stepper = Stepper(Adaptive(1e9, step_lengths(sigmas, True), 5.0, 3), sigmas, cfg=5.0)
        seen, _ = run(stepper, bend=3.0)
        assert torch.isfinite(seen).all() and "p" in kinds(stepper.records)
        monkeypatch.undo()


def test_after_other_prompts_nothing_that_was_seen_is_used():
    torch.manual_seed(1)
    stepper, x = adaptive(1e9), torch.randn(SHAPE)
    for step in range(STEPS):
        if step == 9:
            stepper.forget()
        cond = x - SIGMAS[step] * (0.5 if step < 9 else -0.5)
        decision = stepper.begin(x, torch.full((SHAPE[0],), SIGMAS[step]))
        if decision.branch is not None:
            stepper.saw_pipelined(cond)
        else:
            stepper.saw_exact(cond, cond - SIGMAS[step] * 0.1, {"a": x})
        x = x + (x - cond) / SIGMAS[step] * (SIGMAS[step + 1] - SIGMAS[step])
    course = kinds(stepper.records)
    assert "p" in course[:9] and course[9:12] == "EEE" and "p" in course[12:]


def test_parts_of_a_latent_are_watched_without_harm():
    """Context windows: several shapes at one sigma, none like the mask."""
    stepper = Stepper(Exact(), SIGMAS, mask=torch.ones(1, 1, 8, 8))
    for sigma in SIGMAS[:4]:
        for width in (3, 3, 5):
            x = torch.randn(2, 4, 8, width)
            assert not stepper.begin(x, torch.full((2,), sigma)).branch
            assert stepper.saw_exact(x * 0.5, x * 0.4) is None
    stepper.close()
    assert len(stepper.records) == 12 and {r.discrepancy for r in stepper.records} == {None}
    free = Stepper(Exact(), SIGMAS)
    for sigma in SIGMAS[:4]:
        for width in (3, 3, 5):
            x = torch.randn(2, 4, 8, width)
            assert not free.begin(x, torch.full((2,), sigma)).branch
            assert free.saw_exact(x * 0.5, x * 0.4) is None
    free.close()
    assert len(free.records) == 12

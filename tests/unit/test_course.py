"""The course of a run on a sampler and a model that are known by formula."""

from __future__ import annotations

import sys

import pytest
import torch

from hybrid_core.config import Tuning
from hybrid_core.course.course import MULTISTEP, SEVERAL_CALLS, UNFORESEEN, Course
from hybrid_core.course.policy import (
    COND,
    Adaptive,
    Exact,
    Paper,
    PaperParameters,
    policy_for,
    step_lengths,
)
from hybrid_core.course.steps import PipelinedStep
from hybrid_core.telling.report import LETTERS, Report, StepRecord, kinds

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


class Followed:
    """A course, and the records of its steps."""

    def __init__(self, course):
        self.course, self.records = course, []

    def begin(self, x, sigma, prompts=()):
        step = self.course.begin(x, sigma, prompts)
        self.records.append(step.record)
        return step

    @property
    def kinds(self):
        return kinds(self.records)


def run(followed, noise=0.0, calls=1, cfg=5.0, guided=True, bend=0.0, order=1):
    """Euler's steps, or Adams-Bashforth's of order 2.

    The latent at the end and the latents that stage A was asked for.
    """
    branches, x, asked, slope = Branches(bend=bend), torch.randn(SHAPE), [], None
    course = followed.course
    for index in range(STEPS):
        sigma = torch.full((SHAPE[0],), SIGMAS[index])
        for _ in range(calls):
            step = followed.begin(x, sigma)
            cond, uncond = branches.cond(x, SIGMAS[index]), branches.uncond(x, SIGMAS[index])
            if isinstance(step, PipelinedStep):
                assert step.boundary is not None
                ahead = step.ahead
                if ahead is not None:
                    asked.append((ahead.step, ahead.x))
                    course.keep_boundary(ahead.step, {"a": ahead.x}, ahead.branch)
                cond, uncond = step.both(cond if step.branch == COND else uncond)
                if not guided:
                    uncond = None
            else:
                uncond = uncond if guided else None
                shift = step.finish(cond, uncond, {"a": x} if step.capture else None)
                if shift is not None:
                    cond, uncond = cond + shift, uncond + shift
        denoised = cond if uncond is None else uncond + cfg * (cond - uncond)
        before = x
        new = (x - denoised) / SIGMAS[index]
        used = new if order == 1 or slope is None else 1.5 * new - 0.5 * slope
        x, slope = x + used * (SIGMAS[index + 1] - SIGMAS[index]), new
        x = x + noise * torch.randn(SHAPE) * (x - before).abs().mean()
    return x, asked


class CondOnly(Adaptive):
    """Pipelined steps evaluate the cond branch."""

    def choose(self, step, known, branch=None):
        return super().choose(step, known, COND)


def followed(policy, **more):
    return Followed(Course(policy, SIGMAS, **more))


def adaptive(tolerance=0.05, **more):
    return followed(Adaptive(tolerance, step_lengths(SIGMAS, True), 5.0), **more)


def test_a_difference_that_is_a_line_is_continued_without_error():
    torch.manual_seed(1)
    exact, _ = run(followed(policy_for("exact", Tuning(), SIGMAS, True, 5.0)))
    torch.manual_seed(1)
    course = followed(CondOnly(0.05, step_lengths(SIGMAS, True), 5.0))
    seen, _ = run(course)
    assert course.kinds.count("p") >= 8
    assert torch.allclose(seen, exact, atol=1e-4)


def errors(bend, order):
    """Relative errors of the latent at the end, with and without the making good."""
    found = []
    for cfg in (5.0, None):
        torch.manual_seed(1)
        policy = policy_for("exact", Tuning(), SIGMAS, True, 5.0)
        exact, _ = run(followed(policy), bend=bend, order=order)
        torch.manual_seed(1)
        course = followed(CondOnly(1e9, step_lengths(SIGMAS, True), 5.0, 4), cfg=cfg)
        seen, _ = run(course, bend=bend, order=order)
        assert course.kinds == "EEEpEppEppppEppppEpp"
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
    exact, _ = run(followed(Exact()), bend=3.0)
    found = []
    for kind, expected in ((CondOnly, {"cond"}), (Adaptive, {"cond", "uncond"})):
        torch.manual_seed(1)
        course = followed(kind(1e9, step_lengths(SIGMAS, True), 5.0), cfg=5.0)
        seen, _ = run(course, bend=3.0)
        assert {r.branch for r in course.records if r.kind == "pipelined"} == expected
        found.append(float((seen - exact).norm() / exact.norm()))
    assert 0 < found[1] < 0.5 * found[0]


def test_samplers_of_higher_order_weigh_a_drift_more():
    weighed = []

    class Watching(Exact):
        def drift(self, step, known, branch=COND):
            weighed.append(known.emphasis)

    for order in (1, 2):
        torch.manual_seed(1)
        weighed.clear()
        run(followed(Watching(), cfg=5.0), bend=3.0, order=order)
        assert weighed[-1] == (1.0 if order == 1 else MULTISTEP)


def test_stage_a_is_asked_for_where_the_next_step_will_be():
    torch.manual_seed(1)
    course = adaptive()
    _, asked = run(course)
    assert asked
    for step, latent in asked:
        assert course.kinds[step] == "p"
        assert latent.shape == SHAPE


def test_without_look_ahead_stage_a_is_a_step_old():
    torch.manual_seed(1)
    course, latents = adaptive(look_ahead=False), []
    original = course.course.begin
    course.course.begin = lambda x, *more: (latents.append(x), original(x, *more))[1]
    _, asked = run(course)
    assert asked
    for step, latent in asked:
        assert torch.equal(latent, latents[step - 1])


def test_noise_between_steps_is_noticed():
    course = adaptive(tolerance=1e9)
    run(course, noise=2.0)
    assert "p" not in course.kinds
    assert course.course.obstacle == UNFORESEEN


def test_several_calls_a_step_are_noticed():
    course = adaptive(tolerance=1e9)
    run(course, calls=2)
    assert "p" not in course.kinds
    assert course.course.obstacle == SEVERAL_CALLS


def test_a_calm_run_has_no_obstacle():
    course = adaptive()
    run(course)
    assert course.course.obstacle is None


def test_sigmas_off_the_schedule_are_exact():
    course, x = adaptive(tolerance=1e9), torch.randn(SHAPE)
    for index in range(10):
        step = course.begin(x, torch.full((2,), SIGMAS[index] + 0.01))
        assert not isinstance(step, PipelinedStep) and not step.capture
        step.finish(x, x * 0.5)
    assert [record.step for record in course.records] == [None] * 10


def test_one_branch_is_pipelined_by_its_features():
    torch.manual_seed(1)
    course = followed(Adaptive(0.05, step_lengths(SIGMAS, True), 1.0))
    run(course, guided=False)
    assert course.kinds.startswith("EEE") and "p" in course.kinds
    first = course.kinds.index("p")
    assert course.records[first - 1].feature_drift > 0
    assert all(record.guidance_drift is None for record in course.records)


def test_paper_returns_one_prediction_for_both_branches():
    policy = Paper(PaperParameters(window=3, slope=10.0, length=4, cap=6), STEPS)
    course, x = followed(policy, look_ahead=False), torch.randn(SHAPE)
    branches, same = Branches(), []
    for index in range(STEPS):
        step = course.begin(x, torch.full((2,), SIGMAS[index]))
        cond = branches.cond(x, SIGMAS[index])
        if isinstance(step, PipelinedStep):
            same.append(all(one is cond for one in step.both(cond)))
            course.course.keep_boundary(index + 1, {"a": x})
        else:
            step.finish(cond, branches.uncond(x, SIGMAS[index]), {"a": x})
        x = x + (x - cond) / SIGMAS[index] * (SIGMAS[index + 1] - SIGMAS[index])
    assert same == [True] * len(same) and same
    assert policy.tau2 - policy.tau1 == 4


def test_a_latent_that_is_not_finite_is_evaluated_in_full():
    course = adaptive(tolerance=1e9)
    torch.manual_seed(1)
    x = torch.randn(SHAPE)
    for index in range(STEPS):
        if index == 8:
            x = x * float("nan")
        step = course.begin(x, torch.full((2,), SIGMAS[index]))
        if isinstance(step, PipelinedStep):
            assert index < 8
            step.both(x * 0.9)
        else:
            step.finish(x * 0.9, x * 0.8, {"a": x})
        x = x * (SIGMAS[index + 1] + 0.1) / (SIGMAS[index] + 0.1)


@pytest.mark.parametrize(
    ("letters", "ideal"),
    [
        ("E" * 50, 2.0),
        ("E" * 45 + "p" * 5, 100 / 47.5),
        ("E" * 30 + "p" * 20, 2.5),
        ("L" * 10, 1.0),
        ("s" * 10 + "p" * 10, 20 / 15),
        ("", 1.0),
    ],
)
def test_ideal_ratio_is_step_arithmetic(letters, ideal):
    names = {letter: kind for kind, letter in LETTERS.items()}
    steps = [StepRecord(kind=names[letter]) for letter in letters]
    assert Report(steps=steps).ideal == pytest.approx(ideal)


def test_equal_neighbours_in_a_schedule_do_no_harm(monkeypatch):
    """Few noise levels in a model's table, or a short denoise: a step of no length."""
    for twin in range(1, STEPS - 1):
        sigmas = [*SIGMAS]
        sigmas[twin + 1] = sigmas[twin]
        monkeypatch.setattr(sys.modules[__name__], "SIGMAS", sigmas)
        torch.manual_seed(1)
        course = followed(Adaptive(1e9, step_lengths(sigmas, True), 5.0, 3), cfg=5.0)
        seen, _ = run(course, bend=3.0)
        assert torch.isfinite(seen).all() and "p" in course.kinds
        monkeypatch.undo()


def test_after_other_prompts_nothing_that_was_seen_is_used():
    torch.manual_seed(1)
    course, x = adaptive(1e9), torch.randn(SHAPE)
    for index in range(STEPS):
        cond = x - SIGMAS[index] * (0.5 if index < 9 else -0.5)
        prompts = "first" if index < 9 else "second"
        step = course.begin(x, torch.full((SHAPE[0],), SIGMAS[index]), prompts)
        if isinstance(step, PipelinedStep):
            step.both(cond)
        else:
            step.finish(cond, cond - SIGMAS[index] * 0.1, {"a": x})
        x = x + (x - cond) / SIGMAS[index] * (SIGMAS[index + 1] - SIGMAS[index])
    found = course.kinds
    assert "p" in found[:9] and found[9:12] == "EEE" and "p" in found[12:]


def test_parts_of_a_latent_are_watched_without_harm():
    """Context windows: several shapes at one sigma, none like the mask."""
    for mask in (torch.ones(1, 1, 8, 8), None):
        course = followed(Exact(), mask=mask)
        for sigma in SIGMAS[:4]:
            for width in (3, 3, 5):
                x = torch.randn(2, 4, 8, width)
                step = course.begin(x, torch.full((2,), sigma))
                assert not isinstance(step, PipelinedStep)
                assert step.finish(x * 0.5, x * 0.4) is None
        course.course.close()
        assert len(course.records) == 12
        if mask is not None:
            assert {record.discrepancy for record in course.records} == {None}

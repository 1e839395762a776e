"""The course of a run on samplers and a model that are known by formula."""

from __future__ import annotations

import pytest
import torch
from samplers import adams_bashforth, ancestral, euler, euler_cfg_pp, heun

from hybrid_core.config import Tuning
from hybrid_core.course import made_good
from hybrid_core.course.course import LOST, MOVED, NOISY, SEVERAL_CALLS, Course
from hybrid_core.course.matrix import trace
from hybrid_core.course.paper import Paper, PaperParameters
from hybrid_core.course.policy import Exact
from hybrid_core.course.steps import ForecastStep, PipelinedStep, Step
from hybrid_core.errors import NotLinear
from hybrid_core.telling.report import LETTERS, Report, StepRecord, kinds

STEPS = 20
SIGMAS = [1 - i / STEPS for i in range(STEPS + 1)]
SHAPE = (2, 4, 8, 8)
CFG = 5.0
BENT = 7


class Branches:
    """Two velocity fields that are lines in sigma until call BENT; boundaries are the latent."""

    def __init__(self, bend=0.0):
        generator = torch.Generator().manual_seed(0)
        self.bend = bend
        self.base, self.tilt, self.apart, self.turn = (
            torch.randn(SHAPE, generator=generator) for _ in "1234"
        )

    def cond(self, x, sigma):
        bent = self.bend * max(0.0, SIGMAS[BENT] - sigma)
        return x - sigma * (self.base + 0.3 * sigma * self.tilt + bent * self.turn)

    def uncond(self, x, sigma):
        bent = self.bend * max(0.0, SIGMAS[BENT] - sigma)
        away = self.apart + sigma * self.turn + bent * self.tilt
        return self.cond(x, sigma) + sigma * 0.1 * away


class Run:
    """One run, driven as the driver does it, without processes."""

    def __init__(self, course, sampler=euler, cfg=CFG, bend=0.0, sigmas=SIGMAS, **meddling):
        """meddling: moved (call -> added to its latent), prompts (call -> prompts), joined.

        cfgs (call -> cfg), and whether it is told before it shows.
        """
        self.course, self.cfg, self.branches = course, cfg, Branches(bend=bend)
        self.moved = meddling.get("moved", lambda call: 0.0)
        self.prompts = meddling.get("prompts", lambda call: ())
        self.joined = meddling.get("joined")
        self.cfgs, self.told = meddling.get("cfgs"), meddling.get("told", False)
        self.steps, self.asked, self.latents = [], [], []
        x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
        self.final = sampler(sigmas)(self.predict, x)
        course.close()

    def predict(self, x, sigma):
        call, level = len(self.steps), float(sigma[0])
        x = x + self.moved(call)
        self.latents.append(x)
        if self.cfgs is not None:
            self.cfg = self.cfgs(call)
        step = self.course.begin(x, sigma, self.prompts(call), self.cfg if self.told else None)
        self.steps.append(step)
        cond, uncond = self.branches.cond(x, level), self.branches.uncond(x, level)
        if self.cfg == 1:
            uncond = None
        if isinstance(step, ForecastStep):
            cond, uncond = step.both()
        elif isinstance(step, PipelinedStep):
            if step.ahead is not None:
                self.asked.append(step.ahead)
                self.course.keep_boundary(step.ahead.call, {"a": step.ahead.x})
            cond, uncond = step.both(cond)
        else:
            shift = step.finish(cond, uncond, {"a": x} if step.capture else None)
            if shift is not None:
                cond, uncond = cond + shift, None if uncond is None else uncond + shift
        denoised = cond if uncond is None else uncond + self.cfg * (cond - uncond)
        if self.joined is not None:
            denoised = self.joined(denoised)
            self.course.guided(denoised)
        return denoised, uncond

    @property
    def kinds(self):
        return kinds([step.record for step in self.steps])


def course(sampler=euler, mode="adaptive", sigmas=SIGMAS, cfg=CFG, mask=None, **tuning):
    settings = Tuning(**{"tolerance": 0.05, "kinds": frozenset(("forecast",)), **tuning})
    run = sampler(sigmas)
    return Course.of(mode, settings, sigmas, True, lambda: trace(run, sigmas[0], 100), mask, cfg)


def exact(sampler=euler, **more):
    return Run(Course(Exact(), SIGMAS), sampler, **more).final


def error(run, truth):
    return float((run.final - truth).norm() / truth.norm())


@pytest.mark.parametrize("sampler", [euler, euler_cfg_pp, adams_bashforth])
def test_predictions_that_are_lines_are_foreseen_without_error(sampler):
    run = Run(course(sampler), sampler)
    assert run.kinds.count("F") >= 8 and run.course.obstacle is None
    assert error(run, exact(sampler)) < 1e-4


def test_a_sampler_of_two_calls_a_step_is_foreseen():
    run = Run(course(heun, tolerance=0.02), heun)
    assert len(run.kinds) == 2 * STEPS - 1 and run.kinds.count("F") >= 8
    assert error(run, exact(heun)) < 0.02


@pytest.mark.parametrize("sampler", [euler, euler_cfg_pp, adams_bashforth])
def test_the_exact_call_after_a_gap_makes_good_what_the_gap_missed(sampler, monkeypatch):
    truth = Run(Course(Exact(), SIGMAS), sampler, bend=0.5).latents
    mended = Run(course(sampler, tolerance=1e9, largest_gap=3), sampler, bend=0.5)
    monkeypatch.setattr(made_good.MadeGood, "shift", lambda self, call: None)
    left = Run(course(sampler, tolerance=1e9, largest_gap=3), sampler, bend=0.5)
    assert mended.kinds == left.kinds and mended.kinds[BENT : BENT + 5] == "EFFFE"
    after = BENT + 5
    errors = [float((run.latents[after] - truth[after]).norm()) for run in (mended, left)]
    assert errors[0] < 0.3 * errors[1]


def test_a_pipelined_call_evaluates_cond_and_rebuilds_the_other():
    run = Run(course(tolerance=0.05, kinds=frozenset(("pipelined",))))
    assert run.kinds.count("p") >= 5 and "F" not in run.kinds
    assert error(run, exact()) < 1e-4


def test_stage_a_is_asked_for_where_the_next_pipelined_call_will_be():
    allowed = frozenset(("pipelined",))
    run = Run(course(cfg=1.0, tolerance=0.002, kinds=allowed), cfg=1.0, bend=3.0)
    assert run.asked
    for call, x, sigma in run.asked:
        assert run.kinds[call] == "p"
        assert float(sigma[0]) == pytest.approx(SIGMAS[call])
        assert float((x - run.latents[call]).norm()) < 0.02 * float(x.norm())


def test_without_look_ahead_stage_a_is_at_the_call_before():
    run = Run(course(look_ahead=False, kinds=frozenset(("pipelined",)), tolerance=1.0))
    assert run.asked
    for call, x, _ in run.asked:
        assert torch.equal(x, run.latents[call - 1])


def test_a_run_of_one_branch_is_a_chain_that_no_exact_call_breaks():
    run = Run(course(cfg=1.0, kinds=frozenset(("pipelined",))), cfg=1.0)
    chain = run.kinds.strip("E")
    assert len(chain) >= 10 and set(chain) == {"p"}
    assert all(step.record.guidance_drift is None for step in run.steps)


def test_a_run_of_one_branch_is_forecast_on_one_device():
    run = Run(course(cfg=1.0), cfg=1.0)
    assert run.kinds.count("F") >= 8 and "p" not in run.kinds
    assert error(run, exact(cfg=1.0)) < 1e-4


def test_no_tolerance_is_exact():
    run = Run(course(tolerance=0.0))
    assert run.kinds == "E" * STEPS and torch.equal(run.final, exact())


def test_noise_is_not_foreseen():
    run = course(ancestral, tolerance=1e9)
    assert run.obstacle == NOISY and not run.shortens


def test_a_sampler_that_is_no_matrix_runs_exact():
    def refused():
        raise NotLinear("it looks at what it is given")

    untraced = Course.of("adaptive", Tuning(), SIGMAS, True, refused, None, CFG)
    run = Run(untraced)
    assert run.kinds == "E" * STEPS and "looks" in run.course.obstacle
    assert all(step.record.discrepancy > 0 for step in run.steps)


def test_mode_paper_wants_one_call_a_step():
    assert course(heun, mode="paper").obstacle == SEVERAL_CALLS


def test_latents_that_something_moves_are_evaluated_in_full():
    def moved(call):
        return 0.5 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(call))

    run = Run(course(tolerance=1e9), moved=moved)
    assert run.kinds == "E" * STEPS and run.course.obstacle == MOVED


def test_evaluations_elsewhere_than_the_sampler_asked_for_are_in_full():
    run = Run(course(tolerance=1e9), heun)
    assert run.kinds == "E" * (2 * STEPS - 1) and run.course.obstacle == LOST
    assert all(step.record.discrepancy is not None for step in run.steps)


def test_what_a_guidance_function_makes_is_what_the_sampler_gets():
    def rescaled(denoised):
        return 0.8 * denoised

    told = Run(course(), joined=rescaled)
    assert told.kinds.count("F") >= 8
    untold = course()
    untold.guided = lambda denoised: None
    assert Run(untold, joined=rescaled).course.obstacle == MOVED


def test_a_latent_that_is_not_finite_is_evaluated_in_full():
    run = Run(course(tolerance=1e9), moved=lambda call: float("nan") if call == 8 else 0.0)
    assert "F" in run.kinds[:8] and set(run.kinds[8:]) == {"E"}


@pytest.mark.parametrize("twin", range(1, STEPS - 1))
def test_equal_neighbours_in_a_schedule_do_no_harm(twin):
    """Few noise levels in a model's table, or a short denoise: a step of no length."""
    sigmas = [*SIGMAS]
    sigmas[twin + 1] = sigmas[twin]
    run = Run(course(sigmas=sigmas, tolerance=0.05), sigmas=sigmas)
    truth = Run(Course(Exact(), sigmas), sigmas=sigmas).final
    assert "F" in run.kinds and error(run, truth) < 0.02


def test_after_other_prompts_nothing_that_was_seen_is_used():
    run = Run(course(tolerance=1e9), prompts=lambda call: call >= 9)
    assert "F" in run.kinds[:9] and run.kinds[9:12] == "EEE" and "F" in run.kinds[12:]


@pytest.mark.parametrize(("told", "noticed"), [(True, 9), (False, 10)])
def test_after_another_cfg_nothing_that_was_seen_is_used(told, noticed):
    changing = {"cfgs": lambda call: 5.0 if call < 9 else 2.0, "joined": lambda given: given}
    run = Run(course(tolerance=1e9), told=told, **changing)
    assert "F" in run.kinds[:9] and run.kinds[noticed : noticed + 3] == "EEE"
    assert "F" in run.kinds[noticed + 3 :] and run.course.obstacle is None


def test_a_guidance_function_is_no_other_cfg():
    told = Run(course(tolerance=1e9), joined=lambda given: 0.8 * given)
    assert told.kinds == Run(course(tolerance=1e9)).kinds


def test_a_mask_says_what_counts():
    """What is not denoised may be anything."""
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1.0
    outside = 1.0 - mask

    def moved(call):
        return outside * torch.randn(SHAPE, generator=torch.Generator().manual_seed(call))

    run = Run(course(mask=mask), moved=moved)
    assert run.kinds.count("F") >= 8 and run.course.obstacle is None


def test_parts_of_a_latent_are_watched_without_harm():
    """Context windows: several shapes at one sigma, none like the mask."""
    for mask in (torch.ones(1, 1, 8, 8), None):
        followed = course(mask=mask, tolerance=1e9)
        records = []
        for sigma in SIGMAS[:4]:
            for width in (3, 3, 5):
                x = torch.randn(2, 4, 8, width)
                step = followed.begin(x, torch.full((2,), sigma))
                assert not isinstance(step, ForecastStep | PipelinedStep)
                assert step.finish(x * 0.5, x * 0.4) is None
                records.append(step.record)
        followed.close()
        assert len(records) == 12
        assert (mask is None) == any(record.discrepancy for record in records)


def test_paper_returns_one_prediction_for_both_branches():
    policy = Paper(PaperParameters(window=3, slope=10.0, length=4, cap=6), STEPS)
    matrix = trace(euler(SIGMAS), SIGMAS[0], 100)
    followed, same, x = Course(policy, SIGMAS, matrix, look_ahead=False), [], torch.randn(SHAPE)
    branches = Branches()
    for call in range(STEPS):
        step = followed.begin(x, torch.full((2,), SIGMAS[call]))
        cond = branches.cond(x, SIGMAS[call])
        if isinstance(step, PipelinedStep):
            same.append(all(one is cond for one in step.both(cond)))
            followed.keep_boundary(call + 1, {"a": x})
        else:
            step.finish(cond, branches.uncond(x, SIGMAS[call]), {"a": x})
        x = x + (x - cond) / SIGMAS[call] * (SIGMAS[call + 1] - SIGMAS[call])
    assert same == [True] * len(same) and same
    assert policy.tau2 - policy.tau1 == 4


def test_records_say_what_a_call_showed_and_what_was_weighed():
    run = Run(course())
    first = run.kinds.index("F")
    assert run.steps[first].record.drift <= 0.05 and run.steps[first].record.discrepancy is None
    before = run.steps[first - 1].record
    assert before.discrepancy > 0 and before.own_drift >= 0 and before.guidance_drift >= 0
    assert [step.record.step for step in run.steps] == list(range(STEPS))


def test_an_evaluation_aside_teaches_nothing():
    step = Step.aside()
    assert step.finish(torch.ones(1), None) is None and step.in_full() is step


@pytest.mark.parametrize(
    ("letters", "ideal"),
    [
        ("E" * 50, 2.0),
        ("E" * 45 + "p" * 5, 100 / 47.5),
        ("E" * 30 + "p" * 20, 2.5),
        ("E" * 30 + "F" * 20, 100 / 30),
        ("L" * 10, 1.0),
        ("L" * 30 + "F" * 20, 50 / 30),
        ("s" * 10 + "p" * 10, 20 / 15),
        ("s" * 10 + "F" * 10, 2.0),
        ("", 1.0),
    ],
)
def test_ideal_ratio_is_step_arithmetic(letters, ideal):
    names = {letter: kind for kind, letter in LETTERS.items()}
    steps = [StepRecord(kind=names[letter]) for letter in letters]
    assert Report(steps=steps).ideal == pytest.approx(ideal)

"""The Parallelism stage: where it runs, what it gives, and that nothing is lost by it."""

from __future__ import annotations

import math

import comfy.context_windows
import comfy.model_management
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from comfy.samplers import CFGGuider, KSampler, sampler_object
from helpers import FORESEEN, FREE, Watched, bring_up, empty_latent, relative, sample

from hybrid_core.comfy_bridge import demo_models, support
from hybrid_core.course.course import NOISY, SEVERAL_CALLS
from hybrid_core.course.paper import Paper, PaperParameters
from hybrid_core.course.policy import Seen
from hybrid_core.driver.pipeline import ONE_EACH, Pipeline
from hybrid_core.errors import NotPartitionable
from hybrid_core.stages.swap import Splitter
from hybrid_core.telling.report import kinds
from hybrid_core.transport.arenas.host_arena import HostArena

KINDS = list(demo_models.KINDS)
CLOSE = 0.2  # relative, of latents that a fixed schedule is to leave alike
EQUAL = 1e-4
PAPER = {"window": 9, "slope": 1e9, "length": 30}
UNSAFE = [
    *(("paper", PAPER, sampler, SEVERAL_CALLS) for sampler in ("heun", "dpm_2")),
    *(("paper", PAPER, sampler, NOISY) for sampler in ("dpmpp_sde", "euler_ancestral")),
    *(("adaptive", FREE, sampler, NOISY) for sampler in ("dpmpp_sde", "dpmpp_2m_sde", "lcm")),
    ("adaptive", FREE, "dpm_adaptive", "evaluates the model more than"),
]


def pipelined(demo, session, kind, mode="adaptive", tuning=None, **settings):
    """Latents and report of a run in which every step was shared, and KSampler's latents."""
    bring_up(session, demo[kind])
    watched = Watched(demo[kind], session, mode, **(FREE if tuning is None else tuning))
    sample(watched.model, kind, **{**settings, "steps": 3})  # settles the cut
    watched.reports.clear()
    seen = sample(watched.model, kind, **{"steps": 12, "cfg": 2.0, **settings})
    (report,) = watched.reports
    assert watched.announced == []
    assert report.local == 0 and report.reasons == []
    assert torch.isfinite(seen).all()
    return seen, sample(demo[kind], kind, **{"steps": 12, "cfg": 2.0, **settings}), report


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("sampler", ["euler", "ddim", "dpmpp_2m", "res_multistep"])
def test_adaptive_pipelines_samplers_that_call_once_a_step(demo, session, kind, sampler, batch):
    seen, expected, report = pipelined(
        demo, session, kind, sampler=sampler, scheduler="simple", latent=empty_latent(batch)
    )
    assert kinds(report.steps).startswith(("EEEEp", "EEEEEp"))
    assert report.pipelined >= 3 and report.partitioned + report.pipelined == 12
    assert relative(seen, expected) < CLOSE
    assert not torch.equal(seen, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_no_tolerance_is_mode_exact(demo, session, kind):
    seen, expected, report = pipelined(demo, session, kind, tuning={"tolerance": 0.0})
    assert report.partitioned == 12 and report.pipelined == 0
    assert relative(seen, expected) < EQUAL


@pytest.mark.parametrize("kind", KINDS)
def test_a_lower_tolerance_is_closer(demo, session, kind):
    errors, counts = [], []
    for tolerance in (1e-4, 4e-3, 1e9):
        seen, expected, report = pipelined(
            demo, session, kind, tuning={"tolerance": tolerance}, steps=30
        )
        errors.append(relative(seen, expected))
        counts.append(report.forecast + report.pipelined)
    assert counts == sorted(counts) and counts[0] < counts[-1]
    assert errors[0] <= errors[1] <= errors[-1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("mode", "tuning", "sampler", "why"), UNSAFE)
def test_samplers_that_are_not_safe_run_exact_and_say_why_once(
    demo, session, kind, mode, tuning, sampler, why
):
    bring_up(session, demo[kind])
    watched = Watched(demo[kind], session, mode, **tuning)
    seen = sample(watched.model, kind, sampler=sampler, steps=12, cfg=2.0)
    (report,) = watched.reports
    assert report.pipelined == 0 and report.local == 0
    assert why in report.unshortened and watched.announced == []
    assert relative(seen, sample(demo[kind], kind, sampler=sampler, steps=12, cfg=2.0)) < EQUAL


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_of_different_lengths_are_pipelined(demo, session, kind, monkeypatch):
    ((vectors, extra),) = demo_models.conditioning(kind, "blue, sand")
    negative = [[torch.cat([vectors, vectors[:, :3]], 1), extra]]
    stage_b, calls = Splitter.stage_b, []
    monkeypatch.setattr(
        Splitter, "stage_b", lambda self, *args: (calls.append(1), stage_b(self, *args))[1]
    )
    far = {**FREE, "largest_gap": 12}
    seen, expected, report = pipelined(demo, session, kind, tuning=far, steps=30, negative=negative)
    assert report.pipelined >= 12
    assert report.pipelined <= len(calls) <= report.pipelined + 1, "and one check of the cut"
    assert relative(seen, expected) < CLOSE


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_run_gives_the_same_bits(demo, session, kind):
    first, _, report = pipelined(demo, session, kind)
    again, _, other = pipelined(demo, session, kind)
    assert torch.equal(first, again)
    assert report.cut == other.cut is not None


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m"])
def test_one_branch_of_a_unet_is_pipelined_by_mode_adaptive(demo, session, sampler):
    seen, expected, report = pipelined(
        demo, session, "unet", sampler=sampler, scheduler="simple", cfg=1.0
    )
    assert report.pipelined >= 4 and report.partitioned == 0
    assert report.pipelined + report.single == 12
    assert report.ideal == pytest.approx(12 / (12 - report.pipelined / 2))
    assert 0 < relative(seen, expected) < CLOSE
    drifts = [step.feature_drift for step in report.steps if step.feature_drift is not None]
    assert drifts and all(math.isfinite(drift) and drift > 0 for drift in drifts)


@pytest.mark.parametrize("kind", KINDS)
def test_adaptive_keeps_what_an_inpaint_mask_leaves_out(demo, session, kind):
    latent = {"samples": torch.randn(1, 48, 16, 16), "noise_mask": torch.zeros(1, 64, 64)}
    latent["noise_mask"][:, :, 32:] = 1.0
    seen, expected, report = pipelined(demo, session, kind, latent=latent)
    assert report.pipelined >= 3
    assert relative(seen, expected) < CLOSE
    assert torch.allclose(seen[..., :8], latent["samples"][..., :8], atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_masked_positives_and_an_area_are_pipelined(demo, session, kind):
    left = torch.zeros(1, 64, 64)
    left[:, :, :32] = 1.0
    positive = []
    for words, mask in (("red circle, sky", left), ("green square, sand", 1 - left)):
        ((vectors, extra),) = demo_models.conditioning(kind, words)
        positive.append([vectors, {**extra, "mask": mask, "mask_strength": 0.8}])
    ((vectors, extra),) = demo_models.conditioning(kind, "red circle")
    area = [[vectors, {**extra, "area": (8, 8, 4, 4), "strength": 0.7}]]
    for conds in (positive, positive + area):
        seen, expected, report = pipelined(demo, session, kind, positive=conds)
        assert report.pipelined >= 3
        assert relative(seen, expected) < CLOSE


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_that_takes_over_in_mid_run_is_seen_anew(demo, session, kind):
    halves = []
    for words, start in (("red circle", 0.0), ("green square", 0.5)):
        ((vectors, extra),) = demo_models.conditioning(kind, words)
        halves.append([vectors, {**extra, "start_percent": start, "end_percent": start + 0.5}])
    seen, expected, report = pipelined(
        demo, session, kind, positive=halves, steps=24, scheduler="simple"
    )
    sampling = demo[kind].get_model_object("model_sampling")
    half = sampling.percent_to_sigma(0.5)
    first = next(step.step for step in report.steps if step.sigma < half)
    course = kinds(report.steps)
    assert "p" in course[:first] and course[first : first + 3] == "EEE" and "p" in course[first:]
    assert relative(seen, expected) < CLOSE


class Wrapped:
    """Another pack's way into the network's forward passes."""

    def __init__(self):
        self.calls = 0

    def __call__(self, executor, *args, **keywords):
        self.calls += 1
        return executor(*args, **keywords) * 0.9


@pytest.mark.parametrize("cfg", [1.0, 2.0])
def test_other_packs_wrappers_take_part_in_every_step_of_a_local_run(demo, session, cfg):
    kind, images, calls = "mmdit", [], []
    bring_up(session, demo[kind])
    watched = Watched(demo[kind], session, "adaptive", **FREE)
    for model in (watched.model, demo[kind]):
        wrapped, wrapper = model.clone(), Wrapped()
        wrapped.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "another pack", wrapper)
        images.append(sample(wrapped, kind, steps=4, cfg=cfg))
        calls.append(wrapper.calls)
    assert "another node wraps 'apply_model'" in watched.announced[0]
    assert calls[0] == calls[1] and torch.equal(*images)


def test_a_sampling_object_changed_in_mid_run_is_not_shared(demo, session):
    model = demo["mmdit"]
    bring_up(session, model)

    def around(executor, *args, **keywords):
        sampling = model.model.model_sampling
        before, sampling.multiplier = sampling.multiplier, 800
        try:
            return executor(*args, **keywords)
        finally:
            sampling.multiplier = before

    wrapped = model.clone()
    wrapped.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, "another pack", around)
    for one, shared in ((model, 3), (wrapped, 0), (model, 3)):
        watched = Watched(one, session, "exact")
        seen, expected = sample(watched.model, "mmdit", steps=3), sample(one, "mmdit", steps=3)
        assert watched.reports[-1].partitioned == shared
        assert relative(seen, expected) < 1e-4
        assert [*watched.reports[-1].reasons] == [] or "the model's sampling" in watched.announced[
            0
        ]


@pytest.mark.parametrize(
    ("value", "fine"),
    [
        ({"start_frame": 0, "kv_caches": [{"k": torch.zeros(1), "end": 0}]}, False),
        ([[torch.zeros(1)]], False),
        ({"mask": torch.zeros(1)}, True),
        (torch.zeros(1), True),
        ({"block": {"index": [1]}}, True),
    ],
)
def test_a_memory_in_the_options_is_not_shared(value, fine):
    options = {"transformer_options": {"ar_state": value, "patches": {"attn": [{}]}}}
    if fine:
        support.check_around(options)
    else:
        with pytest.raises(NotPartitionable, match="remembers what it has seen .*ar_state"):
            support.check_around(options)


class Varying(CFGGuider):
    """cfg 1, but not in the middle steps: what CFGOverride does."""

    def predict_noise(self, x, timestep, model_options=None, seed=None):
        self.cfg = 3.0 if 0.4 < timestep[0] < 0.72 else 1.0
        return super().predict_noise(x, timestep, model_options or {}, seed)


def test_steps_with_a_cfg_of_their_own_in_a_run_at_cfg_1(demo, session):
    kind, results = "unet", []
    bring_up(session, demo[kind])
    watched = Watched(demo[kind], session, "adaptive", **FREE)
    for model in (watched.model, demo[kind]):
        guider = Varying(model)
        guider.set_conds(*(demo_models.conditioning(kind, words) for words in ("red", "blue")))
        guider.set_cfg(1.0)
        with torch.inference_mode():
            results.append(
                guider.sample(
                    torch.randn(1, 48, 16, 16, generator=torch.manual_seed(1)),
                    torch.zeros(1, 48, 16, 16), sampler_object("euler"),
                    torch.linspace(1, 0, 21), seed=1,
                )
            )  # fmt: skip
    (report,) = watched.reports
    assert report.reasons == [] and report.local == 0
    assert report.partitioned == 6 and report.pipelined >= 3
    assert relative(*results) < CLOSE


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", range(1, 9))
def test_any_small_number_of_steps_is_shared(demo, session, kind, steps):
    bring_up(session, demo[kind])
    watched = Watched(demo[kind], session, "adaptive")
    seen = sample(watched.model, kind, steps=steps, cfg=2.0)
    (report,) = watched.reports
    assert report.partitioned + report.pipelined == steps
    assert relative(seen, sample(demo[kind], kind, steps=steps, cfg=2.0)) < CLOSE


def published(model, kind, steps, cfg, window, latent, cut):
    """The paper's scheme in a plain loop: Euler, one process, the splitter alone."""
    network, network_model = model.model.diffusion_model, model.model
    splitter, sigmas = Splitter(network), None
    sigmas = KSampler(model, steps, model.load_device, scheduler="normal").sigmas
    branches = []
    for words in ("cat, noto, sky background", "blue, sand"):
        ((vectors, extra),) = demo_models.conditioning(kind, words)
        vectors, pooled = vectors.to(sigmas.device), extra["pooled_output"].to(sigmas.device)
        y = {"y": pooled} if network_model.adm_channels else {}
        branches.append({"c_crossattn": vectors, **y})
    x = network_model.model_sampling.noise_scaling(
        sigmas[0], latent, torch.zeros_like(latent), True
    )
    boundary = None
    for step in range(steps):
        sigma = sigmas[step].reshape(1)

        def forward(branch, x=x, sigma=sigma):
            return lambda: network_model.apply_model(x, sigma, **branches[branch])

        if window[0] <= step < window[1]:
            denoised = splitter.stage_b(forward(0), cut, boundary)
            boundary = splitter.stage_a(forward(1), cut.last)
        else:
            cond, _ = splitter.record(forward(0))
            uncond, boundary = splitter.capture(forward(1), cut.last)
            denoised = uncond + cfg * (cond - uncond)
        x = x + (x - denoised) / sigma * (sigmas[step + 1] - sigmas[step])
    return x


@pytest.mark.parametrize("kind", KINDS)
def test_paper_is_the_published_scheme(demo, session, kind):
    model, steps = demo[kind], 20
    tuning = {"window": 10, "slope": 1e9, "length": 13, "cap": 15}  # 4, any, 5, 6 of 20 steps
    seen, _, report = pipelined(demo, session, kind, "paper", tuning, steps=steps)
    curve = [s.discrepancy for s in report.steps]
    policy = Paper(PaperParameters(10, 1e9, 13, 15).scaled(steps), steps)
    for step, value in enumerate(curve[:8]):
        if value is not None:
            policy.saw(step, Seen(value))
    assert report.tau is not None
    assert report.tau[1] == policy.tau2 == policy.tau1 + 5
    assert kinds(report.steps)[report.tau[0] : report.tau[1]].strip("p") == ""
    noise = torch.randn(1, 48, 16, 16, generator=torch.Generator().manual_seed(1))
    cut = session.cuts[model.model][(1, 48, 16, 16)]
    with torch.inference_mode():
        noise = noise.to(model.load_device)
        expected = published(model, kind, steps, 2.0, report.tau, noise, cut)
    expected = model.model.process_latent_out(expected).cpu()
    assert relative(seen, expected) < 1e-3


def test_paper_does_not_mix_regional_prompts(demo, session):
    kind = "unet"
    bring_up(session, demo[kind])
    area = demo_models.conditioning(kind, "red circle")
    area = [[area[0][0], {**area[0][1], "area": (8, 8, 4, 4), "strength": 0.7}]]
    positive = demo_models.conditioning(kind, "red circle") + area
    watched = Watched(demo[kind], session, "paper", window=2, slope=1e9, length=20)
    seen = sample(watched.model, kind, steps=20, cfg=2.0, positive=positive)
    assert watched.reports[0].pipelined == 0
    assert watched.reports[-1].unshortened == ONE_EACH
    assert relative(seen, sample(demo[kind], kind, steps=20, cfg=2.0, positive=positive)) < EQUAL


@pytest.mark.parametrize("mode", ["exact", "adaptive"])
def test_context_windows_are_shared(demo, session, mode):
    kind = "mmdit"
    bring_up(session, demo[kind])
    watched = Watched(demo[kind], session, mode, **(FORESEEN if mode == "adaptive" else {}))
    handler = comfy.context_windows.IndexListContextHandler(
        comfy.context_windows.get_matching_context_schedule("standard_static"),
        comfy.context_windows.get_matching_fuse_method("pyramid"),
        context_length=12,
        context_overlap=4,
        dim=2,
    )
    outs = []
    for model in (watched.model, demo[kind]):
        windowed = model.clone()
        windowed.model_options["context_handler"] = handler
        outs.append(sample(windowed, kind, steps=6, cfg=2.0))
    (report,) = watched.reports
    assert (report.partitioned, report.local, report.forecast) == (12, 0, 0)
    assert watched.announced == [] and relative(*outs) < EQUAL


@pytest.mark.parametrize("when", ["exact", "pipelined"])
def test_worker_killed_in_mid_run_loses_nothing(session, demo, monkeypatch, when):
    kind = "unet"
    bring_up(session, demo[kind])
    watched, evaluate, asked = Watched(demo[kind], session, "adaptive", **FREE), [], []
    original = Pipeline.plan

    def killing(self, *args, **keywords):
        asked.append(1)
        if len(asked) == (2 if when == "exact" else 3):
            session.holdings().worker._process.kill()
        return original(self, *args, **keywords)

    monkeypatch.setattr(Pipeline, "plan", killing)
    seen = sample(watched.model, kind, steps=16, cfg=2.0)
    monkeypatch.undo()
    (report,) = watched.reports
    assert evaluate == []
    assert report.local > 0 and "evaluated in this process alone" in watched.announced[0]
    assert relative(seen, sample(demo[kind], kind, steps=16, cfg=2.0)) < CLOSE
    bring_up(session, demo[kind])
    again = Watched(demo[kind], session, "adaptive", **FREE)
    sample(again.model, kind, steps=16, cfg=2.0)
    assert again.reports[0].local == 0 and again.reports[0].pipelined > 0


def test_cancel_in_the_parallelism_stage(session, demo, monkeypatch):
    kind = "mmdit"
    bring_up(session, demo[kind])
    pid, write, original = session.holdings().worker.pid, HostArena.write, Pipeline.plan
    armed = []

    def arming(self, *args, **keywords):
        armed.append(1)
        return original(self, *args, **keywords)

    def interrupting(self, number, tensors):
        if len(armed) == 3:
            armed.append(1)
            comfy.model_management.interrupt_current_processing()
        return write(self, number, tensors)

    monkeypatch.setattr(Pipeline, "plan", arming)
    monkeypatch.setattr(HostArena, "write", interrupting)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(Watched(demo[kind], session, "adaptive", **FREE).model, kind, steps=30, cfg=2.0)
    monkeypatch.undo()
    watched = Watched(demo[kind], session, "adaptive", **FREE)
    sample(watched.model, kind, steps=12, cfg=2.0)
    assert watched.reports[0].local <= 1 and watched.reports[0].pipelined >= 3
    assert session.holdings().worker.pid == pid, "Cancel does not cost the worker"


def test_a_network_that_cannot_be_cut_runs_exact_and_says_why(own_session, demo, monkeypatch):
    kind, session = "unet", own_session()
    bring_up(session, demo[kind])
    original = Splitter.stage_b
    monkeypatch.setattr(Splitter, "stage_b", lambda *args: original(*args) * 1.01)
    watched = Watched(demo[kind], session, "adaptive", **FREE)
    seen = sample(watched.model, kind, steps=8, cfg=2.0)
    assert watched.reports[0].pipelined == 0 and watched.reports[0].local == 0
    assert "gives another result" in watched.reports[0].unshortened
    assert relative(seen, sample(demo[kind], kind, steps=8, cfg=2.0)) < EQUAL


@pytest.mark.parametrize("mode", ["adaptive", "paper"])
def test_features_too_large_for_the_shared_memory(own_session, demo, monkeypatch, mode):
    kind, session = "mmdit", own_session(slot_bytes=64 << 10)
    bring_up(session, demo[kind])
    watched = Watched(demo[kind], session, mode, **FREE)
    monkeypatch.setattr(Splitter, "capture", None)  # nothing of that size is copied
    seen = sample(watched.model, kind, steps=8, cfg=2.0)
    assert (watched.reports[0].partitioned, watched.reports[0].local) == (8, 0)
    assert "larger than the shared memory" in watched.reports[0].unshortened
    assert relative(seen, sample(demo[kind], kind, steps=8, cfg=2.0)) < EQUAL


def test_report_says_what_each_step_was(demo, session):
    _, _, report = pipelined(demo, session, "mmdit")
    data = report.data()
    exact = [step for step in data["steps"] if step["kind"] == "exact"]
    assert all(step["discrepancy"] > 0 for step in exact)
    course = kinds(report.steps)
    assert course.startswith(("EEEEpEpp", "EEEEEpEpp")), "one more in full where the cut moved"
    count, first, last = course.count("p"), course.index("p"), course.rindex("p") + 1
    assert [step["kind"] for step in data["steps"]].count("pipelined") == data["pipelined"] == count
    assert (data["tau1"], data["tau2"]) == (first, last) and count >= 3
    assert data["ideal"] == pytest.approx(24 / (12 - count / 2), abs=1e-3)
    assert all(data["ms"][name] > 0 for name in ("exact_own", "pipelined_own", "worker_stage"))
    assert data["bytes_sent"] > 8 * 48 * 16 * 16 * 4
    assert data["bytes_received"] > data["partitioned"] * 48 * 16 * 16 * 4
    line = report.line()
    words = f"{count} of them pipelined, between step {first + 1} and {last}, "
    assert f"{words}ideal {data['ideal']:.2f}x, steps {course}" in line
    assert f"discrepancy {exact[0]['discrepancy']:.3f} at first" in line

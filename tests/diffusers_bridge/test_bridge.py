"""Pipelines of diffusers: what is shared, what it gives, and that nothing is lost by it."""

from __future__ import annotations

import ast
import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from diffusers import EulerDiscreteScheduler
from pipelines import STEPS, TINY, ddim, network, sd3, sdxl, shared, short
from tensors import relative

import hybrid_core.diffusers_bridge
from hybrid_core.config import Tuning
from hybrid_core.course.adaptive import LAST_EXACT
from hybrid_core.course.paper import Paper
from hybrid_core.course.policy import PIPELINED, Seen
from hybrid_core.diffusers_bridge.attach import hybrid
from hybrid_core.driver import tokens
from hybrid_core.errors import ConfigError
from hybrid_core.telling.report import kinds
from hybrid_core.workers.process.host import Host

EQUAL = 1e-4
CLOSE = 0.02
# fixed schedules
FREE = Tuning(tolerance=1e9, largest_gap=2, kinds=frozenset(("pipelined",)))
FORESEEN = Tuning(tolerance=1e9, largest_gap=2, kinds=frozenset(("forecast",)))
ANY = "EEEEpEppEppEppEppEppEppEppEppEppEppEppEppEppEppEpp"


def fixed(steps):
    """Its kinds of steps."""
    return ANY[: steps - LAST_EXACT] + "E" * LAST_EXACT


@pytest.fixture(scope="module", params=TINY)
def case(request):
    """A tiny pipeline's name, its call, and what the pipeline gives by itself."""
    call = TINY[request.param]()
    return request.param, call, call[0](**call[1]).images


def test_mode_exact_shares_every_step_and_changes_nothing(case, pool):
    _, call, plain = case
    seen, report = shared(call, "exact", pool)
    assert (report.partitioned, report.local, report.reasons) == (STEPS, 0, [])
    assert relative(seen, plain) < EQUAL


def test_several_images_in_a_call_are_pipelined(case, pool):
    call, plain = short(TINY[case[0]](batch=3), 12)
    seen, report = shared(call, "adaptive", pool, tuning=FREE)
    assert seen.shape[0] == 3 and kinds(report.steps) == fixed(12)
    assert EQUAL < relative(seen, plain) < CLOSE


@pytest.mark.parametrize(("mode", "batch"), [("exact", 2), ("adaptive", 3)])
def test_several_images_without_guidance_are_divided(case, pool, mode, batch):
    pipe, arguments = TINY[case[0]](batch=batch)
    call, plain = short((pipe, {**arguments, "guidance_scale": 1.0}), 6)
    seen, report = shared(call, mode, pool)
    assert kinds(report.steps) == "d" * 6 and report.reasons == []
    assert relative(seen, plain) < EQUAL


def test_half_precision_is_pipelined_and_stays_close(pool):
    pipe, arguments = sd3()
    halves = {k: v.bfloat16() if torch.is_tensor(v) else v for k, v in arguments.items()}
    call, plain = short((pipe.to(torch.bfloat16), halves), 12)
    seen, report = shared(call, "adaptive", pool, tuning=FREE)
    assert seen.dtype == torch.bfloat16 and kinds(report.steps) == fixed(12)
    assert relative(seen, plain) < 2.5 * CLOSE


def replayed(report, flow):
    """Kinds of steps and the policy of mode paper, from the discrepancies of `report`."""
    policy, found = Paper.tuned(Tuning(), STEPS, flow), ""
    for step, record in enumerate(report.steps):
        kind, _ = policy.choose(step, True)
        found += "p" if kind == PIPELINED else "E"
        policy.did(step, kind)
        if found[-1] == "E" and record.discrepancy is not None:
            policy.saw(step, Seen(record.discrepancy))
    return found, policy


def test_mode_paper_takes_the_published_window(case, pool):
    name, call, plain = case
    seen, report = shared(call, "paper", pool)
    found, policy = replayed(report, name == "sd3")
    assert kinds(report.steps) == found
    assert report.tau[1] == policy.tau2 == policy.tau1 + 5
    # a window that ends by its slope has been evaluated at tau1 already
    assert report.tau[0] - policy.tau1 == (policy.tau1 < (40 if name == "sd3" else 15))
    assert report.pipelined == report.tau[1] - report.tau[0]
    assert report.partitioned == STEPS - report.pipelined
    assert EQUAL < relative(seen, plain) < 0.1


def test_mode_adaptive_pipelines_and_stays_close(case, pool):
    _, call, plain = case
    seen, report = shared(call, "adaptive", pool, tuning=FREE)
    again, other = shared(call, "adaptive", pool, tuning=FREE)
    assert kinds(report.steps) == fixed(STEPS)
    assert report.local == 0 and report.reasons == []
    assert EQUAL < relative(seen, plain) < CLOSE
    assert kinds(report.steps) == kinds(other.steps) and torch.equal(seen, again)
    assert report.cut is not None and report.bytes_received > 0


def test_mode_adaptive_foresees_and_stays_close(case, pool):
    call, plain = short(case[1], 24)
    seen, report = shared(call, "adaptive", pool, tuning=FORESEEN)
    assert kinds(report.steps) == "EEEFEFFEFFEFFEFFEFFEFEEE"
    assert report.local == 0 and report.reasons == [] and report.unshortened is None
    assert EQUAL < relative(seen, plain) < CLOSE


def test_no_tolerance_is_mode_exact(case, pool):
    call, plain = short(case[1], 12)
    seen, report = shared(call, "adaptive", pool, tuning=Tuning(tolerance=0.0))
    assert report.partitioned == 12
    assert relative(seen, plain) < EQUAL


@pytest.mark.parametrize("name", ["v_prediction", "euler"])
def test_other_schedulers_pipeline_too(pool, name):
    velocity = ddim(prediction_type="v_prediction")
    euler = EulerDiscreteScheduler.from_config(ddim().config)
    call, plain = short(sdxl(scheduler=velocity if name == "v_prediction" else euler), 24)
    seen, report = shared(call, "adaptive", pool, tuning=FREE)
    assert kinds(report.steps) == fixed(24)
    assert EQUAL < relative(seen, plain) < 2.5 * CLOSE


def test_a_scheduler_without_a_known_schedule_is_shared_exactly(pool):
    call, plain = short(sdxl(scheduler=ddim(prediction_type="sample")), 8)
    seen, report = shared(call, "adaptive", pool, tuning=FREE)
    assert (report.partitioned, report.pipelined) == (8, 0)
    assert "prediction type 'sample' is not known" in report.unshortened and report.reasons == []
    assert relative(seen, plain) < EQUAL


def test_calls_of_one_attachment_are_reported_one_by_one(case, pool):
    (pipe, arguments), plain = short(case[1], 8)
    told, other = [], {**arguments, "prompt_embeds": -arguments["prompt_embeds"]}
    expected = pipe(**other).images
    with hybrid(pipe, "exact", pool=pool, on_report=told.append, wait_seconds=120) as reports:
        first, second = pipe(**arguments).images, pipe(**other).images
        assert told == reports[:1]
    assert told == reports and [report.partitioned for report in reports] == [8, 8]
    assert relative(first, plain) < EQUAL and relative(second, expected) < EQUAL


def test_the_pipeline_is_as_before(case, pool):
    (pipe, arguments), plain = short(case[1], 16)
    before, config = dict(vars(network(pipe))), dict(pipe.config)

    class Halt(Exception):
        pass

    def halt(_, step, *__):
        if step == 12:
            raise Halt
        return {}

    with hybrid(pipe, "adaptive", FREE, pool, wait_seconds=120) as reports:
        assert vars(network(pipe)) != before
        pipe(**arguments)
        with pytest.raises(Halt):
            pipe(**arguments, callback_on_step_end=halt)
    assert kinds(reports[1].steps) == ANY[:13]
    assert vars(network(pipe)) == before and dict(pipe.config) == config
    assert torch.equal(pipe(**arguments).images, plain)
    seen, report = shared((pipe, arguments), "exact", pool)
    assert report.local == 0, "what was under way does not disturb the next call"
    assert relative(seen, plain) < EQUAL


# what is not shared


def test_mode_off_and_an_unknown_mode():
    pipe, _ = sd3()
    with hybrid(pipe, "off") as reports:
        assert "forward" not in vars(network(pipe))
    assert reports == []
    with pytest.raises(ConfigError, match="mode is 'fast'"), hybrid(pipe, "fast"):
        pass


def test_one_image_of_a_transformer_without_guidance_is_divided_by_tokens(pool, monkeypatch):
    monkeypatch.setattr(tokens, "TRIES", 10**6)  # so small a one may not pay
    pipe, arguments = TINY["sd3"]()
    call, plain = short((pipe, {**arguments, "guidance_scale": 1.0}), 4)
    seen, report = shared(call, "exact", pool)
    assert kinds(report.steps) == "dddd" and report.reasons == []
    assert all(step.divides == "tokens" and step.gathers for step in report.steps)
    assert relative(seen, plain) < EQUAL


def test_one_image_of_a_unet_without_guidance_is_not_shared(pool):
    pipe, arguments = TINY["sdxl"]()
    call, plain = short((pipe, {**arguments, "guidance_scale": 1.0}), 4)
    seen, report = shared(call, "adaptive", pool)
    assert report.single == 4 and report.partitioned == 0
    assert "without guidance and of one picture" in report.line()
    assert torch.equal(seen, plain)


def changed_forward(pipe, arguments):
    pipe.unet.forward = pipe.unet.forward


def free_u(pipe, arguments):
    pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.3, b2=1.4)


def lora(pipe, arguments):
    pipe.unet.peft_config = {"default": object()}


def attention_keywords(pipe, arguments):
    arguments["cross_attention_kwargs"] = {"scale": 1.0}


def another_class(pipe, arguments):
    pipe.unet.__class__ = type("Mine", (type(pipe.unet),), {})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed_forward, "another tool has replaced the forward pass"),
        (free_u, "module 'up_blocks.0' of the network is not as its configuration makes it"),
        (lora, "adapters (LoRA); fuse them"),
        (attention_keywords, "gives its network 'cross_attention_kwargs'"),
        (another_class, "the pipeline's network is a Mine, expected one of"),
    ],
)
def test_what_cannot_be_shared_runs_here_and_says_why(pool, change, said):
    pipe, arguments = sdxl()
    change(pipe, arguments)
    call, plain = short((pipe, arguments), 4)
    seen, report = shared(call, "adaptive", pool)
    (reason,) = report.reasons
    assert said in reason and said in report.line()
    assert report.partitioned == 0
    assert torch.equal(seen, plain)


def test_changed_weights_are_sent_again(pool):
    call, before = short(sd3(), 4)
    shared(call, "exact", pool)
    with torch.no_grad():
        call[0].transformer.proj_out.weight.mul_(1.5)
    seen, report = shared(call, "exact", pool)
    assert report.partitioned == 4
    assert relative(seen, before) > 0.01
    assert relative(seen, short(call, 4)[1]) < EQUAL


# a worker that is not there, or not any more


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills a process")
def test_a_worker_that_comes_late_or_dies_gives_the_same_bits(own_pool, pool, monkeypatch):
    call = sd3()
    expected, _ = shared(call, "exact", pool)
    seen, report = shared(call, "exact", own_pool, wait_seconds=0.0)
    assert report.local > 0 and report.reasons == []
    assert torch.equal(seen, expected)

    post, steps = Host.post, []

    def deadly(self, op, fields, *rest):
        number = post(self, op, fields, *rest)
        steps.extend([op] * (op == "evaluate"))
        if len(steps) == 10:
            os.kill(self.pid, signal.SIGKILL)
        return number

    monkeypatch.setattr(Host, "post", deadly)
    seen, report = shared(call, "exact", own_pool)
    assert 9 <= report.partitioned <= 10 and report.partitioned + report.local == STEPS
    (reason,) = report.reasons
    assert "the other process is gone" in reason
    assert torch.equal(seen, expected)

    steps.clear()
    _, report = shared(call, "adaptive", own_pool, tuning=FREE)
    assert kinds(report.steps).count("L") == report.local > 0


def test_a_worker_that_fails_in_the_parallelism_stage(case, pool, monkeypatch):
    _, call, plain = case
    post, stages = Host.post, []

    def wrong(self, op, fields, *rest):
        stages.extend([op] * ("upto" in fields))
        if len(stages) == 3:
            fields = {**fields, "upto": 99}
        return post(self, op, fields, *rest)

    monkeypatch.setattr(Host, "post", wrong)
    seen, report = shared(call, "adaptive", pool, tuning=FREE)
    assert len(stages) == 3 and ANY[11:14] == "Epp", "the third one is for the second of these"
    assert kinds(report.steps) == ANY[:13] + "L" * (STEPS - 13)
    assert (report.partitioned, report.pipelined, report.local) == (7, 6, STEPS - 13)
    (reason,) = report.reasons
    assert "there is no block 99" in reason
    assert relative(seen, plain) < CLOSE


def test_the_bridge_does_not_know_comfyui():
    for path in Path(hybrid_core.diffusers_bridge.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if "comfy" in name], path.name
    assert "hybrid_core.diffusers_bridge.attach" in sys.modules

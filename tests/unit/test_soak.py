"""The soak's own judgement: what it calls wrong, lost in time, or leaked."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from tooling.soak import harm, prompts
from tooling.soak.following import RUN, Following
from tooling.soak.leaks import MORE_MEMORY, Held, grown

CASE = prompts.Case("mmdit", "euler", "normal", 6, 64, 1, 5.0, 0, False, "exact")
HELD = Held(descriptors=40, threads=20, memory=1 << 30, shared=frozenset(), children=0)


def test_the_same_seed_draws_the_same_prompts_and_deeds():
    def sequence(seed):
        chance = random.Random(seed)  # noqa: S311
        known = prompts.images(chance)
        return [(prompts.drawn(chance, known), harm.drawn(chance, up=True)) for _ in range(50)]

    assert sequence(1) == sequence(1)
    assert sequence(1) != sequence(2)


@pytest.mark.parametrize(
    ("status", "kind", "shared"),
    [
        ("running", "exact", True), ("running", "shared", True), ("running", "pipelined", True),
        ("running", "local", False), ("running", "forecast", False), ("done", "exact", False),
    ],
)  # fmt: skip
def test_a_signal_hits_where_the_latest_step_was_made_by_both_devices(status, kind, shared):
    seen = Following(None)
    rows = [{"kind": "local"}, {"kind": kind}]
    seen.hear({"type": RUN, "data": {"prompt_id": "a", "status": status, "rows": rows}})
    assert seen.shared("a") == shared and seen.runs("a") == (status == "running")
    assert not seen.shared("b")


def test_waiting_ends_with_the_prompt():
    seen = Following(None)
    seen.hear({"type": "status", "data": {"status": {}}})
    seen.hear({"type": "execution_interrupted", "data": {"prompt_id": "a"}})
    assert seen.ended("a") and not seen.until(seen.shared, "a", seconds=60)
    assert not seen.until(seen.shared, "b", seconds=0.01)


@pytest.mark.parametrize("up", [True, False])
def test_what_is_done_fits_the_workers_state(up):
    chance = random.Random(1)  # noqa: S311
    deeds = [harm.drawn(chance, up) for _ in range(300)]
    assert {deed.when == "start" for deed in deeds} == ({False} if up else {True, False})
    assert {deed.pauses for deed in deeds if deed.when != "step"} == {0}
    one = harm.Deed("SIGKILL", "step", pauses=3, done=True, paused=2)
    assert one.signals == 3
    assert harm.Deed("/free", "any", done=True).signals == 0


@pytest.mark.parametrize(
    ("mode", "change", "wrong"),
    [
        ("exact", 0.0, False), ("exact", 1e-5, False), ("exact", 1e-3, True),
        ("adaptive", 1e-2, False), ("adaptive", 1.0, True), ("paper", 1.0, True),
    ],
)  # fmt: skip
def test_images_that_differ_too_much_are_wrong(mode, change, wrong):
    expected = torch.randn(1, 48, 16, 16, generator=torch.Generator().manual_seed(1))
    seen = expected + change * torch.randn_like(expected)
    assert (prompts.fault(replace(CASE, mode=mode), seen, expected) is not None) == wrong


@pytest.mark.parametrize("seen", [torch.zeros(1, 48, 8, 8), torch.full((1, 48, 16, 16), torch.nan)])
def test_another_shape_or_no_numbers_are_wrong(seen):
    assert prompts.fault(CASE, seen, torch.ones(1, 48, 16, 16)) is not None


def test_each_prompt_samples_anew_and_makes_the_same_image():
    one, other = (CASE.graph(number=number) for number in (1, 2))
    changed = [name for name in one if one[name] != other[name]]
    assert changed == ["sampler"]
    assert one["sampler"]["inputs"].keys() == other["sampler"]["inputs"].keys()
    assert "mode" not in CASE.graph("KSampler")["sampler"]["inputs"]


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (HELD, []),
        (replace(HELD, descriptors=60), ["20 descriptors"]),
        (replace(HELD, threads=30), ["10 threads"]),
        (replace(HELD, memory=HELD.memory + 2 * MORE_MEMORY), ["600 MiB of memory"]),
        (
            replace(HELD, shared=frozenset({"hybrid-ksampler-x"})),
            ["shared memory hybrid-ksampler-x"],
        ),
        (replace(HELD, children=2), ["2 processes"]),
    ],
)
def test_what_has_grown_is_named(after, said):
    assert grown(HELD, after) == said

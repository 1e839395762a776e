"""The Parallelism stage on a GPU and both data planes: the tests of tests/comfy, in fp32."""

from __future__ import annotations

import weakref

import pytest
import torch
from helpers import Watched, bring_up, sample
from test_parallelism import (  # noqa: F401
    FREE,
    KINDS,
    test_a_lower_tolerance_is_closer,
    test_a_network_that_cannot_be_cut_runs_exact_and_says_why,
    test_adaptive_pipelines_samplers_that_call_once_a_step,
    test_features_too_large_for_the_shared_memory,
    test_few_steps,
    test_inpaint_mask,
    test_no_tolerance_is_mode_exact,
    test_one_branch_is_pipelined_by_mode_adaptive,
    test_paper_does_not_mix_regional_prompts,
    test_paper_is_the_published_scheme,
    test_samplers_that_are_not_safe_run_exact_and_say_why_once,
    test_the_same_run_gives_the_same_bits,
    test_two_masked_positives_and_an_area,
)

from hybrid_core.comfy_bridge.session import Session
from hybrid_core.config import Settings
from hybrid_core.telling.report import kinds


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("mode", "tuning"), [("adaptive", {}), ("paper", {"window": 9, "slope": 1e9, "length": 30})]
)
def test_both_planes_decide_alike_and_give_the_same_bits(demo, kind, mode, tuning):
    seen, cuts = [], weakref.WeakKeyDictionary()
    for plane in ("cuda_ipc", "host_pinned", "host"):
        session = Session(Settings(data_plane=plane))
        session.cuts = cuts  # measured times choose it: once for all planes
        try:
            bring_up(session, demo[kind])
            watched = Watched(demo[kind], session, mode, **tuning)
            for _ in range(2):  # the first settles the cut
                out = sample(watched.model, kind, steps=24, cfg=2.0)
            report = watched.reports[-1]
            assert report.data_plane == plane
            seen.append((kinds(report.steps), report.cut, out))
        finally:
            session.stop()
    first, *others = seen
    assert "p" in first[0]
    for other in others:
        assert other[:2] == first[:2]
        assert torch.equal(other[2], first[2])

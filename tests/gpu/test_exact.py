"""Mode exact in fp32 on a GPU and both data planes."""

from __future__ import annotations

import pytest
import torch
from helpers import Watched, bring_up, sample
from torch.profiler import ProfilerActivity, profile

from hybrid_core.comfy_bridge import demo_models
from hybrid_core.driver import tokens


def test_the_plane_that_was_asked_for_is_used(demo, session, plane):
    bring_up(session, demo["unet"])
    host = session.holdings().worker
    assert host.data_plane == plane, host.planes.reason
    watched = Watched(demo["unet"], session)
    sample(watched.model, "unet")
    assert watched.reports[0].data_plane == plane


@pytest.mark.parametrize("kind", demo_models.KINDS)
def test_results_are_the_parents_own_bits(demo, session, own_session, kind):
    """The worker's branch is, to the last bit, what the parent makes of it alone."""
    bring_up(session, demo[kind])
    shared = Watched(demo[kind], session)
    alone = Watched(demo[kind], own_session())  # its worker takes longer to start than this run
    seen, expected = sample(shared.model, kind), sample(alone.model, kind)
    assert (shared.reports[0].local, alone.reports[0].partitioned) == (0, 0)
    assert torch.equal(seen, expected)


def test_one_picture_by_tokens_is_ksamplers(demo, session, plane, monkeypatch):
    monkeypatch.setattr(tokens, "TRIES", 10**6)  # whether it pays is not the question
    bring_up(session, demo["mmdit"])
    watched = Watched(demo["mmdit"], session)
    for steps in (4, 7):
        seen = sample(watched.model, "mmdit", cfg=1.0, steps=steps)
        expected = sample(demo["mmdit"], "mmdit", cfg=1.0, steps=steps)
        assert (seen - expected).norm() < 1e-4 * expected.norm()
    report = watched.reports[-1]
    assert report.divided == 7 and report.data_plane == plane and report.reasons == []
    assert report.gather["bytes"] > 0 and report.gather["microseconds"] > 0


def waits_for_the_device(model, kind):
    """How often a run waits for everything on the device."""
    sample(model, kind)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        sample(model, kind)
    names = [event.name for event in seen.events()]
    assert any("LaunchKernel" in name for name in names), "the profiler saw no kernel launch"
    return names.count("cudaDeviceSynchronize")


def test_a_shared_run_waits_for_the_device_no_more_often(demo, session):
    bring_up(session, demo["unet"])
    watched = Watched(demo["unet"], session)
    shared = waits_for_the_device(watched.model, "unet")
    assert watched.reports[-1].local == 0
    assert shared <= waits_for_the_device(demo["unet"], "unet")

"""Mode exact and mode off in fp32: the tests of tests/comfy, on a GPU and both data planes."""

from __future__ import annotations

import pytest
import torch
from helpers import Watched, bring_up, sample
from test_compatibility import (  # noqa: F401
    test_conditioning_feature,
    test_guider_is_shared,
    test_lora_changed_between_two_prompts,
    test_model_feature_is_shared,
)
from test_equality import (  # noqa: F401
    test_areas_and_timestep_ranges,
    test_attaching_twice_replaces_the_first_attachment,
    test_custom_sampling_with_an_attached_model,
    test_exact_at_cfg_1_is_ksampler_bit_for_bit,
    test_exact_equals_ksampler,
    test_inpaint_mask,
    test_off_is_ksampler_bit_for_bit,
    test_second_run_with_the_same_model_reloads_nothing,
    test_start_and_end_steps,
    test_two_masked_positives_against_one_negative,
)
from torch.profiler import ProfilerActivity, profile

from hybrid_core.comfy_bridge import demo_models


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

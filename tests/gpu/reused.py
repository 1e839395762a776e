"""Tests of tests/comfy that run on the GPU too, by module."""

from __future__ import annotations

REUSED = {
    "test_compatibility": (
        "test_conditioning_feature_is_shared_or_says_why_not",
        "test_guider_is_shared",
        "test_lora_changed_between_two_prompts",
        "test_model_feature_is_shared",
    ),
    "test_equality": (
        "test_areas_and_timestep_ranges_equal_ksampler",
        "test_attaching_twice_replaces_the_first_attachment",
        "test_custom_sampling_with_an_attached_model_is_shared",
        "test_exact_at_cfg_1_is_ksampler_bit_for_bit_on_a_unet",
        "test_exact_equals_ksampler",
        "test_exact_with_an_inpaint_mask_equals_ksampler",
        "test_off_is_ksampler_bit_for_bit",
        "test_second_run_with_the_same_model_reloads_nothing",
        "test_a_part_of_the_steps_equals_ksampler",
        "test_two_masked_positives_against_one_negative_equal_ksampler",
    ),
    "test_faults": (
        "test_arena_too_small_runs_locally_and_says_so",
        "test_free_ends_the_worker",
        "test_worker_hung_in_mid_step",
        "test_worker_killed_around_a_request",
        "test_worker_killed_between_runs",
        "test_worker_killed_in_mid_run_gives_the_same_bits",
    ),
    "test_loaders": (
        "test_model_without_a_factory_is_sent_by_its_weights",
        "test_a_model_of_the_unet_loader_is_shared",
        "test_weights_are_sent_unpatched_while_a_lora_is_in",
    ),
    "test_parallelism": (
        "test_a_lower_tolerance_is_closer",
        "test_a_network_that_cannot_be_cut_runs_exact_and_says_why",
        "test_adaptive_pipelines_samplers_that_call_once_a_step",
        "test_features_too_large_for_the_shared_memory",
        "test_any_small_number_of_steps_is_shared",
        "test_adaptive_keeps_what_an_inpaint_mask_leaves_out",
        "test_no_tolerance_is_mode_exact",
        "test_one_branch_of_a_unet_is_pipelined_by_mode_adaptive",
        "test_paper_does_not_mix_regional_prompts",
        "test_paper_is_the_published_scheme",
        "test_samplers_that_are_not_safe_run_exact_and_say_why_once",
        "test_the_same_run_gives_the_same_bits",
        "test_masked_positives_and_an_area_are_pipelined",
    ),
}
SLOW = ("test_faults", "test_loaders")

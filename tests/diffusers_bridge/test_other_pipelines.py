"""Pipelines that give their network more than latents and two prompts, or call it more often."""

from __future__ import annotations

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    StableDiffusionInpaintPipeline,
    StableDiffusionInstructPix2PixPipeline,
)
from pipelines import ddim, quiet, sd3, sdxl, shared, short, tiny_unet
from tensors import relative

from hybrid_core.config import Tuning
from hybrid_core.diffusers_bridge.attach import hybrid
from hybrid_core.diffusers_bridge.call import Given
from hybrid_core.telling.report import kinds

EQUAL, CLOSE = 1e-4, 0.02
FREE = Tuning(tolerance=1e9, largest_gap=2, kinds=frozenset(("pipelined",)))
FORESEEN = Tuning(tolerance=1e9, largest_gap=2, kinds=frozenset(("forecast",)))


def seeing(kind, channels, **more):
    """A pipeline of this class whose U-Net sees so many channels, the latents first."""
    unet = tiny_unet(in_channels=channels, out_channels=4)
    vae = AutoencoderKL(
        block_out_channels=(8,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
    ).eval()
    pipe = kind(
        vae=vae, text_encoder=None, tokenizer=None, unet=unet, scheduler=ddim(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    noise = torch.Generator().manual_seed(1)
    arguments = {
        "prompt_embeds": torch.randn(1, 6, 32, generator=noise),
        "negative_prompt_embeds": torch.randn(1, 6, 32, generator=noise),
        "image": torch.rand(1, 3, 128, 128, generator=noise),
        "latents": torch.randn(1, 4, 16, 16, generator=noise),
        "output_type": "latent", "guidance_scale": 5.0,
    }  # fmt: skip
    return quiet(pipe), {**arguments, **more}


def inpainting():
    """Of 9 channels: latents, a mask, and the masked picture's latents."""
    noise = torch.Generator().manual_seed(2)
    return seeing(
        StableDiffusionInpaintPipeline,
        9,
        mask_image=(torch.randn(1, 1, 128, 128, generator=noise) > 0).float(),
        masked_image_latents=torch.randn(1, 4, 16, 16, generator=noise),
        height=128,
        width=128,
        strength=1.0,
    )


@pytest.mark.parametrize(
    ("mode", "tuning", "expected"),
    [
        ("exact", Tuning(), "E" * 12),
        ("adaptive", FORESEEN, "EEEFEFFEFEEE"),
        ("adaptive", FREE, "EEEEpEppEEEE"),
    ],
)
def test_a_unet_that_sees_more_than_latents(pool, mode, tuning, expected):
    call, plain = short(inpainting(), 12)
    seen, report = shared(call, mode, pool, tuning=tuning)
    assert report.reasons == [] and kinds(report.steps) == expected
    assert relative(seen, plain) < (EQUAL if mode == "exact" else CLOSE)


@pytest.mark.parametrize("mode", ["exact", "adaptive"])
@pytest.mark.parametrize("batch", [1, 2])
def test_skip_layer_guidance_is_evaluated_here(pool, mode, batch):
    pipe, arguments = sd3(batch)
    call, plain = short((pipe, {**arguments, "skip_guidance_layers": [1]}), 8)
    seen, report = shared(call, mode, pool)
    assert relative(seen, plain) < EQUAL
    # of a batch its pictures could be shared
    assert len(report.reasons) == batch - 1 and all("'skip_layers'" in r for r in report.reasons)
    beside = [step for step in report.steps if step.kind in ("single", "local")]
    assert report.partitioned == 8 and len(beside) == len(report.steps) - 8 > 0


@pytest.mark.parametrize("mode", ["exact", "adaptive"])
def test_three_branches_are_evaluated_here(pool, mode):
    """Of two prompts and a picture."""
    call, plain = short(seeing(StableDiffusionInstructPix2PixPipeline, 8), 8)
    seen, report = shared(call, mode, pool)
    assert torch.equal(seen, plain)
    (reason,) = report.reasons
    assert "a batch of 3 is not of two branches" in reason


@pytest.mark.parametrize("mode", ["exact", "adaptive"])
def test_another_pipeline_may_use_the_same_network_first(pool, mode):
    call, plain = short(sdxl(), 6)
    never = type(call[0])(**call[0].components)
    with hybrid(never, mode, pool=pool, wait_seconds=120) as reports:
        seen = call[0](**call[1]).images
    assert relative(seen, plain) < EQUAL and len(reports) == 1


def test_other_prompts_in_mid_run_are_another_course(pool):
    pipe, arguments = sdxl()

    def other(_, step, __, given):
        return {"prompt_embeds": given["prompt_embeds"] * 0.7} if step == 5 else {}

    changing = {
        **arguments, "callback_on_step_end": other,
        "callback_on_step_end_tensor_inputs": ["prompt_embeds"],
    }  # fmt: skip
    for given, expected in ((arguments, "EEEFEFFEFEEE"), (changing, "EEEFEFEEEEEE")):
        call, plain = short((pipe, given), 12)
        seen, report = shared(call, "adaptive", pool, tuning=FORESEEN)
        assert relative(seen, plain) < CLOSE
        assert kinds(report.steps) == expected


def test_what_is_given_says_the_same_while_it_does():
    words, residual = torch.ones(2, 3, 8), [torch.ones(2, 4), torch.zeros(2, 4)]

    def given(**more):
        return Given(
            {"sample": torch.rand(2, 4), "timestep": torch.rand(()), "encoder_hidden_states": words}
            | more
        )

    assert given() == given() == given(encoder_hidden_states=words.clone())
    assert given() != given(encoder_hidden_states=words * 2)
    controlled = given(mid_block_additional_residual=residual)
    assert controlled == given(mid_block_additional_residual=[one * 3 for one in residual])
    ended = given(mid_block_additional_residual=[one * 0 for one in residual])
    assert controlled != ended and controlled != given() and ended != ()
    strong, weak = (given(cross_attention_kwargs={"scale": scale}) for scale in (1.0, 0.5))
    assert strong != weak

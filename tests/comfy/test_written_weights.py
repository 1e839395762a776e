"""Weights that another node writes to between prompts, as a server has them: inference tensors."""

from __future__ import annotations

import torch
from helpers import Watched, bring_up, relative, sample

from hybrid_core.comfy_bridge import demo_models


def test_weights_written_to_between_prompts_end_the_sharing_until_they_are_back(session):
    with torch.inference_mode():
        model = demo_models.load_model("unet")
    name, weight = next(
        (name, weight)
        for name, weight in model.model.diffusion_model.named_parameters()
        if name.startswith("middle_block") and weight.ndim > 1
    )
    assert weight.is_inference(), "torch does not count what is written"
    bring_up(session, model)

    def run():
        watched = Watched(model, session)
        seen = sample(watched.model, "unet")
        assert relative(seen, sample(model, "unet")) < 1e-4
        return watched.reports[0]

    assert run().local == 0
    kept = weight.clone()
    with torch.inference_mode():
        weight.mul_(1.5)
    report = run()
    assert report.local == 4 and report.shared == 0
    assert f"{name.removesuffix('.weight')}: weight was written to" in report.reasons[0]
    with torch.inference_mode():
        weight.copy_(kept)
    assert run().local == 0

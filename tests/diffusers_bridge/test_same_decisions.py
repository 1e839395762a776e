"""The demo models in diffusers and in ComfyUI: the same run is decided in the same way."""

from __future__ import annotations

import os
import sys

import pytest
import torch
from pipelines import NEGATIVE, POSITIVE, STEPS, demo, shared
from tensors import relative

from hybrid_core.config import Settings, Tuning
from hybrid_core.telling.report import kinds

COMFYUI = os.environ.get("COMFYUI_DIR")
if COMFYUI is None:
    pytest.skip("COMFYUI_DIR is not set; run python dev.py test", allow_module_level=True)

os.environ["HYBRID_KSAMPLER_DEVICE"] = "cpu:1"
if COMFYUI not in sys.path:
    sys.path.insert(0, COMFYUI)

from comfy.cli_args import args  # noqa: E402

args.cpu = True

from comfy.samplers import CFGGuider, KSampler, sampler_object  # noqa: E402

from hybrid_core.comfy_bridge import demo_models  # noqa: E402
from hybrid_core.comfy_bridge.attach import attach  # noqa: E402
from hybrid_core.comfy_bridge.session import Session  # noqa: E402

TUNINGS = {"paper": Tuning(), "adaptive": Tuning(tolerance=0.0125)}
SAME = 1e-4  # relative, of final latents


@pytest.fixture(scope="module")
def session():
    made = Session(Settings())
    yield made
    made.stop()


class Both:
    """One demo model on both sides, on one schedule and with one noise."""

    def __init__(self, kind, session):
        self.kind, self._session = kind, session
        self.pipe, self.arguments = demo(kind)
        self._patcher = demo_models.load_model(kind)
        self._noise = torch.randn(1, 48, 16, 16, generator=torch.Generator().manual_seed(5))
        if kind == "mmdit":
            self._sigmas = KSampler(self._patcher, STEPS, "cpu", scheduler="normal").sigmas
            self.arguments["sigmas"] = self._sigmas[:-1].tolist()
            self.arguments["latents"] = self._noise * self._sigmas[0]
        else:
            self.pipe.scheduler.set_timesteps(STEPS)
            signal = self.pipe.scheduler.alphas_cumprod[self.pipe.scheduler.timesteps].double()
            self._sigmas = torch.cat([((1 - signal) / signal).sqrt(), torch.zeros(1)]).float()
            first = self._sigmas[0]
            self.arguments["latents"] = self._noise * first / (1 + first**2).sqrt()

    def comfyui(self, mode):
        """Final latents in the network's scale, and the report."""
        reports = []
        with torch.inference_mode():
            assert self._session.bring_up(self._patcher, 120)
            self._session.cuts.clear()
            model = attach(self._patcher, mode, print, self._session, reports.append, TUNINGS[mode])
            guider = CFGGuider(model)
            guider.set_conds(
                demo_models.conditioning(self.kind, POSITIVE),
                demo_models.conditioning(self.kind, NEGATIVE),
            )
            guider.set_cfg(self.arguments["guidance_scale"])
            out = guider.sample(
                self._noise, torch.zeros_like(self._noise), sampler_object("euler"),
                self._sigmas, seed=1, disable_pbar=True,
            )  # fmt: skip
        return self._patcher.model.process_latent_in(out), reports[0]


@pytest.fixture(scope="module", params=demo_models.KINDS)
def both(request, session):
    return Both(request.param, session)


@pytest.mark.parametrize("mode", TUNINGS)
def test_the_same_steps_are_shortened(both, mode, pool):
    latents, report = both.comfyui(mode)
    seen, own = shared((both.pipe, both.arguments), mode, pool, tuning=TUNINGS[mode])
    assert report.local == own.local == 0 and report.reasons == own.reasons == []
    assert kinds(own.steps) == kinds(report.steps)
    assert own.tau == report.tau is not None
    assert own.pipelined == report.pipelined and own.forecast == report.forecast
    assert own.pipelined + own.forecast >= 4 and own.partitioned >= 4
    assert relative(seen, latents) < SAME
    for ours, theirs in zip(own.steps, report.steps, strict=True):
        assert ours.sigma == pytest.approx(theirs.sigma, rel=1e-4)
        for name in ("discrepancy", "guidance_drift", "feature_drift"):
            value, expected = getattr(ours, name), getattr(theirs, name)
            assert value == (expected if expected is None else pytest.approx(expected, rel=0.02))

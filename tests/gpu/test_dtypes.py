"""Mode exact in fp16 and bf16: as near to KSampler as the dtype's own rounding is."""

from __future__ import annotations

import comfy.supported_models
import pytest
import torch
from helpers import Watched, bring_up, loading_in, relative, sample

from benchmarks import models
from hybrid_core.comfy_bridge import demo_models
from hybrid_core.comfy_bridge.session import Session
from hybrid_core.config import Settings

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
LARGE = {
    "SD3": (comfy.supported_models.SD3, models.SD3_CONFIG, "SD3 shape, 9 blocks"),
    "SDXL": (comfy.supported_models.SDXL, models.SDXL_CONFIG, "SDXL shape, half width"),
}


@pytest.fixture(scope="module", params=DTYPES)
def dtype(request):
    with loading_in(request.param):
        yield request.param


@pytest.fixture(scope="module")
def half_session(dtype, plane):
    made = Session(Settings(data_plane=plane))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def half_demo(dtype):
    made = {kind: demo_models.load_model(kind) for kind in demo_models.KINDS}
    assert {model.model.get_dtype() for model in made.values()} == {DTYPES[dtype]}
    return made


def equal_up_to_rounding(seen, expected, full):
    """No further apart than KSampler itself is from fp32."""
    rounding = relative(expected, full)
    assert 0 < rounding < 0.5, "the reference in fp32 is another image"
    assert torch.isfinite(seen).all()
    assert relative(seen, expected) <= 2 * rounding


@pytest.mark.parametrize("kind", demo_models.KINDS)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "euler_ancestral", "heun"])
def test_exact_equals_ksampler(demo, half_demo, half_session, kind, batch, sampler):
    model = half_demo[kind]
    bring_up(half_session, model)
    watched = Watched(model, half_session)
    how = {"sampler": sampler, "latent": {"samples": torch.zeros(batch, 48, 16, 16)}, "cfg": 2.0}
    seen = sample(watched.model, kind, **how)
    assert watched.announced == [] and watched.reports[0].local == 0
    equal_up_to_rounding(seen, sample(model, kind, **how), sample(demo[kind], kind, **how))


@pytest.mark.parametrize("kind", demo_models.KINDS)
def test_adaptive_pipelines(half_demo, half_session, kind):
    bring_up(half_session, half_demo[kind])
    tuning = {"tolerance": 1e9, "largest_gap": 2, "kinds": frozenset(("pipelined",))}
    watched = Watched(half_demo[kind], half_session, "adaptive", **tuning)
    seen = sample(watched.model, kind, steps=12, cfg=2.0)
    assert watched.announced == [] and watched.reports[0].pipelined >= 5
    assert relative(seen, sample(half_demo[kind], kind, steps=12, cfg=2.0)) < 0.2


@pytest.mark.parametrize("name", LARGE)
def test_exact_equals_ksampler_on_random_weights(dtype, half_session, name):
    config_class, config, shape = LARGE[name]
    shape = models.SHAPES[shape]
    model = models.random_model(config_class, config, DTYPES[dtype], "cuda")
    full = models.random_model(config_class, config, torch.float32, "cuda")
    bring_up(half_session, model)
    watched = Watched(model, half_session)
    seen = models.sample(watched.model, shape, 4)
    assert watched.announced == [] and watched.reports[0].local == 0
    assert watched.reports[0].partitioned == 4
    equal_up_to_rounding(seen, models.sample(model, shape, 4), models.sample(full, shape, 4))

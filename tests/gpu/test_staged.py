"""The Parallelism stage on a GPU: every data plane gives the same."""

from __future__ import annotations

import weakref

import pytest
import torch
from helpers import Watched, bring_up, sample

from hybrid_core.comfy_bridge import demo_models
from hybrid_core.comfy_bridge.session import Session
from hybrid_core.config import Settings
from hybrid_core.telling.report import kinds


@pytest.mark.slow
@pytest.mark.parametrize("kind", demo_models.KINDS)
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

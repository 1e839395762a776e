"""Features at the cut, continued by a call or held."""

from __future__ import annotations

import torch

from hybrid_core.course.features import Features

SIGMAS = [1 - i / 10 for i in range(11)]


def test_features_are_not_held_after_a_forecast_call():
    features = Features(SIGMAS, None, True)
    for call in (3, 4, 6):  # call 5 is forecast
        if call == 6:
            assert features.reach(5) and not features.reach(6)
        features.keep(call, {"a": torch.zeros(4)})
        features.predicted(call, torch.zeros(4))
    assert not features.reach(7)
    features.keep(7, {"a": torch.zeros(4)})  # made ahead for it
    assert features.reach(7)


def test_features_that_are_never_continued_are_held():
    features = Features(SIGMAS, None, False)
    features.keep(6, {"a": torch.zeros(4)})
    features.predicted(6, torch.zeros(4))
    assert features.reach(6) and features.reach(7) and not features.reach(8)

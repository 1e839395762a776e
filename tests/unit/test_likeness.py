"""What a comparison of two predictions is taken for."""

from __future__ import annotations

import torch

from hybrid_core.workers.holdings import Holdings
from hybrid_core.workers.inline import InlineWorker
from hybrid_core.workers.likeness import Likeness

SHAPE = (1, 4)


class Source:
    base_key = key = name = "network"
    by, half = "", False

    def fingerprint(self):
        return "as it is"

    def changed_since(self, fingerprint):
        return None


def likeness():
    return Likeness(Holdings(InlineWorker(lambda: None)), Source())


def test_equal_predictions_are_remembered():
    one, prediction = likeness(), torch.ones(SHAPE)
    assert one.difference(prediction, prediction * (1 + 1e-5), SHAPE) is None
    assert one.seen(SHAPE) and not one.seen((2, 4))


def test_zeros_show_nothing():
    """Of a prompt that takes part from a later step on."""
    one = likeness()
    assert one.difference(torch.zeros(SHAPE), torch.zeros(SHAPE), SHAPE) is None
    assert not one.seen(SHAPE)
    assert "relative difference 1" in one.difference(torch.ones(SHAPE), torch.zeros(SHAPE), SHAPE)

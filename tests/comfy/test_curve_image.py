"""Hybrid Curve Image as ComfyUI calls it."""

from __future__ import annotations

import json

import pytest
import torch
from pack import node_classes

from hybrid_core.curve import UnreadableReport


@pytest.fixture
def node():
    return node_classes()["Hybrid_CurveImage"]


def test_report_of_a_run_becomes_an_image(node):
    steps = [{"step": at, "kind": "exact", "discrepancy": 0.5 / (at + 1)} for at in range(5)]
    (image,) = node.execute(json.dumps({"mode": "exact", "steps": steps}), 400, 300, True).args
    assert image.shape == (1, 300, 400, 3) and image.dtype == torch.float32
    assert image.min() >= 0 and image.max() == 1, "0..1, on white paper"
    assert image.unique().numel() > 50, "more than an empty sheet"


def test_anything_else_is_an_error_that_says_what_to_do(node):
    with pytest.raises(UnreadableReport, match="seen: .*Expected: .*Connect the report output"):
        node.execute("a large red circle", 400, 300, False)


def test_smallest_and_largest_size_are_the_pictures_own(node):
    sizes = {one.id: one for one in node.define_schema().inputs if one.id in ("width", "height")}
    assert (sizes["width"].min, sizes["height"].min) == (320, 200)
    report = json.dumps({"mode": "off"})
    (image,) = node.execute(report, sizes["width"].min, sizes["height"].min, False).args
    assert image.shape == (1, 200, 320, 3)

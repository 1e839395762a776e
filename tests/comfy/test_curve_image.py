"""Hybrid Curve Image as ComfyUI calls it."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from helpers import Watched, sample
from pack import node_classes

from hybrid_core.comfy_bridge.attach import latest_report
from hybrid_core.telling.curve import UnreadableReport


@pytest.fixture
def node():
    return node_classes()["Hybrid_CurveImage"]


def test_report_of_a_run_becomes_an_image(node):
    steps = [{"step": at, "kind": "exact", "discrepancy": 0.5 / (at + 1)} for at in range(5)]
    (image,) = node.execute(400, 300, True, json.dumps({"mode": "exact", "steps": steps})).args
    assert image.shape == (1, 300, 400, 3) and image.dtype == torch.float32
    assert image.min() >= 0 and image.max() == 1, "0..1, on white paper"
    assert image.unique().numel() > 50, "more than an empty sheet"


def test_without_matplotlib_the_picture_says_what_is_missing(node, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    report = json.dumps({"mode": "exact", "steps": [{"kind": "exact"}]})
    (image,) = node.execute(400, 300, True, report).args
    assert image.shape == (1, 300, 400, 3)
    assert (image < 0.5).any(-1).sum() > 300, "letters"
    monkeypatch.undo()
    assert not image.equal(node.execute(400, 300, True, report).args[0])


def test_anything_else_is_an_error_that_says_what_to_do(node):
    with pytest.raises(UnreadableReport, match="seen: .*Expected: .*Connect the report output"):
        node.execute(400, 300, False, "a large red circle")


def test_smallest_and_largest_size_are_the_pictures_own(node):
    sizes = {one.id: one for one in node.define_schema().inputs if one.id in ("width", "height")}
    assert (sizes["width"].min, sizes["height"].min) == (320, 200)
    report = json.dumps({"mode": "off"})
    (image,) = node.execute(sizes["width"].min, sizes["height"].min, False, report).args
    assert image.shape == (1, 200, 320, 3)


def test_model_of_another_sampler_in_place_of_a_report(node, demo, session):
    attached = Watched(demo["mmdit"], session).model
    with pytest.raises(UnreadableReport, match="made no run"):
        node.execute(400, 300, False, model=attached, latent={})
    latent = sample(attached, "mmdit")
    (image,) = node.execute(400, 300, False, model=attached, latent={"samples": latent}).args
    report = json.dumps(latest_report(attached).data())
    assert image.equal(node.execute(400, 300, False, report).args[0])
    for given in ({}, {"model": attached}, {"latent": {}}):
        with pytest.raises(UnreadableReport, match="Connect one of the two"):
            node.execute(400, 300, False, **given)

"""A few of ComfyUI's own templates swapped and swapped back; templates.py does all of them."""

from __future__ import annotations

import json

import pytest
import templates

EVERY = 30  # of the templates that sample, in the order of their names

pytestmark = pytest.mark.either_renderer


@pytest.mark.parametrize("file", templates.templates()[::EVERY], ids=lambda file: file.stem)
def test_a_template_is_swapped_without_harm(tab, file):
    told = templates.swapped(tab, json.loads(file.read_text(encoding="utf-8")))
    assert told["nodes"] > 0
    assert not told["wrong"]

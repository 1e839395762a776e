"""The words of the nodes' schemas are the English ones that translators work from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pack import node_classes

ROOT = Path(__file__).resolve().parents[2]
ENGLISH = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))


def test_every_node_has_words_and_no_other():
    assert set(ENGLISH) == set(node_classes())


@pytest.mark.parametrize("node", ENGLISH)
def test_words_are_those_of_the_schema(node):
    schema, words = node_classes()[node].define_schema(), ENGLISH[node]
    assert words["display_name"] == schema.display_name
    assert words["description"] == schema.description
    names = [one.id for one in schema.inputs]
    assert [name for name in words["inputs"] if name != "control_after_generate"] == names
    for one in schema.inputs:
        assert words["inputs"][one.id] == {
            "name": one.display_name or one.id,
            "tooltip": one.tooltip,
        }
    controlled = any(getattr(one, "control_after_generate", None) for one in schema.inputs)
    assert ("control_after_generate" in words["inputs"]) == controlled
    assert list(words["outputs"]) == [str(index) for index in range(len(schema.outputs))]
    for one, said in zip(schema.outputs, words["outputs"].values(), strict=True):
        assert said["name"] == (one.display_name or one.id or one.io_type)
        assert said["tooltip"] == (one.tooltip or said["tooltip"])

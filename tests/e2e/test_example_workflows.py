"""Every example workflow, as a running ComfyUI takes it."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from demo.server import ROOT
from demo.workflow import NOT_EXECUTED, api_prompt

FILES = sorted((ROOT / "example_workflows").glob("*.json"))
DEMOS = {"hybrid_demo": 1, "hybrid_demo_unet": 2, "hybrid_custom_sampling": 1}  # image outputs


def workflow(name):
    return json.loads((ROOT / "example_workflows" / f"{name}.json").read_text(encoding="utf-8"))


def test_all_example_workflows_are_offered(server):
    offered = server.get("/workflow_templates")
    assert sorted(path.stem for path in FILES) in [sorted(names) for names in offered.values()]


@pytest.mark.parametrize("name", [path.stem for path in FILES])
def test_nodes_and_inputs_are_those_that_comfyui_has(server, name):
    info = server.get("/object_info")
    for node in workflow(name)["nodes"]:
        if node["type"] in NOT_EXECUTED:
            continue
        known = info[node["type"]]
        inputs = {**known["input"].get("required", {}), **known["input"].get("optional", {})}
        assert {slot["name"] for slot in node["inputs"]} <= set(inputs)
        assert [slot["type"] for slot in node["outputs"]] == known["output"]
    for node in api_prompt(workflow(name), info).values():
        required = info[node["class_type"]]["input"].get("required", {})
        assert set(required) <= set(node["inputs"]), node["class_type"]


@pytest.mark.parametrize("name", DEMOS)
def test_demo_workflows_make_their_images(server, name):
    prompt = api_prompt(workflow(name), server.get("/object_info"))
    for node in prompt.values():
        if "steps" in node["inputs"]:
            node["inputs"]["steps"] = 3
        if "batch_size" in node["inputs"]:
            node["inputs"]["batch_size"] = 2
    outputs = server.run(prompt)["outputs"].values()
    images = [output["images"] for output in outputs if "images" in output]
    assert len(images) == DEMOS[name], "every output ran"
    for image in (one for several in images for one in several):
        folder = server.folder / ("temp" if image["type"] == "temp" else "output")
        with Image.open(folder / image["filename"]) as picture:
            assert len(picture.convert("RGB").getcolors(1 << 20)) > 50

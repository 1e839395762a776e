"""What an artist does, against a running ComfyUI."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import psutil
import pytest
import torch
from PIL import Image
from processes import wait_until, workers

from demo.server import ROOT, serving
from demo.workflow import api_prompt

from .graphs import advanced, custom, graph
from .runs import last_count, latents, until_shared

WORKFLOW = json.loads((ROOT / "example_workflows" / "hybrid_demo.json").read_text())
NODES = (
    "Hybrid_KSampler", "Hybrid_KSamplerAdvanced", "Hybrid_AttachModel", "Hybrid_Monitor",
    "Hybrid_CurveImage", "Hybrid_Options", "Hybrid_DemoModel", "Hybrid_DemoPrompt",
)  # fmt: skip


@pytest.mark.parametrize("model", ["mmdit", "unet"])
def test_exact_equals_ksampler_and_off_is_ksampler(server, model):
    until_shared(server, model)
    expected = latents(server, graph("KSampler", model))
    exact = latents(server, graph(model=model, mode="exact"))
    assert last_count(server) == (4, 4)
    assert (exact - expected).norm() / expected.norm() < 1e-4
    assert torch.equal(latents(server, graph(model=model, mode="off")), expected)


@pytest.mark.parametrize("sampling", ["lcm", "x0", "v_prediction"])
def test_a_sampling_of_comfy_extras_is_shared(server, sampling):
    until_shared(server, "unet")

    def sampled(node, **inputs):
        prompt = graph(node, "unet", **inputs)
        prompt["patched"] = {
            "class_type": "ModelSamplingDiscrete",
            "inputs": {"model": ["model", 0], "sampling": sampling, "zsnr": False},
        }
        prompt["sampler"]["inputs"]["model"] = ["patched", 0]
        return prompt

    deadline = time.monotonic() + 60
    while True:  # the replica with this sampling is made in the first run
        seen = latents(server, sampled("Hybrid_KSampler", mode="exact", seed=2, steps=4))
        if last_count(server) == (4, 4):
            break
        assert time.monotonic() < deadline, server.log[-2000:]
        server.run(sampled("Hybrid_KSampler", mode="exact", seed=time.monotonic_ns()))
    expected = latents(server, sampled("KSampler", seed=2, steps=4))
    assert (seen - expected).norm() / expected.norm() < 1e-4


def test_advanced_sampler_equals_the_cores(server):
    until_shared(server)
    seen = latents(server, advanced(graph(), "Hybrid_KSamplerAdvanced"))
    assert last_count(server) == (2, 2)
    expected = latents(server, advanced(graph(), "KSamplerAdvanced"))
    assert (seen - expected).norm() / expected.norm() < 1e-4


def test_attached_model_in_custom_sampling_is_shared(server):
    until_shared(server)

    seen = latents(server, custom("attach"))
    assert last_count(server) == (5, 5)
    expected = latents(server, custom("model"))
    assert (seen - expected).norm() / expected.norm() < 1e-4


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("Hybrid_KSampler", "KSampler"), ("Hybrid_KSamplerAdvanced", "KSamplerAdvanced")],
)
def test_inputs_are_the_core_samplers_and_then_ours(server, ours, theirs):
    info = server.get("/object_info")
    expected, seen = info[theirs], info[ours]
    assert seen["input_order"]["required"] == expected["input_order"]["required"]
    assert seen["input_order"]["optional"] == ["mode", "tolerance", "options"]
    assert seen["input"]["optional"]["mode"][1]["default"] == "adaptive"
    assert seen["output"] == [*expected["output"], "STRING"]
    keys = ("default", "min", "max", "step", "round", "control_after_generate")
    for name, (kind, *options) in expected["input"]["required"].items():
        own_kind, *own_options = seen["input"]["required"][name]
        own = own_options[0] if own_options else {}
        core = options[0] if options else {}
        if isinstance(kind, list) or kind == "COMBO":
            values = kind if isinstance(kind, list) else core["options"]
            assert (own_kind if isinstance(own_kind, list) else own["options"]) == values
        else:
            assert own_kind == kind
        for key in keys:
            assert own.get(key) == core.get(key), f"{name}: {key}"


def test_node_ids_are_a_contract(server):
    info = server.get("/object_info")
    assert {name for name in info if name.startswith("Hybrid_")} == set(NODES)


@pytest.mark.parametrize("node", NODES)
def test_every_input_has_a_tooltip_and_every_node_a_help_page(server, node):
    info = server.get("/object_info")[node]
    for group in {"required", "optional"} & info["input"].keys():
        for name, (_, *options) in info["input"][group].items():
            assert options and options[0].get("tooltip"), f"{node}.{name}"
    page = ROOT / "web" / "docs" / f"{node}.md"
    text = page.read_text()
    for group in ("required", "optional"):
        for name in info["input"].get(group, {}):
            assert f"`{name}`" in text, f"{page.name} does not explain {name}"


def test_example_workflow_is_offered_and_runs(server):
    offered = server.get("/workflow_templates")
    (names,) = [names for names in offered.values() if "hybrid_demo" in names]
    assert set(names) == {path.stem for path in (ROOT / "example_workflows").glob("*.json")}
    prompt = api_prompt(WORKFLOW, server.get("/object_info"))
    (sampler,) = [n for n in prompt.values() if n["class_type"] == "Hybrid_KSampler"]
    assert sampler["inputs"]["mode"] == "adaptive"
    assert sampler["inputs"]["sampler_name"] == "euler"
    sampler["inputs"]["steps"] = 3
    outputs = server.run(prompt)["outputs"]
    (images,) = [o["images"] for o in outputs.values() if "images" in o]
    assert len(images) == 8
    path = server.folder / "output" / images[0]["filename"]
    with Image.open(path) as picture:
        assert picture.size == (256, 256)
        assert len(set(picture.getdata())) > 50, "a picture, not one colour"


def test_unknown_word_is_an_error_that_lists_the_known_ones(server):
    prompt = graph()
    prompt["positive"]["inputs"]["text"] = "a red hexagon"
    with pytest.raises(RuntimeError, match="do not know the word 'hexagon'.*triangle"):
        server.run(prompt)


def test_adaptive_pipelines_and_returns_its_report(server):
    until_shared(server)
    prompt = graph(steps=16, mode="adaptive", tolerance=1.0, seed=5)
    prompt["options"] = {
        "class_type": "Hybrid_Options",
        "inputs": {
            "L": 0, "g": 0.0, "k": 5, "tau_cap": 0, "largest_gap": 1, "look_ahead": True,
            "step_timeout": 60.0, "load_timeout": 600.0, "shortened": "pipelined",
        },
    }  # fmt: skip
    prompt["sampler"]["inputs"]["options"] = ["options", 0]
    prompt["show"] = {"class_type": "PreviewAny", "inputs": {"source": ["sampler", 1]}}
    outputs = server.run(prompt)["outputs"]
    report = json.loads(outputs["show"]["text"][0])
    kinds = [step["kind"] for step in report["steps"]]
    assert report["mode"] == "adaptive" and len(kinds) == 16
    assert kinds.count("pipelined") == report["pipelined"] >= 4
    assert "pipelined" not in {a for a, b in zip(kinds, kinds[1:], strict=False) if a == b}
    assert report["partitioned"] == 16 - report["pipelined"]


def test_unknown_mode_is_refused_before_anything_runs(server):
    with pytest.raises(RuntimeError, match="mode"):
        server.run(graph(mode="warp"))


def test_interrupt_and_the_next_prompt(server):
    until_shared(server)
    before, said = workers(server), len(server.log)
    prompt_id = server.queue(graph(steps=3000, seed=9, mode="exact"))
    wait_until(lambda: "/3000" in server.log[said:])
    server.post("/interrupt", {})
    began = time.monotonic()
    entry = server.finished(prompt_id)
    assert time.monotonic() - began < 10
    assert entry["status"]["messages"][-1][0] == "execution_interrupted"
    until_shared(server)
    assert workers(server) == before, "Cancel does not cost the worker"


def test_worker_killed_while_a_prompt_runs(server):
    until_shared(server)
    expected = latents(server, graph(steps=40, seed=11))
    said = len(server.log)
    prompt_id = server.queue(graph(steps=40, seed=12))
    wait_until(lambda: "/40 " in server.log[said:])
    (worker,) = workers(server)
    worker.send_signal(signal.SIGKILL)
    assert server.finished(prompt_id)["status"]["status_str"] == "success"
    until_shared(server)
    again = latents(server, graph(steps=40, seed=11))
    assert torch.equal(again, expected) or (again - expected).norm() / expected.norm() < 1e-5


def test_free_ends_the_worker(server):
    until_shared(server)
    assert len(workers(server)) == 1
    server.post("/free", {"unload_models": True, "free_memory": True})
    wait_until(lambda: not workers(server))
    until_shared(server)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_is_left_when_the_server_ends(tmp_path, how):
    with serving(tmp_path) as server:
        until_shared(server)
        family = psutil.Process(server.process.pid).children(recursive=True)
        assert workers(server)
        os.kill(server.process.pid, how)
        server.process.wait(20)
    wait_until(lambda: not any(p.is_running() and p.status() != "zombie" for p in family))


def test_one_device_runs_as_ksampler_and_says_why(tmp_path):
    with serving(tmp_path, device="") as server:
        seen = latents(server, graph())
        assert torch.equal(seen, latents(server, graph("KSampler")))
        assert "on one device: there is no second GPU" in server.log
        assert not workers(server)


def test_pack_needs_matplotlib_and_nothing_else_beyond_comfyui():
    wanted = (Path(ROOT) / "requirements.txt").read_text().splitlines()
    lines = [line for line in wanted if line and not line.startswith("#")]
    assert [re.match("[a-z]+", line)[0] for line in lines] == ["matplotlib"]
    assert f'\ndependencies = ["{lines[0]}"]\n' in (Path(ROOT) / "pyproject.toml").read_text()

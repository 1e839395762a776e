"""The example workflows: sound graphs, neatly laid out, each with a thumbnail."""

from __future__ import annotations

import itertools
import json
import uuid
from pathlib import Path

import pytest
from PIL import Image

FOLDER = Path(__file__).resolve().parents[2] / "example_workflows"
FILES = sorted(FOLDER.glob("*.json"))
TITLE = 30  # pixels above a node's position
ROOM = 500  # pixels: a sampler's values with the live plot below them


def workflow(path):
    return json.loads(path.read_text(encoding="utf-8"))


def of_type(path, *types):
    return [node for node in workflow(path)["nodes"] if node["type"] in types]


def test_every_kind_of_graph_is_there_and_has_an_id_of_its_own():
    assert [path.stem for path in FILES] == [
        "hybrid_custom_sampling", "hybrid_demo", "hybrid_demo_unet", "hybrid_sd35", "hybrid_sdxl",
    ]  # fmt: skip
    ids = [workflow(path)["id"] for path in FILES]
    assert len({uuid.UUID(one) for one in ids}) == len(FILES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_links_join_slots_of_one_type(path):
    graph = workflow(path)
    nodes = {node["id"]: node for node in graph["nodes"]}
    assert graph["last_node_id"] == max(nodes) and len(nodes) == len(graph["nodes"])
    for link, source, out, target, into, kind in graph["links"]:
        outputs, inputs = nodes[source]["outputs"], nodes[target]["inputs"]
        assert outputs[out]["type"] == inputs[into]["type"] == kind
        assert link in outputs[out]["links"] and inputs[into]["link"] == link
    held = [slot["link"] for node in nodes.values() for slot in node["inputs"] if slot.get("link")]
    assert sorted(held) == sorted(link[0] for link in graph["links"])
    assert graph["last_link_id"] == max(held)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_nodes_do_not_overlap_and_leave_room_for_the_plot(path):
    nodes = workflow(path)["nodes"]
    for one, other in itertools.combinations(nodes, 2):
        (x, y), (w, h) = one["pos"], one["size"]
        (a, b), (c, d) = other["pos"], other["size"]
        apart = x + w <= a or a + c <= x or y + h <= b - TITLE or b + d <= y - TITLE
        assert apart, f"{one['type']} {one['id']} lies on {other['type']} {other['id']}"
    for node in of_type(path, "Hybrid_KSampler"):
        assert node["size"][1] >= ROOM


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_samplers_start_in_the_default_mode(path):
    for node in of_type(path, "Hybrid_KSampler"):
        seed, control, steps, cfg, sampler, scheduler, denoise, *own = node["widgets_values"]
        assert (seed, control, denoise, own) == (1, "randomize", 1, ["adaptive", 0.01])
        assert 20 <= steps <= 50 and cfg > 1 and sampler == "euler"
        assert scheduler in ("normal", "sgm_uniform")
    for node in of_type(path, "Hybrid_AttachModel"):
        assert node["widgets_values"] == ["adaptive", 0.01]
    assert of_type(path, "Hybrid_KSampler", "Hybrid_AttachModel")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_models_to_download_are_named_with_their_folder(path):
    (note,) = of_type(path, "MarkdownNote")
    loaders = of_type(path, "CheckpointLoaderSimple")
    assert bool(loaders) != bool(of_type(path, "Hybrid_DemoModel"))
    for loader in loaders:
        (model,) = loader["properties"]["models"]
        assert loader["widgets_values"] == [model["name"]]
        assert model["url"].endswith(f"/{model['name']}") and model["directory"] == "checkpoints"
        assert f"({model['url']})" in note["widgets_values"][0]
        assert "`ComfyUI/models/checkpoints/`" in note["widgets_values"][0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_thumbnail_is_small_and_shows_something(path):
    thumbnail = path.with_suffix(".jpg")
    assert thumbnail.stat().st_size < 60_000
    with Image.open(thumbnail) as picture:
        width, height = picture.size
        assert width >= 400 and 0.9 < width / height < 2.5
        assert len(picture.convert("RGB").getcolors(width * height)) > 500

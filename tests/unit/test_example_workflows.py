"""The example workflows: sound graphs, neatly laid out, each with a thumbnail."""

from __future__ import annotations

import itertools
import json
import math
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


def links(graph):
    """Each link as its two nodes and the points that it goes through."""
    nodes = {node["id"]: node for node in graph["nodes"]}
    parents = {one["id"]: one["parentId"] for one in graph["extra"].get("linkExtensions", [])}
    reroutes = {one["id"]: one for one in graph["extra"].get("reroutes", [])}
    for link, source, out, target, into, _ in graph["links"]:
        start, end = nodes[source], nodes[target]
        sockets = [i for i, slot in enumerate(end["inputs"]) if not slot.get("widget")]
        way = [(end["pos"][0], end["pos"][1] + 14 + 20 * sockets.index(into))]
        at = parents.get(link)
        while at is not None:
            way.append(tuple(reroutes[at]["pos"]))
            at = reroutes[at].get("parentId")
        way.append((start["pos"][0] + start["size"][0], start["pos"][1] + 14 + 20 * out))
        yield (source, target), way[::-1]


def curve(one, other):
    """Points of the spline that ComfyUI draws."""
    reach = math.dist(one, other) / 4
    stops = (one, (one[0] + reach, one[1]), (other[0] - reach, other[1]), other)
    for t in (i / 50 for i in range(51)):
        parts = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
        yield tuple(sum(p * stop[j] for p, stop in zip(parts, stops, strict=True)) for j in (0, 1))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_links_do_not_run_under_nodes(path):
    graph = workflow(path)
    for ends, way in links(graph):
        points = [p for a, b in itertools.pairwise(way) for p in curve(a, b)]
        for node in graph["nodes"]:
            (left, top), (w, h) = node["pos"], node["size"]
            under = [
                (x, y)
                for x, y in points
                if left + 2 < x < left + w - 2 and top - TITLE < y < top + h
            ]
            assert not under, f"{ends} under {node['type']}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_samplers_start_in_the_default_mode(path):
    for node in of_type(path, "Hybrid_KSampler"):
        seed, control, steps, cfg, sampler, scheduler, denoise, *own = node["widgets_values"]
        assert (seed, control, denoise, own) == (1, "fixed", 1, ["adaptive", 0.0125])
        assert 20 <= steps <= 50 and cfg > 1 and sampler == "euler"
        assert scheduler in ("normal", "sgm_uniform")
    for node in of_type(path, "Hybrid_AttachModel"):
        assert node["widgets_values"] == ["adaptive", 0.0125]
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

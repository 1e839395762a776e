"""docs/core_nodes.md, row by row: every node of ComfyUI that takes and gives a MODEL."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import folder_paths
import pytest
from comfy.utils import save_torch_file
from core_nodes import Bench, NeedsOthers, graph_with, of_models
from loras import lora

import nodes
from hybrid_core.comfy_bridge import demo_models

ROOT = Path(__file__).resolve().parents[2]
DOC = ROOT / "docs" / "core_nodes.md"
ROWS = re.findall(r"^\| `([^`]+)` \| (\w+) \| (\w+) \| (.*) \|$", DOC.read_text(), re.M)
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def bench(session, tmp_path_factory):
    """Every node of ComfyUI and of this pack, and a LoRA for the demo U-Net."""
    folder = tmp_path_factory.mktemp("loras")
    save_torch_file(lora(demo_models.load_model("unet")), str(folder / "some.safetensors"))
    folder_paths.add_model_folder_path("loras", str(folder))

    async def load():
        await nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False)
        await nodes.load_custom_node(str(ROOT), module_parent="custom_nodes")

    before = session.busy, session.on_change
    asyncio.run(load())
    yield Bench(session)
    session.busy, session.on_change = before
    folder_paths.folder_names_and_paths["loras"][0].remove(str(folder))


def test_every_node_has_a_row(bench):
    missing = set(of_models()) - {name for name, *_ in ROWS}
    assert not missing


@pytest.mark.parametrize(("name", "kind", "how", "reason"), ROWS, ids=[row[0] for row in ROWS])
def test_a_node_runs_as_the_document_says(bench, name, kind, how, reason):
    if name not in nodes.NODE_CLASS_MAPPINGS:
        pytest.skip(f"this ComfyUI has no {name}")
    if how == "untried":
        with pytest.raises(NeedsOthers):
            graph_with(name, kind)
        return
    outcome = bench.outcome(graph_with(name, kind), kind)
    assert outcome.how == how, outcome.reason
    assert outcome.error <= (TOLERANCE if how == "shared" else 0.0)
    if how == "local":
        assert reason in outcome.reason


@pytest.mark.parametrize("sampling", ["v_prediction", "lcm"])
def test_another_sampling_behind_attach_is_not_the_one_before_it(bench, sampling):
    graph = graph_with("FreeU", "unet")
    assert bench.outcome(graph, "unet").how == "shared"
    patched = nodes.NODE_CLASS_MAPPINGS["ModelSamplingDiscrete"]()
    outcome = bench.outcome(
        graph, "unet", behind=lambda model: patched.patch(model, sampling, False)[0]
    )
    assert outcome.how == "shared" and outcome.error <= TOLERANCE

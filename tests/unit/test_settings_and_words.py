"""Settings, the worker's device, the demo's words, checksums, the layers."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybrid_core import demo_words
from hybrid_core.checksum import checksum, first_difference
from hybrid_core.config import Settings, check_mode, processor_cores
from hybrid_core.errors import ConfigError, UnknownWordError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"slot_bytes": 100}, "slot_bytes is 100"),
        ({"slot_bytes": 4097}, "multiple of 64"),
        ({"step_seconds": 0}, "step_seconds is 0"),
        ({"idle_seconds": float("nan")}, "idle_seconds is nan"),
        ({"step_factor": 0.5}, "step_factor is 0.5"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, said):
    with pytest.raises(ConfigError, match=said):
        Settings(**wrong)


def test_processor_cores():
    device = processor_cores("cpu:2,3")
    assert (device.cores, device.environment["OMP_NUM_THREADS"]) == ((2, 3), "2")


@pytest.mark.parametrize("text", ["cuda:1", "cpu", "cpu:", "cpu:a", "cpu:-1", "1"])
def test_wrong_cores_are_refused(text):
    with pytest.raises(ConfigError, match="expected cpu: and core numbers"):
        processor_cores(text)


def test_mode_words():
    assert check_mode("off") == "off"
    with pytest.raises(ConfigError, match="expected one of adaptive, paper, exact, off"):
        check_mode("")


def test_prompt_words_become_tokens():
    ids = demo_words.encode("A large, red circle at the top-left on a navy background; striped.")
    assert ids == tuple(
        demo_words.token(name, demo_words.ATTRIBUTES[name].index(word))
        for name, word in zip(
            demo_words.ATTRIBUTES,
            ("circle", "red", "navy", "top-left", "large", "striped"),
            strict=True,
        )
    )
    assert demo_words.encode("") == demo_words.EMPTY
    assert demo_words.encode("red red") == demo_words.encode("red")


def test_two_words_for_one_attribute_are_refused():
    with pytest.raises(UnknownWordError, match="two words for the colour: 'red' and 'blue'"):
        demo_words.encode("red blue circle")


@given(st.text())
def test_any_prompt_is_tokens_or_an_error_that_lists_the_words(text):
    try:
        ids = demo_words.encode(text)
    except UnknownWordError as error:
        assert "triangle" in str(error)
        return
    assert len(ids) == 6
    assert all(0 <= i < demo_words.VOCABULARY_SIZE for i in ids)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int8, torch.bool])
def test_checksum_tells_one_changed_element(dtype):
    weight = torch.randint(0, 2, (31, 7)).to(dtype)
    changed = weight.clone()
    changed[17, 3] = changed[17, 3].logical_not().to(dtype)
    assert checksum(weight) == checksum(weight.clone())
    assert checksum(weight) != checksum(changed)


def test_first_difference_names_the_weight():
    assert first_difference({"a": 1}, {"a": 1}) is None
    assert first_difference({"a": 1, "b": 2}, {"a": 1, "b": 3}) == "b"
    assert first_difference({"a": 1}, {"a": 1, "c": 0}) == "c"


# modules import only from their own rank or a lower one; the worker's entry composes its process
RANKS = [
    (
        "errors",
        "config",
        "nvml",
        "devices",
        "demo_words",
        "checksum",
        "policy",
        "report",
        "live",
        "curve",
        "settled",
    ),
    ("curve_figure",),
    ("transport",),
    ("worker",),
    ("stages", "discrepancy", "guidance", "features", "trajectory", "stepper", "run"),
    ("comfy_bridge", "diffusers_bridge"),
]
COMPOSES = {Path("hybrid_core/worker/entry.py")}
WITHOUT_TORCH = (
    "errors",
    "config",
    "policy",
    "report",
    "live",
    "stages/plan",
    "demo_words",
    "nvml",
    "transport/wire",
    "transport/shared_memory",
)


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rank(module):
    names = module.split(".")
    if names[0] != "hybrid_core" or len(names) < 2:
        return -1
    return next(i for i, group in enumerate(RANKS) if names[1] in group)


def test_imports_point_down():
    for path in sorted((ROOT / "hybrid_core").rglob("*.py")):
        relative = path.relative_to(ROOT)
        if relative in COMPOSES or path.name == "__init__.py":
            continue
        own = rank(".".join(relative.with_suffix("").parts))
        for module in imports(path):
            assert rank(module) <= own, f"{relative} imports {module}"


@pytest.mark.parametrize("name", [*WITHOUT_TORCH, "worker/entry"])
def test_what_the_worker_imports_first_does_not_import_torch(name):
    tree = ast.parse((ROOT / "hybrid_core" / f"{name}.py").read_text())
    top = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    modules = [n.module if isinstance(n, ast.ImportFrom) else n.names[0].name for n in top]
    assert not [m for m in modules if m.split(".")[0] == "torch"]
    own = [m.removeprefix("hybrid_core.").replace(".", "/") for m in modules if "hybrid" in m]
    assert set(own) <= {*WITHOUT_TORCH, "transport"}


def test_package_markers_are_empty():
    for path in (ROOT / "hybrid_core").rglob("__init__.py"):
        assert path.read_text() == ""

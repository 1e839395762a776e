"""Who imports whom, read from everything that is shipped: nothing upward, nothing in a circle."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Rooms from the ground up; those of a line know nothing of each other.
FLOORS = (
    ("errors", "config"),
    ("machine", "planning", "telling"),
    ("transport", "stages"),
    ("course",),
    ("workers",),
    ("driver",),
    ("comfy_bridge", "diffusers_bridge"),
)
OF_ONE_FLOOR = {("config", "errors")}
IMPORTED_BEFORE_TORCH = (
    "errors", "config", "course.policy", "telling.report", "telling.live", "stages.plan",
    "comfy_bridge.demo_words", "machine.nvml", "transport.wire",
    "transport.arenas.shared_memory", "workers.process.entry",
)  # fmt: skip


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted((ROOT / "hybrid_core").rglob("*.py"))}


def imports(path, top_only=False):
    """Modules of hybrid_core that a file imports; top_only: not inside functions."""
    tree = ast.parse(path.read_text())
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [n if n in MODULES else node.module for n in inner]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "hybrid_core")


def floor(module):
    room = module.split(".")[1]
    return next(i for i, rooms in enumerate(FLOORS) if room in rooms)


@pytest.mark.parametrize("module", [name for name in MODULES if name != "hybrid_core"])
def test_imports_point_down(module):
    own, room = floor(module), module.split(".")[1]
    for other in set(imports(MODULES[module])):
        if (theirs := other.split(".")[1]) != room and (room, theirs) not in OF_ONE_FLOOR:
            assert floor(other) < own, f"{module} imports {other}"


def test_no_modules_import_each_other_in_a_circle():
    graph = {name: set(imports(path)) - {name} for name, path in MODULES.items()}
    while True:
        leaves = {name for name, others in graph.items() if not others}
        if not leaves:
            break
        graph = {name: others - leaves for name, others in graph.items() if name not in leaves}
    assert not graph, f"in or above a circle: {sorted(graph)}"


def test_nodes_know_their_own_package_and_hybrid_core():
    for path in sorted((ROOT / "nodes").glob("*.py")):
        for module in imports(path):
            assert module in MODULES, f"{path.name} imports {module}"


@pytest.mark.parametrize("name", IMPORTED_BEFORE_TORCH)
def test_what_the_worker_imports_first_does_not_import_torch(name):
    seen, waiting = set(), [f"hybrid_core.{name}"]
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        tree = ast.parse(MODULES[module].read_text())
        for node in tree.body:
            if isinstance(node, ast.Import):
                assert not [a.name for a in node.names if a.name.split(".")[0] == "torch"], module
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] != "torch", module
        packages = [module.rsplit(".", i)[0] for i in range(1, module.count(".") + 1)]
        waiting += [*imports(MODULES[module], top_only=True), *packages]


def test_ray_is_imported_by_one_file_and_only_when_it_is_called():
    for module, path in MODULES.items():
        nodes = ast.walk(tree := ast.parse(path.read_text()))
        using = [node for node in nodes if "ray" in imported(node)]
        assert not using or module == "hybrid_core.workers.ray.cluster"
        assert not [node for node in tree.body if "ray" in imported(node)]


def imported(node):
    """First parts of the names that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module.split(".")[0]]
    return []

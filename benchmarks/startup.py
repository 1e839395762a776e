"""What the pack adds to ComfyUI's start: its import, in fresh processes.

    python dev.py bench startup [--json] [--rounds 5] [--against FOLDER]

ComfyUI's own modules are imported first, then the pack as ComfyUI does it, timed in processor time.
against: another checkout of the pack, process by process beside this one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.report import ROOT, Row, progress, publish

IMPORT = """
import asyncio, importlib.util, json, os, sys, time
comfyui, pack = sys.argv[1:]
sys.path.insert(0, comfyui)
from comfy.cli_args import args
args.cpu = True
import nodes, comfy_api.latest, comfy_execution.utils, server
before = set(sys.modules)
since = time.process_time()
spec = importlib.util.spec_from_file_location(
    "a_pack", os.path.join(pack, "__init__.py"), submodule_search_locations=[pack]
)
module = importlib.util.module_from_spec(spec)
sys.modules["a_pack"] = module
spec.loader.exec_module(module)
asyncio.run(module.comfy_entrypoint())
taken = time.process_time() - since
new = set(sys.modules) - before
mine = [name for name in new if name.split(".")[0] in ("a_pack", "hybrid_core")]
print(json.dumps([taken, len(mine), len(new) - len(mine), "ray" in sys.modules]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="dev.py bench startup", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", type=Path)
    arguments = parser.parse_args()
    packs = {"this checkout": ROOT}
    if arguments.against is not None:
        packs["against"] = arguments.against.resolve()
    seen: dict[str, list[tuple[float, int, int, bool]]] = {name: [] for name in packs}
    for count in range(arguments.rounds + 1):  # the first round compiles what is not compiled
        for name, folder in packs.items():
            found = imported(folder)
            progress(f"{name}: {found[0] * 1000:.0f} ms")
            if count:
                seen[name].append(found)
    publish("startup", [row(name, found) for name, found in seen.items()])


def imported(folder: Path) -> tuple[float, int, int, bool]:
    """Seconds of processor time, modules of the pack, other new modules, whether Ray is one."""
    command = [sys.executable, "-c", IMPORT, os.environ["COMFYUI_DIR"], str(folder)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    taken, mine, others, ray = json.loads(done.stdout.splitlines()[-1])
    return taken, mine, others, ray


def row(name: str, found: list[tuple[float, int, int, bool]]) -> Row:
    taken = [seconds * 1000 for seconds, *_ in found]
    _, mine, others, ray = found[-1]
    return {
        "arm": name,
        "rounds": len(found),
        "import_ms": round(statistics.median(taken), 1),
        "import_ms_min": round(min(taken), 1),
        "import_ms_max": round(max(taken), 1),
        "modules": mine,
        "other_modules": others,
        "ray": ray,
    }


if __name__ == "__main__":
    main()

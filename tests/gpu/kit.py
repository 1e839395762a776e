"""What a machine with torch, a GPU and no network lacks to run ComfyUI and the tests.

    python dev.py gpu-kit [--python 3.12]     packs it into .dev/gpu-kit; needs the network
    python dev.py --kit gpu                   unpacks it there and runs with it

The machine's own packages come first and the kit's fill the gaps, but for pytest, which is the
kit's. What ComfyUI imports and these tests never use, too large to carry, is stood in for by
boot/sitecustomize.py where the machine lacks it. Standard library only.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KIT = ROOT / ".dev" / "gpu-kit"
UNPACKED = ROOT / ".dev" / "gpu-kit-unpacked"
BOOT = Path(__file__).resolve().parent / "boot"
COMFYUI = "ComfyUI.tar.xz"
MOST_BYTES = 28 << 20  # together with the repository's own files it has to stay under 64 MiB

FIRST = ("pytest", "pluggy", "iniconfig", "pygments", "packaging", "hypothesis", "sortedcontainers")
LAST = (
    "einops", "torchsde", "trampoline", "tqdm", "psutil", "PyYAML", "safetensors", "comfy-aimdo",
    "cuda-bindings", "cuda-pathfinder", "typing_extensions", "filelock", "pillow",
    "comfy-kitchen",
)  # fmt: skip
PARTS = ("comfy", "comfy_extras", "comfy_api", "comfy_execution", "comfy_config", "utils", "app")
LEFT_OUT = (".json", ".txt", ".model", ".pyc", ".md")  # tokenizers' tables
KERNELS = "_C.abi3.so"  # comfy-kitchen's, 170 MB; its plain torch code does the same
GLIBC = ("2_28", "2_27", "2_24", "2_17", "2_12")


def main() -> None:
    parser = argparse.ArgumentParser(prog="dev.py gpu-kit", description=__doc__)
    parser.add_argument("--python", default=f"{sys.version_info[0]}.{sys.version_info[1]}")
    arguments = parser.parse_args()
    size = pack(Path(os.environ["COMFYUI_DIR"]), arguments.python)
    print(f"{KIT} holds {size / 2**20:.1f} MiB for Python {arguments.python}")


def pack(comfyui: Path, python: str) -> int:
    """Make the kit for Python `python` on x86-64 Linux; its size in bytes."""
    for folder in (KIT, UNPACKED):
        shutil.rmtree(folder, ignore_errors=True)
    KIT.mkdir(parents=True)
    with tarfile.open(KIT / COMFYUI, "w:xz") as archive:
        for part in (*PARTS, *(file.name for file in comfyui.glob("*.py"))):
            archive.add(comfyui / part, part, filter=_wanted)
    platforms = [f"manylinux_{glibc}_x86_64" for glibc in GLIBC]
    platforms += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"]
    for folder, names in (("first", FIRST), ("last", LAST)):
        subprocess.run(
            [
                sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                "--only-binary=:all:", "--implementation", "cp", "--python-version", python,
                *(word for platform in platforms for word in ("--platform", platform)),
                "--dest", str(KIT / folder), *(f"{name}=={version(name)}" for name in names),
            ],
            check=True,
        )  # fmt: skip
    for wheel in (KIT / "last").glob("comfy_kitchen-*.whl"):
        _without_kernels(wheel)
    (KIT / "python").write_text(python)
    size = sum(file.stat().st_size for file in KIT.rglob("*") if file.is_file())
    if size > MOST_BYTES:
        sys.exit(f"the kit has {size} bytes, expected at most {MOST_BYTES}: leave something out")
    return size


def _wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if entry.name.endswith(LEFT_OUT) or entry.name.endswith("__pycache__"):
        return None
    return entry


def _without_kernels(wheel: Path) -> None:
    whole = wheel.rename(wheel.with_suffix(".whole"))
    with zipfile.ZipFile(whole) as full, zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as light:
        for name in full.namelist():
            if not name.endswith(KERNELS):
                light.writestr(name, full.read(name))
    whole.unlink()


def environment() -> dict[str, str]:
    """For a process of this very Python that is to run with the kit."""
    if not KIT.is_dir():
        sys.exit(f"there is no {KIT}; make it where there is a network: python dev.py gpu-kit")
    packed, own = (KIT / "python").read_text(), f"{sys.version_info[0]}.{sys.version_info[1]}"
    if packed != own:
        sys.exit(f"the kit was packed for Python {packed}, this is {own}: pack it with --python")
    _unpack()
    return {
        **os.environ,
        "COMFYUI_DIR": str(UNPACKED / "ComfyUI"),
        "PYTHONPATH": os.pathsep.join((str(BOOT), str(UNPACKED / "first"))),
        "HYBRID_KIT_LAST": str(UNPACKED / "last"),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
    }


def _unpack() -> None:
    ready = UNPACKED / "ready"
    if ready.is_file() and ready.stat().st_mtime >= KIT.stat().st_mtime:
        return
    shutil.rmtree(UNPACKED, ignore_errors=True)
    with tarfile.open(KIT / COMFYUI) as archive:
        archive.extractall(UNPACKED / "ComfyUI", filter="data")
    for name in ("models", "input", "output", "temp", "custom_nodes"):
        (UNPACKED / "ComfyUI" / name).mkdir()
    for folder in ("first", "last"):
        for wheel in (KIT / folder).glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(UNPACKED / folder)
    ready.touch()


if __name__ == "__main__":
    main()

"""Fetch and render the emoji that the models learn from: `python -m demo.training data`.

Noto Emoji (Google, Apache-2.0) and Twemoji (Twitter and contributors, CC BY 4.0) come as SVG from
the npm registry; `npm` and the Python package resvg-py are needed once. Nothing of it is committed.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from demo.training import words
from hybrid_core.comfy_bridge.demo_words import ATTRIBUTES

SIDE = 72  # pixels of a rendered emoji
PACKAGES = {"noto": "@svgmoji/noto@3.2.0", "twemoji": "@twemoji/svg@15.0.0"}
SVG = "http://www.w3.org/2000/svg"


def fetch(folder: Path) -> Path:
    """The file of rendered emoji, made in `folder` when it is not there yet."""
    path = folder / "emoji.safetensors"
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        drawings = [_drawings(style, Path(name)) for style in words.STYLES]
    pictures = np.stack(
        [
            np.stack([render(drawing[code_points(sign)]) for sign in words.EMOJI.values()])
            for drawing in drawings
        ]
    )
    names = json.dumps(ATTRIBUTES["subject"])
    save_file({"emoji": torch.from_numpy(pictures)}, path, metadata={"subjects": names})
    return path


def load(path: Path) -> torch.Tensor:
    """Emoji, premultiplied, in 0..1: (styles, subjects, 4, SIDE, SIDE).

    Raises ValueError when the file holds other subjects than demo_words.py.
    """
    with safe_open(path, "pt") as file:
        if json.loads(file.metadata()["subjects"]) != list(ATTRIBUTES["subject"]):
            raise ValueError(
                f"{path} holds other subjects than demo_words.py; delete it, run again"
            )
        pixels = file.get_tensor("emoji").permute(0, 1, 4, 2, 3).float() / 255
    return torch.cat([pixels[:, :, :3] * pixels[:, :, 3:], pixels[:, :, 3:]], 2)


def code_points(sign: str) -> str:
    """How both packages name a drawing, without the selector of its variant."""
    return "-".join(f"{ord(c):x}" for c in sign if ord(c) != 0xFE0F)


def render(svg: str) -> np.ndarray:
    """Pixels of a drawing, (SIDE, SIDE, 4), straight alpha, 0..255."""
    try:
        import resvg_py
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("rendering needs resvg-py: pip install resvg-py") from error
    png = resvg_py.svg_to_bytes(svg_string=svg, width=SIDE, height=SIDE)
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA"))


def _drawings(style: str, folder: Path) -> dict[str, str]:
    """SVG texts of a package by code points."""
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("npm is not installed; it fetches the emoji's packages")
    packed = subprocess.run(
        [npm, "pack", "--silent", PACKAGES[style]],
        cwd=folder, check=True, capture_output=True, text=True,
    ).stdout.strip().splitlines()[-1]  # fmt: skip
    with tarfile.open(folder / packed) as archive:
        if style == "noto":
            sheet = archive.extractfile("package/sprites/all.svg")
            assert sheet is not None
            return sprites(sheet.read())
        files = {Path(member.name): member for member in archive if member.name.endswith(".svg")}
        return {
            _bare(path.stem): archive.extractfile(member).read().decode()  # type: ignore[union-attr]
            for path, member in files.items()
        }


def sprites(sheet: bytes) -> dict[str, str]:
    """SVG texts of a sheet whose children are drawings with code points as ids."""
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    found = {}
    for child in ElementTree.fromstring(sheet):  # noqa: S314  a pinned package
        name = child.get("id")
        if child.tag == f"{{{SVG}}}svg" and name:
            found[_bare(name.lower())] = ElementTree.tostring(child, encoding="unicode")
    return found


def _bare(name: str) -> str:
    return re.sub("-fe0f", "", name)

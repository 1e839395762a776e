"""Prompts that a server runs, and what came of them."""

from __future__ import annotations

import re
import time

from safetensors.torch import load_file

from .graphs import graph


def latents(server, prompt):
    (saved,) = server.run(prompt)["outputs"]["save"]["latents"]
    path = server.folder / "output" / saved["subfolder"] / saved["filename"]
    return load_file(path)["latent_tensor"]


def last_count(server):
    """(shared, all) steps of the last run in the log."""
    return tuple(map(int, re.findall(r"(\d+) of (\d+) steps shared", server.log)[-1]))


def until_shared(server, model="mmdit"):
    """Run until the second process takes part."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        server.run(graph(model=model, seed=time.monotonic_ns()))
        if last_count(server) == (4, 4):
            return
        time.sleep(0.3)
    raise AssertionError(f"the second process took no part:\n{server.log[-2000:]}")

"""A real ComfyUI server with this pack, one for all the tests here."""

from __future__ import annotations

import os

import pytest

if "COMFYUI_DIR" not in os.environ:
    pytest.skip("COMFYUI_DIR is not set; run python dev.py test", allow_module_level=True)

from demo.server import serving  # noqa: E402


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield running
        assert running.process.poll() is None, "the server ended during the tests"

"""What a model is called where artists read it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hybrid_core.comfy_bridge.naming import spoken_name


class SD3:
    pass


def load(*_):
    raise AssertionError("nothing is loaded for a name")


@pytest.mark.parametrize(
    ("factory", "name"),
    [
        ((load, ("/models/a.safetensors", False, None, ["/embeddings"])), "a.safetensors"),
        ((load, ("/models/a.safetensors", False), 0), "a.safetensors"),
        ((load, (["/a/clip_l.safetensors", "/a/t5.safetensors"], None)), "clip_l.safetensors"),
        ((load, ("mmdit",)), "mmdit"),
        ((load, ("", 3)), "SD3"),
        ((load, ()), "SD3"),
        ((load,), "SD3"),
        ("of another kind", "SD3"),
        (None, "SD3"),
    ],
)  # fmt: skip
def test_the_file_is_named_where_it_is_known(factory, name):
    patcher = SimpleNamespace(model=SD3(), cached_patcher_init=factory)
    assert spoken_name(patcher) == name


def test_a_patcher_of_an_older_comfyui_is_named_after_its_class():
    assert spoken_name(SimpleNamespace(model=SD3())) == "SD3"

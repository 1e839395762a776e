"""Settings, the worker's device, the demo's words, checksums."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybrid_core.comfy_bridge import demo_words
from hybrid_core.config import Settings, check_mode, processor_cores
from hybrid_core.errors import ConfigError, UnknownWordError
from hybrid_core.machine.checksum import checksum, first_difference

ROOT = Path(__file__).resolve().parents[2]
HELP = ROOT / "web" / "docs" / "Hybrid_DemoPrompt.md"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"slot_bytes": 100}, "slot_bytes is 100"),
        ({"slot_bytes": 4097}, "multiple of 64"),
        ({"step_seconds": 0}, "step_seconds is 0"),
        ({"idle_seconds": float("nan")}, "idle_seconds is nan"),
        ({"step_factor": 0.5}, "step_factor is 0.5"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, said):
    with pytest.raises(ConfigError, match=said):
        Settings(**wrong)


def test_processor_cores_are_read_with_as_many_threads():
    device = processor_cores("cpu:2,3")
    assert (device.cores, device.environment["OMP_NUM_THREADS"]) == ((2, 3), "2")


@pytest.mark.parametrize("text", ["cuda:1", "cpu", "cpu:", "cpu:a", "cpu:-1", "1"])
def test_wrong_cores_are_refused(text):
    with pytest.raises(ConfigError, match="expected cpu: and core numbers"):
        processor_cores(text)


def test_a_mode_that_is_none_lists_the_modes():
    assert check_mode("off") == "off"
    with pytest.raises(ConfigError, match="expected one of adaptive, paper, exact, off"):
        check_mode("")


def test_prompt_words_become_tokens():
    fox, noto, navy, red = (demo_words.encode(word) for word in ("fox", "noto", "navy", "red"))
    ids = demo_words.encode("A red, noto-style fox on a navy background; fox.".replace("-", " "))
    assert ids == (*fox[:8], noto[8], red[9], navy[10])
    nothing = demo_words.encode("")
    assert (nothing[0], nothing[-1]) == (0, demo_words.FIRST_ID["background"])
    assert not {*nothing[:9]} & {*ids}
    assert demo_words.encode("fox") == demo_words.encode("natural fox")


@pytest.mark.parametrize("word", ["foxes", "Pand", "butterflies"])
def test_a_word_near_a_known_one_gets_a_hint(word):
    with pytest.raises(UnknownWordError, match=r"Did you mean .*(fox|panda|butterfly)"):
        demo_words.encode(word)


@pytest.mark.parametrize("page", [HELP, *sorted(HELP.with_suffix("").glob("*.md"))])
def test_help_of_every_language_lists_all_words(page):
    said = set(re.findall(r"[a-z]+", page.read_text(encoding="utf-8")))
    words = {word for words in demo_words.ATTRIBUTES.values() for word in words}
    assert words - said == {demo_words.NATURAL}


def test_two_words_for_one_attribute_are_refused():
    with pytest.raises(UnknownWordError, match="two words for the colour: 'red' and 'blue'"):
        demo_words.encode("red blue circle")


@given(st.text())
def test_any_prompt_is_tokens_or_an_error_that_says_what_to_do(text):
    try:
        ids = demo_words.encode(text)
    except UnknownWordError as error:
        assert re.search("triangle|Did you mean|Keep one of them", str(error))
        return
    assert len(ids) == 11
    assert all(0 <= i < demo_words.VOCABULARY_SIZE for i in ids)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int8, torch.bool])
def test_checksum_tells_one_changed_element(dtype):
    weight = torch.randint(0, 2, (31, 7)).to(dtype)
    changed = weight.clone()
    changed[17, 3] = changed[17, 3].logical_not().to(dtype)
    assert checksum(weight) == checksum(weight.clone())
    assert checksum(weight) != checksum(changed)


def test_first_difference_names_the_weight():
    assert first_difference({"a": 1}, {"a": 1}) is None
    assert first_difference({"a": 1, "b": 2}, {"a": 1, "b": 3}) == "b"
    assert first_difference({"a": 1}, {"a": 1, "c": 0}) == "c"

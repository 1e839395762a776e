"""The four languages say the same: equal keys, equal placeholders, a help page for each node."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = ("zh", "ja", "ko")
FILES = ("nodeDefs.json", "main.json", "settings.json", "commands.json")
SCRIPTS = {"zh": "[一-鿿]", "ja": "[぀-ヿ一-鿿]", "ko": "[가-힣]"}


def texts(language, file):
    """Every text of a file by its path, as in "Hybrid_KSampler/inputs/seed/name"."""
    path = ROOT / "locales" / language / file
    return dict(flat(json.loads(path.read_text(encoding="utf-8"))))


def flat(values, path=""):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{path}{key}/")
        else:
            yield f"{path}{key}", value


def page(node, language):
    folder = ROOT / "web" / "docs"
    path = folder / f"{node}.md" if language == "en" else folder / node / f"{language}.md"
    return path.read_text(encoding="utf-8")


NODES = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_keys_are_those_of_the_english_file_in_its_order(language, file):
    assert list(texts(language, file)) == list(texts("en", file))


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("language", ("en", *LANGUAGES))
def test_no_text_is_empty_and_placeholders_are_kept(language, file):
    english = texts("en", file)
    for key, text in texts(language, file).items():
        assert isinstance(text, str) and text == text.strip() != "", key
        names = sorted(re.findall(r"\{(\w+)\}", text))
        assert names == sorted(re.findall(r"\{(\w+)\}", english[key])), key


@pytest.mark.parametrize("file", ("nodeDefs.json", "settings.json", "commands.json"))
@pytest.mark.parametrize("language", ("en", *LANGUAGES))
def test_texts_that_the_frontend_compiles_hold_nothing_it_would_take_for_code(language, file):
    for key, text in texts(language, file).items():
        assert not set("{}@|") & set(text), f"{key}: vue-i18n gives these a meaning"


@pytest.mark.parametrize("language", LANGUAGES)
def test_sentences_are_in_their_own_script(language):
    for file in FILES:
        english = texts("en", file)
        for key, text in texts(language, file).items():
            if len(english[key].split()) > 3:
                assert re.search(SCRIPTS[language], text), f"{file} {key}: {text}"


@pytest.mark.parametrize("language", ("en", *LANGUAGES))
@pytest.mark.parametrize("node", NODES)
def test_help_page_names_each_input(node, language):
    text = page(node, language)
    for name in NODES[node]["inputs"]:
        if name != "control_after_generate":
            assert f"`{name}`" in text, f"{language} {node}: {name}"


@pytest.mark.parametrize("language", ("en", *LANGUAGES))
@pytest.mark.parametrize("node", NODES)
def test_help_page_has_the_title_that_the_node_has(node, language):
    defs = ROOT / "locales" / language / "nodeDefs.json"
    name = json.loads(defs.read_text(encoding="utf-8"))[node]["display_name"]
    assert page(node, language).splitlines()[0] == f"# {name}"


def test_no_page_is_of_a_node_that_is_not_there():
    folder = ROOT / "web" / "docs"
    assert {path.stem for path in folder.glob("*.md")} == set(NODES)
    assert {path.parent.name for path in folder.glob("*/*.md")} == set(NODES)
    assert {path.stem for path in folder.glob("*/*.md")} == set(LANGUAGES)


KINDS = json.loads((ROOT / "hybrid_core" / "telling" / "kinds.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("language", ("en", *LANGUAGES))
@pytest.mark.parametrize("node", ("Hybrid_KSampler", "Hybrid_KSamplerAdvanced", "Hybrid_Monitor"))
def test_help_page_says_of_each_kind_of_step_what_the_node_says(node, language):
    text = page(node, language)
    for kind in KINDS["kinds"].values():
        assert f"| *{kind['name'][language]}* | {kind['says'][language]} |" in text

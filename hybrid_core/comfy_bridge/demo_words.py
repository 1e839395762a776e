"""The words of the demo models: six attributes of a drawn picture, one token each.

A prompt is a handful of these words in any order; an attribute that is not named stays open.
"""

from __future__ import annotations

import re

from hybrid_core.errors import UnknownWordError

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": ("circle", "square", "triangle", "cross", "ring"),
    "colour": ("red", "green", "blue", "yellow", "purple", "cyan", "white", "black"),
    "background": ("slate", "sand", "forest", "brick", "navy", "cream", "charcoal", "sky"),
    "position": (
        "top-left", "top", "top-right",
        "left", "center", "right",
        "bottom-left", "bottom", "bottom-right",
    ),
    "size": ("small", "medium", "large"),
    "texture": ("plain", "striped", "dotted"),
}  # fmt: skip
FILLERS = frozenset({"a", "an", "the", "of", "on", "in", "at", "and", "with", "background"})


def _first_ids() -> dict[str, int]:
    """Each attribute owns a run of token ids: first "not named", then its words."""
    ids, following = {}, 0
    for attribute, words in ATTRIBUTES.items():
        ids[attribute] = following
        following += 1 + len(words)
    return ids


FIRST_ID = _first_ids()
EMPTY = tuple(FIRST_ID.values())
VOCABULARY_SIZE = sum(1 + len(words) for words in ATTRIBUTES.values())
_MEANING = {word: name for name, words in ATTRIBUTES.items() for word in words}


def token(attribute: str, index: int) -> int:
    """Token id of word `index` of `attribute`."""
    return FIRST_ID[attribute] + 1 + index


def encode(prompt: str) -> tuple[int, ...]:
    """Token ids of `prompt`, one for each attribute, in the order of ATTRIBUTES.

    Raises UnknownWordError for a word that is not known and for two words of one attribute.
    """
    chosen: dict[str, str] = {}
    for word in re.findall(r"[^\s,.;]+", prompt.lower()):
        if word in FILLERS:
            continue
        attribute = _MEANING.get(word)
        if attribute is None:
            raise UnknownWordError(
                f"The demo models do not know the word '{word}'. {known_words()}"
            )
        if chosen.setdefault(attribute, word) != word:
            raise UnknownWordError(
                f"The prompt names two words for the {attribute}: '{chosen[attribute]}' and "
                f"'{word}'. Keep one of them. {known_words()}"
            )
    return tuple(
        token(name, words.index(chosen[name])) if name in chosen else FIRST_ID[name]
        for name, words in ATTRIBUTES.items()
    )


def known_words() -> str:
    """One sentence that lists every known word by attribute."""
    lists = "; ".join(f"{name}: {', '.join(words)}" for name, words in ATTRIBUTES.items())
    return f"Known words are {lists}."

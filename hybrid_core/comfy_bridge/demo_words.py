"""The words of the demo models: what a prompt can name, and the token ids that it becomes.

A prompt is a handful of these words in any order; an attribute that is not named stays open, but a
subject whose colour is not named has its own colours. A subject has several tokens: what it looks
like is remembered in the token table, where attention can read it part by part.
"""

from __future__ import annotations

import difflib
import re

from hybrid_core.errors import UnknownWordError

SUBJECTS: dict[str, tuple[str, ...]] = {
    "animals": (
        "cat", "dog", "fox", "bear", "panda", "koala", "tiger", "lion", "cow", "pig", "frog",
        "monkey", "hen", "penguin", "owl", "rabbit",
    ),
    "creatures": (
        "butterfly", "bee", "ladybird", "turtle", "octopus", "fish", "whale", "dolphin", "crab",
        "snail", "elephant", "unicorn", "snake", "duck", "horse", "spider",
    ),
    "faces": (
        "grin", "laughing", "smitten", "cool", "crying", "angry", "sleeping", "thinking", "scream",
        "robot", "ghost", "skull", "alien", "clown", "pumpkin", "snowman",
    ),
    "fruit": (
        "apple", "banana", "grapes", "strawberry", "cherries", "watermelon", "lemon", "pineapple",
        "carrot", "tomato", "avocado", "corn", "mushroom", "aubergine", "pear", "peach",
    ),
    "food": (
        "pizza", "burger", "fries", "hotdog", "doughnut", "cookie", "cake", "icecream", "lollipop",
        "egg", "cheese", "bread", "coffee", "beer", "sushi", "popcorn",
    ),
    "nature": (
        "sun", "moon", "star", "cloud", "rainbow", "lightning", "fire", "drop", "snowflake",
        "wave", "earth", "cactus", "fir", "palm", "sunflower", "rose",
    ),
    "travel": (
        "car", "bus", "ambulance", "firetruck", "tractor", "bicycle", "rocket", "plane",
        "helicopter", "sailboat", "ship", "train", "house", "castle", "tent", "ufo",
    ),
    "things": (
        "balloon", "gift", "football", "basketball", "guitar", "piano", "camera", "bulb", "key",
        "diamond", "crown", "hat", "umbrella", "clock", "books", "trophy",
    ),
    "shapes": (
        "heart", "circle", "square", "triangle", "cross", "ring", "note", "anchor",
    ),
}  # fmt: skip
NATURAL = "natural"
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "subject": tuple(word for words in SUBJECTS.values() for word in words),
    "style": ("noto", "twemoji"),
    "colour": (NATURAL, "red", "green", "blue", "yellow", "purple", "cyan", "white", "black"),
    "background": ("slate", "sand", "forest", "brick", "navy", "cream", "charcoal", "sky"),
}
TOKENS_A_WORD = {"subject": 8, "style": 1, "colour": 1, "background": 1}
FILLERS = frozenset(
    {"a", "an", "the", "of", "on", "in", "at", "and", "with", "background", "style", "emoji"}
)


def _first_ids() -> dict[str, int]:
    """Each attribute owns a run of token ids: first those of "not named", then its words'."""
    ids, following = {}, 0
    for attribute, words in ATTRIBUTES.items():
        ids[attribute] = following
        following += (1 + len(words)) * TOKENS_A_WORD[attribute]
    return ids


FIRST_ID = _first_ids()
VOCABULARY_SIZE = sum((1 + len(words)) * TOKENS_A_WORD[name] for name, words in ATTRIBUTES.items())
_MEANING = {word: name for name, words in ATTRIBUTES.items() for word in words}


def encode(prompt: str) -> tuple[int, ...]:
    """Token ids of `prompt`, TOKENS_A_WORD of each attribute, in the order of ATTRIBUTES.

    Raises UnknownWordError for a word that is not known and for two words of one attribute.
    """
    chosen: dict[str, str] = {}
    for word in re.findall(r"[^\s,.;]+", prompt.lower()):
        if word in FILLERS:
            continue
        attribute = _MEANING.get(word)
        if attribute is None:
            raise UnknownWordError(f"The demo models do not know the word '{word}'. {_hint(word)}")
        if chosen.setdefault(attribute, word) != word:
            raise UnknownWordError(
                f"The prompt names two words for the {attribute}: '{chosen[attribute]}' and "
                f"'{word}'. Keep one of them."
            )
    if "subject" in chosen:
        chosen.setdefault("colour", NATURAL)
    return tuple(i for name in ATTRIBUTES for i in _ids(name, chosen.get(name)))


def known_words() -> str:
    """One sentence that lists every known word by attribute."""
    lists = "; ".join(f"{name}: {', '.join(words)}" for name, words in ATTRIBUTES.items())
    return f"Known words are {lists}."


def _ids(attribute: str, word: str | None) -> range:
    width = TOKENS_A_WORD[attribute]
    at = 0 if word is None else 1 + ATTRIBUTES[attribute].index(word)
    first = FIRST_ID[attribute] + at * width
    return range(first, first + width)


def _hint(word: str) -> str:
    near = difflib.get_close_matches(word, _MEANING, cutoff=0.75)
    return f"Did you mean {' or '.join(near)}?" if near else known_words()

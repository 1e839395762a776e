"""The words of the emoji models: what a prompt can name, and the tokens it becomes.

A subject has several tokens of its own: what it looks like is remembered in the token table, where
attention can read it part by part. Every other attribute has one token.
"""

from __future__ import annotations

from pathlib import Path

import torch

from hybrid_core.comfy_bridge.demo_words import ATTRIBUTES as DRAWN


def _subjects() -> tuple[dict[str, str], dict[str, str]]:
    """Emoji by name and group by name, in the order of subjects.txt."""
    emoji, group = {}, {}
    for line in Path(__file__).with_name("subjects.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            title, listed = line.split(":")
            pairs = listed.split()
            for sign, name in zip(pairs[::2], pairs[1::2], strict=True):
                emoji[name], group[name] = sign, title
    return emoji, group


EMOJI, GROUP = _subjects()
STYLES = ("noto", "twemoji")
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "subject": tuple(EMOJI),
    "style": STYLES,
    "colour": ("natural", *DRAWN["colour"]),
    "background": DRAWN["background"],
}
COUNTS = tuple(len(words) for words in ATTRIBUTES.values())
WIDTHS = (8, 1, 1, 1)  # tokens of one word of each attribute
TOKENS = sum(WIDTHS)


def _first_ids() -> list[int]:
    ids, following = [], 0
    for count, width in zip(COUNTS, WIDTHS, strict=True):
        ids.append(following)
        following += (1 + count) * width
    return [*ids, following]


*FIRST_ID, VOCABULARY_SIZE = _first_ids()


def tokens(labels: torch.Tensor) -> torch.Tensor:
    """Token ids, (B, TOKENS), of word indices, (B, 4); -1 stands for an attribute not named."""
    parts = [
        first + (column[:, None] + 1) * width + torch.arange(width)
        for first, width, column in zip(FIRST_ID, WIDTHS, labels.unbind(1), strict=True)
    ]
    return torch.cat(parts, 1)


def drop(
    labels: torch.Tensor, whole: float, each: float, generator: torch.Generator
) -> torch.Tensor:
    """Labels become -1: whole prompts with chance `whole`, single words with chance `each`."""
    gone = torch.rand(len(labels), 1, generator=generator) < whole
    gone = gone | (torch.rand(labels.shape, generator=generator) < each)
    return labels.masked_fill(gone, -1)


def held_out(labels: torch.Tensor) -> torch.Tensor:
    """Which labels, (B, 4), training never draws: a tenth of the pairs of subject and colour."""
    subject, _, colour, _ = labels.unbind(1)
    return (colour > 0) & ((subject * 3 + colour * 7) % 10 == 0)


def random_labels(
    batch: int, generator: torch.Generator, tinted: float = 0.4, unseen: bool = False
) -> torch.Tensor:
    """Word indices, (B, 4); unseen: only what training never draws.

    tinted: share of pictures in a colour of their own.
    """
    kept: list[torch.Tensor] = []
    while sum(map(len, kept)) < batch:
        columns = [torch.randint(0, count, (batch,), generator=generator) for count in COUNTS]
        natural = torch.rand(batch, generator=generator) >= tinted
        columns[2] = torch.where(
            natural, 0, torch.randint(1, COUNTS[2], (batch,), generator=generator)
        )
        labels = torch.stack(columns, 1)
        kept.append(labels[held_out(labels) == unseen])
    return torch.cat(kept)[:batch]


def caption(label: torch.Tensor) -> str:
    """The prompt of one row of word indices, without the word for natural colours."""
    subject, style, colour, background = (
        words[int(i)] for i, words in zip(label, ATTRIBUTES.values(), strict=True)
    )
    tint = "" if colour == "natural" else f"{colour} "
    return f"{tint}{subject}, {style}, {background} background"

"""What training knows of the words beside the pack: emoji, labels, and what is held out.

A label is a row of word indices, one for each attribute; -1 stands for one that is not named.
"""

from __future__ import annotations

import torch

from hybrid_core.comfy_bridge.demo_words import (
    ATTRIBUTES,
    FIRST_ID,
    NATURAL,
    SUBJECTS,
    TOKENS_A_WORD,
)

SIGNS = {
    "animals": "🐱 🐶 🦊 🐻 🐼 🐨 🐯 🦁 🐮 🐷 🐸 🐵 🐔 🐧 🦉 🐰",
    "creatures": "🦋 🐝 🐞 🐢 🐙 🐟 🐳 🐬 🦀 🐌 🐘 🦄 🐍 🦆 🐴 🕷",
    "faces": "😀 😂 😍 😎 😢 😡 😴 🤔 😱 🤖 👻 💀 👽 🤡 🎃 ⛄",
    "fruit": "🍎 🍌 🍇 🍓 🍒 🍉 🍋 🍍 🥕 🍅 🥑 🌽 🍄 🍆 🍐 🍑",
    "food": "🍕 🍔 🍟 🌭 🍩 🍪 🎂 🍦 🍭 🥚 🧀 🍞 ☕ 🍺 🍣 🍿",
    "nature": "🌞 🌙 ⭐ ☁ 🌈 ⚡ 🔥 💧 ❄ 🌊 🌍 🌵 🌲 🌴 🌻 🌹",
    "travel": "🚗 🚌 🚑 🚒 🚜 🚲 🚀 ✈ 🚁 ⛵ 🚢 🚂 🏠 🏰 ⛺ 🛸",
    "things": "🎈 🎁 ⚽ 🏀 🎸 🎹 📷 💡 🔑 💎 👑 🎩 ☂ ⏰ 📚 🏆",
    "shapes": "❤ 🔴 🟦 🔺 ➕ ⭕ 🎵 ⚓",
}
EMOJI = {
    name: sign
    for group, names in SUBJECTS.items()
    for name, sign in zip(names, SIGNS[group].split(), strict=True)
}
GROUP = {name: group for group, names in SUBJECTS.items() for name in names}
STYLES = ATTRIBUTES["style"]
COUNTS = tuple(len(words) for words in ATTRIBUTES.values())


def tokens(labels: torch.Tensor) -> torch.Tensor:
    """Token ids, (B, 11), of labels, (B, 4)."""
    parts = [
        FIRST_ID[name] + (column[:, None] + 1) * width + torch.arange(width)
        for (name, width), column in zip(TOKENS_A_WORD.items(), labels.unbind(1), strict=True)
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
    tint = "" if colour == NATURAL else f"{colour} "
    return f"{tint}{subject}, {style}, {background} background"

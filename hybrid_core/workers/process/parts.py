"""A part of an evaluation in a message."""

from __future__ import annotations

from dataclasses import astuple
from itertools import pairwise
from typing import Any

from hybrid_core.errors import ProtocolError
from hybrid_core.stages.token_streams import WHOLE
from hybrid_core.transport import wire
from hybrid_core.workers.contract import Part, Pictures, Tokens

MOST_PLACES = 64


def fields_of(part: Part) -> dict[str, Any]:
    """What a message says of `part`; its branches are the context's."""
    units = {"upto": part.upto, "keep": part.keep}
    named: dict[str, Any] = {name: at for name, at in units.items() if at is not None}
    if part.pictures is not None:
        named["pictures"] = list(astuple(part.pictures))
    if part.tokens is not None:
        named["tokens"] = [part.tokens.place, *part.tokens.bounds]
        if part.tokens.relayed:
            named["relayed"] = 1
    if part.recorded:
        named["recorded"] = 1
    return named


def part_of(message: wire.Message) -> Part:
    """Without branches. Raises ProtocolError."""
    return Part(
        (),
        unit(message, "upto"),
        unit(message, "keep"),
        pictures(message),
        tokens(message),
        flag(message, "recorded"),
    )


def flag(message: wire.Message, key: str) -> bool:
    return key in message and wire.whole_number(message, key, 1) == 1


def unit(message: wire.Message, key: str) -> int | None:
    """The number of a block, None where none is named. Raises ProtocolError."""
    return wire.whole_number(message, key) if key in message else None


def pictures(message: wire.Message) -> Pictures | None:
    """Pictures of a batch, None where none are named. Raises ProtocolError."""
    if "pictures" not in message:
        return None
    numbers = whole_numbers(message, "pictures", 3)
    if len(numbers) != 3 or not numbers[0] < numbers[1] <= numbers[2]:
        raise ProtocolError(
            f"field 'pictures' is {wire.shown(numbers)}, expected the first, one past the last, "
            "and how many there are"
        )
    return Pictures(*numbers)


def tokens(message: wire.Message) -> Tokens | None:
    """Tokens of a forward pass, None where none are named. Raises ProtocolError."""
    if "tokens" not in message:
        return None
    place, *bounds = whole_numbers(message, "tokens", MOST_PLACES + 2) or [0]
    rising = len(bounds) > 2 and all(first < end for first, end in pairwise(bounds))
    if not rising or (bounds[0], bounds[-1]) != (0, WHOLE) or place >= len(bounds) - 1:
        raise ProtocolError(
            f"field 'tokens' is {wire.shown([place, *bounds])}, expected a place and bounds that "
            f"rise from 0 to {WHOLE}"
        )
    return Tokens(place, tuple(bounds), flag(message, "relayed"))


def whole_numbers(message: wire.Message, key: str, most: int) -> list[int]:
    return [wire.whole_number({key: value}, key) for value in wire.items(message, key, most)]

"""Messages between parent and worker: bounded JSON objects with a fixed set of operations.

    parent -> worker                          worker -> parent
    load    build a replica                   ready    the worker's ComfyUI is up
    chunk   a piece of a bulk transfer        more     the piece was taken
    conds   conditioning of a run             ok       done, with what was asked for
    evaluate  a part of an evaluation         result   its outputs, features at the cut
    gather  keys and values inside one        gather   the same, both ways in turns
    forget  drop a replica                    failed   could not, with the reason
    status  report memory and replicas
    plane   move tensors another way from now on
    probe   check that way: a known pattern
    cancel  stop what is running
    stop    end the process

Every request has a sequence number, its reply carries the same. A reply to a request that was
given up (Cancel, a deadline) is recognised by its number and dropped. Nothing is unpickled: what a
message may hold is what JSON holds.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from typing import Any

from hybrid_core.errors import ProtocolError

REQUESTS = frozenset(
    {
        "load", "chunk", "conds", "evaluate", "gather", "forget", "status", "plane", "probe",
        "cancel", "stop",
    }
)  # fmt: skip
IN_HOST_MEMORY = frozenset({"load", "chunk"})  # weights: on neither GPU when they are sent

REPLIES = frozenset({"ready", "more", "ok", "gather", "result", "failed"})
MAX_BYTES = 8 << 20

Message = dict[str, Any]

_short = reprlib.Repr()
_short.maxstring = 80


def shown(value: Any) -> str:
    """`value` for an error's text, short however long or deep it is."""
    return _short.repr(value)


def encode(op: str, number: int, fields: Mapping[str, Any]) -> bytes:
    """One message as bytes. Raises ProtocolError when it is longer than MAX_BYTES."""
    try:
        data = json.dumps({**fields, "op": op, "seq": number}, separators=(",", ":")).encode()
    except (ValueError, RecursionError) as error:  # a number of thousands of digits
        raise ProtocolError(f"a '{op}' message cannot be written: {error}") from error
    if len(data) > MAX_BYTES:
        raise ProtocolError(f"a '{op}' message has {len(data)} bytes, the limit is {MAX_BYTES}")
    return data


def decode(data: bytes, allowed: frozenset[str]) -> Message:
    """The message in `data`. Raises ProtocolError when it is not of the agreed form."""
    try:
        message = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a message of {len(data)} bytes is not JSON: {error}") from error
    if not isinstance(message, dict):
        raise ProtocolError(f"a message is a {type(message).__name__}, expected an object")
    op = message.get("op")
    if not isinstance(op, str) or op not in allowed:
        expected = ", ".join(sorted(allowed))
        raise ProtocolError(f"a message asks for {shown(op)}, expected one of {expected}")
    whole_number(message, "seq")
    return message


def whole_number(message: Message, key: str, most: int = 1 << 53) -> int:
    """A field that is a whole number in 0..most. Raises ProtocolError otherwise."""
    value = message.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise ProtocolError(
            f"field '{key}' is {shown(value)}, expected a whole number up to {most}"
        )
    return value


def text(message: Message, key: str, most: int = 100_000) -> str:
    """A field that is a string of at most `most` characters. Raises ProtocolError otherwise.

    What no file and no log takes (a lone half of a surrogate pair) comes as "?".
    """
    value = message.get(key)
    if not isinstance(value, str) or len(value) > most:
        raise ProtocolError(f"field '{key}' is {shown(value)}, expected a string")
    return value.encode(errors="replace").decode()


def items(message: Message, key: str, most: int = 100_000) -> list[Any]:
    """A field that is a list of at most `most` entries. Raises ProtocolError otherwise."""
    value = message.get(key)
    if not isinstance(value, list) or len(value) > most:
        raise ProtocolError(f"field '{key}' is {shown(value)}, expected a list")
    return value

"""Model files as two computers know them: by ComfyUI's kind of folder, the name in it, and a hash.

A path is another on each computer. What a loader was called with is told with names for paths, and
the other computer puts its own paths there.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import folder_paths

from hybrid_core.errors import NotPartitionable, ProtocolError
from hybrid_core.transport.wire import shown

FILE, FOLDERS = "model file", "model folders"
WHOLE_BYTES = 64 << 20  # a file up to this size is hashed from end to end
PIECES, PIECE_BYTES = 64, 1 << 20  # of a larger one; its weights are compared one by one later

_digests: dict[tuple[str, int, int], str] = {}  # by path, size and time of the last change


def digest(path: str) -> str:
    """Of a file's size and its bytes, or of pieces at even distances from its start to its end."""
    seen = os.stat(path)
    key = path, seen.st_size, seen.st_mtime_ns
    if key not in _digests:
        made = hashlib.sha256(str(seen.st_size).encode())
        with open(path, "rb") as file:
            if seen.st_size <= WHOLE_BYTES:
                made.update(file.read())
            else:
                for piece in range(PIECES):
                    file.seek((seen.st_size - PIECE_BYTES) * piece // (PIECES - 1))
                    made.update(file.read(PIECE_BYTES))
        _digests[key] = made.hexdigest()
    return _digests[key]


def named(value: Any) -> Any:
    """A loader's arguments with names for paths. Raises NotPartitionable for an unknown path."""
    if isinstance(value, str) and os.path.isabs(value):
        return _name(value)
    if isinstance(value, dict):
        return {key: named(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        kind = _kind_of_folders(value)
        if kind is not None:
            return {FOLDERS: kind}
        return type(value)(named(item) for item in value)
    return value


def found(value: Any) -> Any:
    """The arguments with this computer's paths. Raises NotPartitionable for a file that is not
    here or is another one, ProtocolError for what `named` does not write.
    """
    if isinstance(value, dict) and FOLDERS in value:
        return folder_paths.get_folder_paths(_text(value[FOLDERS]))
    if isinstance(value, dict) and FILE in value:
        return _path(*value[FILE])
    if isinstance(value, dict):
        return {key: found(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(found(item) for item in value)
    if isinstance(value, str) and os.path.isabs(value):
        raise ProtocolError(f"a path came from another computer: {shown(value)}")
    return value


def _name(path: str) -> Any:
    for kind, (folders, _) in folder_paths.folder_names_and_paths.items():
        for folder in folders:
            if os.path.isfile(path) and Path(path).is_relative_to(folder):
                name = Path(path).relative_to(folder).as_posix()
                return {FILE: (kind, name, digest(path))}
    raise NotPartitionable(
        f"{Path(path).name} is in no model folder of ComfyUI: another computer cannot find it by "
        "its name"
    )


def _path(kind: Any, name: Any, expected: Any) -> str:
    path = folder_paths.get_full_path(_text(kind), _text(name))
    if path is None:
        raise NotPartitionable(f"the other computer has no file {name} among its {kind}")
    if digest(path) != expected:
        raise NotPartitionable(
            f"the other computer's file {name} among its {kind} is another one: copy it anew"
        )
    return path


def _kind_of_folders(value: list[Any] | tuple[Any, ...]) -> str | None:
    kinds = folder_paths.folder_names_and_paths
    same = (kind for kind, (folders, _) in kinds.items() if value and list(folders) == list(value))
    return next(same, None)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ProtocolError(f"{shown(value)} came where the name of a model file was expected")
    return value

"""What a long benchmark has measured, picture by picture, so that it goes on where it ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.report import Row

Settings = dict[str, Any]


class Kept:
    """Measures of pictures by setting and arm. folder: None keeps them for this process only."""

    def __init__(self, folder: Path | None):
        self._folder = folder
        self._found: dict[str, tuple[Settings, dict[int, Row]]] = {}
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(folder.glob("*.jsonl")):
            for line in file.read_text().splitlines():
                one = json.loads(line)
                self._of(one["settings"])[one["picture"]] = one["measures"]

    def _of(self, settings: Settings) -> dict[int, Row]:
        return self._found.setdefault(json.dumps(settings), (settings, {}))[1]

    def has(self, settings: Settings, pictures: list[int]) -> bool:
        return all(picture in self._of(settings) for picture in pictures)

    def add(self, settings: Settings, picture: int, measures: Row) -> None:
        self._of(settings)[picture] = measures
        if self._folder is not None:
            file = self._folder / f"{settings['model'].replace(' ', '_')}.jsonl"
            with file.open("a") as out:
                line = {"settings": settings, "picture": picture, "measures": measures}
                out.write(json.dumps(line) + "\n")

    def everything(self) -> list[tuple[Settings, list[Row]]]:
        """Settings and their pictures' measures, by number of the picture."""
        return [
            (settings, [pictures[number] for number in sorted(pictures)])
            for settings, pictures in self._found.values()
            if pictures
        ]

"""What has to be the same when servers are started on their folder again: ports and passwords."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T", int, str)


class Kept:
    """Values by name in a JSON file that only its owner may read; each is written down when it is made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def get(self, name: str, make: Callable[[], T]) -> T:
        """The value of that name, made the first time."""
        if name not in self._values:
            return self.put(name, make())
        value: T = self._values[name]
        return value

    def put(self, name: str, value: T) -> T:
        """Keeps another value under that name, and gives it back."""
        self._values[name] = value
        write_whole(self._path, json.dumps(self._values, indent=1).encode() + b"\n")
        return value


def write_whole(path: Path, content: bytes, mode: int = 0o600) -> Path:
    """Writes a file whole or not at all, never readable for others in between; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    partial.replace(path)
    return path

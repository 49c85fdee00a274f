"""Which pictures a command line names: files as they are, folders searched for pictures, `-` for stdin."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from unmask.core.errors import BadConfig, BadImage, UnmaskError

STDIN: Final = "-"
_SUFFIXES: Final = frozenset(".jpg .jpeg .jpe .jfif .png .apng .webp .bmp .dib .gif .tif .tiff .avif .heic .heif".split())


@dataclass(slots=True)
class Skipped:
    """What a search of folders passed over."""

    files: int = 0


@dataclass(frozen=True, slots=True)
class Input:
    """One picture to judge: its name as given, and its bytes, its path, or why it cannot be read."""

    name: str
    source: bytes | Path | None
    error: UnmaskError | None = None


def shown(name: str) -> str:
    """A name for people and JSON: control characters and bytes that are not UTF-8 are backslash-escaped."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def expand(paths: Iterable[str], limit: int, skipped: Skipped) -> Iterator[Input]:
    """Inputs in the order of `paths`, a folder's sorted; at most `limit` + 1 bytes are read of stdin.

    Raises `BadConfig` when stdin is named twice.
    """
    seen_stdin = False
    for path in paths:
        if path == STDIN:
            if seen_stdin:
                raise BadConfig("'-' (one picture on stdin) can be named once")
            seen_stdin = True
            yield Input(STDIN, sys.stdin.buffer.read(limit + 1))
        elif Path(path).is_dir():
            found = False
            for file in _pictures(Path(path), skipped):
                found = True
                yield Input(str(file), file)
            if not found:
                yield Input(path, None, BadImage("the folder holds no pictures (by their names' endings)"))
        else:
            yield _file(path)


def _file(path: str) -> Input:
    """A file named outright is always tried; what is no file is named for what it is."""
    if Path(path).is_symlink() and not Path(path).exists():
        return Input(path, None, BadImage("a broken symbolic link"))
    return Input(path, Path(path))


def _pictures(folder: Path, skipped: Skipped) -> Iterator[Path]:
    """Files below a folder that are named like pictures, sorted; links to folders are not followed."""
    for root, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            if Path(name).suffix.lower() in _SUFFIXES:
                yield Path(root) / name
            else:
                skipped.files += 1

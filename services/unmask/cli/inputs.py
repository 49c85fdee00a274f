"""Which pictures a command line names: files as they are, folders searched for pictures, `-` for stdin."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
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


def plain(text: str) -> str:
    """Text that is safe on a terminal: what is not printable, or no UTF-8, is backslash-escaped."""
    text = os.fsencode(text).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(sign: str) -> str:
    r"""As Python writes it, but \u0085 for a sign that Python writes \x85: that would look like the one byte."""
    return f"\\u{ord(sign):04x}" if 0x80 <= ord(sign) <= 0xFF else sign.encode("unicode_escape").decode()


def shown(name: str) -> str:
    """A file's name for people and JSON: as `plain`, and backslashes doubled, so that no two names look the same."""
    return plain(name.replace("\\", "\\\\"))


def expand(paths: Sequence[str], limit: int, skipped: Skipped, own: Path | None = None) -> Iterator[Input]:
    """Inputs in the order of `paths`, a folder's sorted; at most `limit` + 1 bytes are read of stdin.

    A folder `own` below a searched one is passed over: what this run writes is no input of it.
    Raises `BadConfig` when stdin is named twice.
    """
    if paths.count(STDIN) > 1:
        raise BadConfig("'-' (one picture on stdin) can be named once")
    return (item for path in paths for item in _expand(path, limit, skipped, own))


def _expand(path: str, limit: int, skipped: Skipped, own: Path | None) -> Iterator[Input]:
    if path == STDIN:
        yield _stdin(limit)
    elif os.path.isdir(path):  # noqa: PTH112 - pathlib's raises for a name that is too long
        found = False
        for item in _folder(path, skipped, own):
            found = True
            yield item
        if not found:
            yield Input(path, None, BadImage("the folder holds no pictures (by their names' endings)"))
    else:
        yield _file(path)


def _stdin(limit: int) -> Input:
    try:
        if sys.stdin is None:
            raise BadImage("stdin is closed")
        data = sys.stdin.buffer.read(limit + 1)
        if len(data) > limit:
            raise BadImage(f"longer than the {limit} bytes that are read")
        return Input(STDIN, data)
    except OSError as error:
        return Input(STDIN, None, BadImage(f"cannot be read: {error.strerror}"))
    except BadImage as error:
        return Input(STDIN, None, error)


def _file(path: str) -> Input:
    """A file named outright is always tried; a link to nowhere is named for what it is."""
    if os.path.islink(path) and not os.path.exists(path):  # noqa: PTH110, PTH114 - as above
        return Input(path, None, BadImage("a broken symbolic link"))
    return Input(path, Path(path))


def _folder(folder: str, skipped: Skipped, own: Path | None) -> Iterator[Input]:
    """Files below a folder that are named like pictures, sorted; links to folders are not followed.

    A folder that cannot be listed is an answer of its own: silence would look like "nothing found there".
    """
    failed: list[OSError] = []
    for root, folders, files in os.walk(folder, onerror=failed.append):
        folders[:] = sorted(name for name in folders if not _same(Path(root, name), own))
        for name in sorted(files):
            if Path(name).suffix.lower() in _SUFFIXES:
                yield _file(os.path.join(root, name))  # noqa: PTH118 - keeps the name as it was given
            else:
                skipped.files += 1
        yield from _unlisted(failed)
    yield from _unlisted(failed)


def _unlisted(failed: list[OSError]) -> Iterator[Input]:
    while failed:
        error = failed.pop(0)
        yield Input(str(error.filename), None, BadImage(f"the folder cannot be listed: {error.strerror}"))


def _same(folder: Path, own: Path | None) -> bool:
    return own is not None and folder.resolve() == own.resolve()

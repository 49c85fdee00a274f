"""Blobs in a folder: a file an object, written aside and moved into place."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from unmask.core.blob_keys import key_parts
from unmask.core.errors import BadRequest, Unavailable, UnknownBlob

_LONGEST_NAME: Final = 255
_WRITING: Final = ".writing-"
# The escape itself, what some file systems or shells dislike, and a leading dot: ours mark files half written.
_DISLIKED: Final = re.compile(r'[%\\:*?"<>|]|^\.')
_NOT_THERE: Final = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


class FileBlobs:
    """The port `BlobStore` over a folder.

    A key's parts are its folders and file, disliked characters percent-escaped.  Beyond the port: a key cannot be the
    folder of another one (`a` beside `a/b`), which `put` refuses with `BadRequest`.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, key: str, data: bytes) -> None:
        """See `BlobStore.put`."""
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, data)
        except (IsADirectoryError, NotADirectoryError, FileExistsError):
            raise BadRequest(f"blob key {key!r}: another key is its folder, or has it as folder") from None
        except OSError as error:
            raise self._unavailable(error) from error

    def get(self, key: str) -> bytes:
        """See `BlobStore.get`."""
        try:
            return self._path(key).read_bytes()
        except _NOT_THERE:
            raise UnknownBlob(f"no blob {key!r}") from None
        except OSError as error:
            raise self._unavailable(error) from error

    def size(self, key: str) -> int:
        """See `BlobStore.size`."""
        path = self._path(key)
        try:
            if path.is_dir():
                raise UnknownBlob(f"no blob {key!r}")
            return path.stat().st_size
        except _NOT_THERE:
            raise UnknownBlob(f"no blob {key!r}") from None
        except OSError as error:
            raise self._unavailable(error) from error

    def delete(self, key: str) -> None:
        """See `BlobStore.delete`."""
        try:
            with contextlib.suppress(*_NOT_THERE):
                self._path(key).unlink()
        except OSError as error:
            raise self._unavailable(error) from error

    def keys(self, prefix: str) -> Iterator[str]:
        """See `BlobStore.keys`."""
        return iter(sorted(key for key, _ in self._files(prefix)))

    def aged(self, prefix: str, before: datetime) -> Iterator[str]:
        """See `BlobStore.aged`."""
        for key, path in self._files(prefix):
            with contextlib.suppress(*_NOT_THERE):  # deleted meanwhile
                if path.stat().st_mtime < before.timestamp():
                    yield key

    def _files(self, prefix: str) -> Iterator[tuple[str, Path]]:
        above = self._root.joinpath(*(_escaped(part) for part in prefix.split("/")[:-1] if part))
        for path in above.rglob("*"):
            if not path.name.startswith(_WRITING) and path.is_file():
                key = "/".join(unquote(part) for part in path.relative_to(self._root).parts)
                if key.startswith(prefix):
                    yield key, path

    def _path(self, key: str) -> Path:
        names = [_escaped(part) for part in key_parts(key)]
        if any(len(name.encode()) > _LONGEST_NAME for name in names):
            raise BadRequest(f"blob key {key[:80]!r}…: too long for a file name")
        return self._root.joinpath(*names)

    def _unavailable(self, error: OSError) -> Unavailable:
        return Unavailable(f"blob folder {self._root}: {error.strerror or error}")


def _escaped(part: str) -> str:
    return _DISLIKED.sub(lambda found: f"%{ord(found[0]):02X}", part)


def _write(path: Path, data: bytes) -> None:
    """All of the file or nothing of it, also when the power goes."""
    handle, aside = tempfile.mkstemp(prefix=_WRITING, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(aside).replace(path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise

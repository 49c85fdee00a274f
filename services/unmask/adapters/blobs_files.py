"""Blobs in a folder: a file an object, written aside and moved into place."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from unmask.core.errors import BadRequest, Unavailable, UnknownBlob

_LONGEST_KEY: Final = 1024
_WRITING: Final = ".writing-"


class FileBlobs:
    """The port `BlobStore` over a folder; each part of a key is percent-escaped, so that no key leaves the folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        if not 0 < len(key) <= _LONGEST_KEY or any(part in {"", ".", ".."} for part in parts):
            raise BadRequest(f"blob key {key[:80]!r}: parts separated by '/', none of them empty, '.' or '..'")
        return self._root.joinpath(*(quote(part, safe="") for part in parts))

    def put(self, key: str, data: bytes) -> None:
        """See `BlobStore.put`."""
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
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
        except OSError as error:
            raise Unavailable(f"blob folder {self._root}: {error.strerror}") from error

    def get(self, key: str) -> bytes:
        """See `BlobStore.get`."""
        try:
            return self._path(key).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise UnknownBlob(f"no blob {key!r}") from None
        except OSError as error:
            raise Unavailable(f"blob folder {self._root}: {error.strerror}") from error

    def size(self, key: str) -> int:
        """See `BlobStore.size`."""
        path = self._path(key)
        if not path.is_file():
            raise UnknownBlob(f"no blob {key!r}")
        return path.stat().st_size

    def delete(self, key: str) -> None:
        """See `BlobStore.delete`."""
        try:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                self._path(key).unlink()
        except OSError as error:
            raise Unavailable(f"blob folder {self._root}: {error.strerror}") from error

    def keys(self, prefix: str) -> Iterator[str]:
        """See `BlobStore.keys`."""
        files = (path for path in self._root.rglob("*") if path.is_file() and not path.name.startswith(_WRITING))
        keys = ("/".join(unquote(part) for part in path.relative_to(self._root).parts) for path in files)
        return iter(sorted(key for key in keys if key.startswith(prefix)))

"""Blobs in a dictionary: gone with the process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime

from unmask.core.blob_keys import key_parts
from unmask.core.errors import UnknownBlob


class MemoryBlobs:
    """The port `BlobStore` over a dictionary; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._objects: dict[str, tuple[bytes, datetime]] = {}

    def put(self, key: str, data: bytes) -> None:
        """See `BlobStore.put`."""
        key_parts(key)
        with self._lock:
            self._objects[key] = (bytes(data), datetime.now(UTC))

    def get(self, key: str) -> bytes:
        """See `BlobStore.get`."""
        key_parts(key)
        with self._lock:
            try:
                return self._objects[key][0]
            except KeyError:
                raise UnknownBlob(f"no blob {key!r}") from None

    def size(self, key: str) -> int:
        """See `BlobStore.size`."""
        return len(self.get(key))

    def delete(self, key: str) -> None:
        """See `BlobStore.delete`."""
        key_parts(key)
        with self._lock:
            self._objects.pop(key, None)

    def keys(self, prefix: str) -> Iterator[str]:
        """See `BlobStore.keys`."""
        with self._lock:
            return iter(sorted(key for key in self._objects if key.startswith(prefix)))

    def aged(self, prefix: str, before: datetime) -> Iterator[str]:
        """See `BlobStore.aged`."""
        with self._lock:
            return iter([key for key, (_, written) in self._objects.items() if key.startswith(prefix) and written < before])

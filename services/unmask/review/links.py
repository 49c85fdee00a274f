"""Links to pictures, for reviewers' screens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, runtime_checkable

from unmask.core.domain import PictureInfo
from unmask.core.ports import BlobStore

LinkOf = Callable[[PictureInfo], str]
_SECONDS: Final = 300.0


@runtime_checkable
class Presigning(Protocol):
    """A blob store that gives links."""

    def presigned_get(self, key: str, seconds: float) -> str:
        """A URL that anybody can read the object with for so long."""


def links(blobs: BlobStore) -> LinkOf:
    """Gives a picture's address for five minutes, or nothing where the blob store has no links."""
    if not isinstance(blobs, Presigning):
        return lambda picture: ""
    return lambda picture: blobs.presigned_get(picture.blob_key, _SECONDS)

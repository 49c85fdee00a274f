"""What a case's steps read of what the case left behind: the row and the pixels of its picture."""

from __future__ import annotations

from unmask.core.domain import Case, PictureInfo
from unmask.core.errors import StoreCorrupt, UnknownBlob
from unmask.core.images import Pixels
from unmask.core.submit import picture_key
from unmask.core.world import World


def picture_of(world: World, case: Case) -> PictureInfo:
    """The row of an ingested case's picture; raises `StoreCorrupt` when it is gone."""
    picture = world.store.picture(case.tenant, case.sha256)
    if picture is None:
        raise StoreCorrupt(f"case {case.id} is {case.stage}, but its picture has no row")
    return picture


def pixels_of(world: World, case: Case) -> Pixels:
    """An ingested case's picture as displayed, (H, W, 3) uint8 RGB; raises `StoreCorrupt` when its bytes are gone."""

    def load() -> bytes:
        try:
            return world.blobs.get(picture_key(case.tenant, case.sha256))
        except UnknownBlob as error:
            # Not the caller's doing any more: the case was ingested, so somebody removed the object.
            raise StoreCorrupt(f"case {case.id}: its picture is gone from the blob store") from error

    return world.handlers.decode(case.sha256, load)

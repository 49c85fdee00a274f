"""The pure step `ingest`: bytes are a picture within the limits, whole, named by hashes, with what the file says of itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from unmask.core.domain import PictureInfo
from unmask.core.images import Pixels
from unmask.core.pictures import DecodedCache, ImageLimits, decode, inspect
from unmask.core.submit import picture_key
from unmask.ingestion.provenance import Verify, claims


def ingest(
    tenant: str,
    data: bytes,
    *,
    limits: ImageLimits,
    cache: DecodedCache,
    verify: Verify | None = None,
    fingerprint: Callable[[Pixels], str] | None = None,
) -> PictureInfo:
    """What is known of a picture before its pixels are looked at; raises `BadImage`.

    The picture is decoded here once: only that shows that the file is whole, and the pixels stay in `cache` under its sha256
    for the stage that follows in this process.  `verify` reads Content Credentials, `fingerprint` is the perceptual hash;
    without them credentials stay unverified and the hash empty.
    """
    header = inspect(data, limits)
    sha256 = hashlib.sha256(data).hexdigest()
    pixels = cache.get(sha256, lambda: decode(data, limits))
    height, width = pixels.shape[:2]
    return PictureInfo(
        tenant=tenant,
        sha256=sha256,
        blob_key=picture_key(tenant, sha256),
        bytes=len(data),
        format=header.format,
        width=width,
        height=height,
        claims=claims(data, verify),
        phash=fingerprint(pixels) if fingerprint is not None else "",
    )

"""The step `ingest`: whole pictures are named, everything else is refused."""

from __future__ import annotations

import hashlib

import pytest

from tests import pictures
from unmask.core.errors import BadImage
from unmask.core.pictures import DecodedCache, ImageLimits
from unmask.ingestion.handler import ingest

LIMITS = ImageLimits()


def cache() -> DecodedCache:
    """Room for a few test pictures."""
    return DecodedCache(10_000_000)


def test_what_is_known_of_a_picture() -> None:
    data = pictures.oriented(6, "JPEG")
    found = ingest("default", data, limits=LIMITS, cache=cache())
    sha256 = hashlib.sha256(data).hexdigest()
    assert (found.tenant, found.sha256, found.blob_key) == ("default", sha256, f"default/pictures/{sha256}")
    assert (found.bytes, found.format, found.width, found.height, found.claims) == (len(data), "JPEG", 64, 48, ())


def test_tenants_share_bytes_but_no_key() -> None:
    data, shared = pictures.png(), cache()
    one, other = (ingest(tenant, data, limits=LIMITS, cache=shared) for tenant in ("one", "other"))
    assert one.sha256 == other.sha256 and one.blob_key != other.blob_key


def test_the_pixels_wait_for_the_next_stage() -> None:
    kept, data = cache(), pictures.png()
    found = ingest("default", data, limits=LIMITS, cache=kept)
    pixels = kept.get(found.sha256, lambda: pytest.fail("decoded twice"))
    assert (pixels == pictures.scene()).all()


def test_claims_travel_with_the_picture() -> None:
    found = ingest("default", pictures.png_with({b"tEXt": b"prompt\0{}"}), limits=LIMITS, cache=cache())
    assert [claim.kind for claim in found.claims] == ["generator"]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF"])
def test_truncated_pictures_are_refused_here(kind: str) -> None:
    with pytest.raises(BadImage):
        ingest("default", pictures.truncated(pictures.encode(pictures.scene(), kind), 0.7), limits=LIMITS, cache=cache())


def test_the_limits_hold_even_for_what_was_decoded_before() -> None:
    kept, data = cache(), pictures.png()
    ingest("default", data, limits=LIMITS, cache=kept)
    with pytest.raises(BadImage, match="longest side"):
        ingest("default", data, limits=ImageLimits(side=10), cache=kept)

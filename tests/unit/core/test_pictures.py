"""What is read and what is refused: every format, every kind of pixel, every limit, and rubbish."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, features

from tests import pictures
from unmask.core.errors import BadImage
from unmask.core.pictures import ImageLimits, Inspected, decode, inspect

LIMITS = ImageLimits()
FORMATS = ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF"]
SCENE = pictures.scene()


def off_by(data: bytes, shown: pictures.Pixels = SCENE) -> int:
    """The largest difference between what `data` decodes to and what it shows."""
    pixels = decode(data, LIMITS)
    assert pixels.shape == shown.shape and pixels.dtype == np.uint8 and pixels.flags.c_contiguous
    return int(np.abs(pixels.astype(int) - shown).max())


def refusal(data: bytes, limits: ImageLimits = LIMITS) -> str:
    """The words with which `data` is refused."""
    with pytest.raises(BadImage) as caught:
        inspect(data, limits)
        decode(data, limits)
    return caught.value.detail


@pytest.mark.parametrize(("kind", "tolerance"), [*((kind, 12) for kind in FORMATS), ("PNG", 0), ("BMP", 0), ("TIFF", 0)])
def test_every_format_is_read(kind: str, tolerance: int) -> None:
    data = pictures.encode(SCENE, kind)
    assert inspect(data, LIMITS) == Inspected(kind, 64, 48)
    assert off_by(data) <= tolerance


def test_avif_is_really_there() -> None:
    assert features.check("avif"), "the list of formats in every refusal names AVIF"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_shows_the_same_picture(kind: str, orientation: int) -> None:
    data = pictures.oriented(orientation, kind)
    found = inspect(data, LIMITS)
    assert (found.width, found.height) == (64, 48)
    assert off_by(data) <= {"JPEG": 4, "AVIF": 10}.get(kind, 0)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_is_none_changes_nothing(orientation: int) -> None:
    assert off_by(pictures.jpeg(exif=pictures.exif_block(orientation))) <= 4


def test_exif_behind_the_pixels_of_a_png_still_turns_it() -> None:
    block = pictures.exif_block(6)[6:]
    stored = pictures.png(pictures.stored_for(6, SCENE))
    assert off_by(pictures.png_with({b"eXIf": block}, stored, last=True)) == 0


def test_grey_one_bit_and_palette() -> None:
    grey = Image.fromarray(SCENE).convert("L")
    shown = np.repeat(np.asarray(grey)[..., None], 3, axis=-1)
    assert off_by(pictures.encode(grey), shown) == 0
    bits = grey.point(lambda value: 255 * (value > 120)).convert("1")
    assert off_by(pictures.encode(bits), np.repeat(np.asarray(bits, np.uint8)[..., None] * 255, 3, axis=-1)) == 0
    palette = Image.fromarray(SCENE).quantize(64)
    assert off_by(pictures.encode(palette), np.asarray(palette.convert("RGB"))) == 0


def test_cmyk_jpeg_is_not_a_negative() -> None:
    data = pictures.encode(Image.fromarray(SCENE).convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in data
    assert off_by(data) <= 8


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    grey = np.asarray(Image.fromarray(SCENE).convert("L"))
    wide = Image.fromarray(grey.astype(np.uint16) * 256 + (255 - grey))
    shown = np.repeat(grey[..., None], 3, axis=-1)
    for kind in ("PNG", "TIFF"):
        assert off_by(pictures.encode(wide, kind), shown) == 0


def test_sixteen_bit_colour_png() -> None:
    assert off_by(_wide_png(SCENE)) == 0


def test_the_transparent_colour_of_a_wide_png_hides_nothing_else() -> None:
    # Its 16-bit key would wrongly match 8-bit pixels; the key is left out.
    assert off_by(pictures.png_with({b"tRNS": bytes([0, 40, 0, 30, 0, 220])}, _wide_png(SCENE))) == 0


def _wide_png(pixels: pictures.Pixels) -> bytes:
    """A PNG of 16 bits a channel, by hand: Pillow writes none."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + (row.astype(">u2") * 257).astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return pictures.PNG_MAGIC + b"".join(pictures.png_chunk(name, body) for name, body in chunks)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparency_is_laid_over_white(kind: str) -> None:
    alpha = np.linspace(0, 255, 64).astype(np.uint8)[None].repeat(48, axis=0)
    image = Image.fromarray(np.dstack([SCENE, alpha]))
    share = alpha[..., None] / 255.0
    shown = np.rint(SCENE * share + 255 * (1 - share)).astype(np.uint8)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    assert off_by(pictures.encode(image, kind, **options), shown) <= 1


def test_palette_and_grey_with_alpha() -> None:
    palette = Image.fromarray(SCENE).quantize(16)
    index = int(np.asarray(palette)[0, 0])
    shown = np.asarray(palette.convert("RGB")).copy()
    shown[np.asarray(palette) == index] = 255
    assert off_by(pictures.encode(palette, transparency=index), shown) == 0
    grey = Image.new("LA", (4, 3), (100, 0))
    assert (decode(pictures.encode(grey), LIMITS) == 255).all()


@pytest.mark.parametrize(("kind", "tolerance"), [("GIF", 12), ("PNG", 0), ("WEBP", 0)])
def test_animations_give_their_first_frame(kind: str, tolerance: int) -> None:
    data = pictures.animation(kind, frames=100)
    assert inspect(data, LIMITS) == Inspected(kind, 64, 48)
    assert off_by(data) <= tolerance


def test_an_apng_does_not_hide_behind_its_still_picture() -> None:
    still = Image.new("RGB", (64, 48), "black")
    frames = [Image.fromarray(SCENE), Image.new("RGB", (64, 48), "grey")]
    data = pictures.encode(still, "PNG", save_all=True, append_images=frames, default_image=True, blend=0)
    assert off_by(data) == 0


def test_profiles_are_applied_unless_they_are_srgb_or_broken() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace(b"rXYZ", b"-XYZ", 1).replace(b"bXYZ", b"rXYZ", 1).replace(b"-XYZ", b"bXYZ", 1)
    for kind in ("PNG", "TIFF"):
        assert off_by(pictures.encode(SCENE, kind, icc_profile=srgb)) == 0
        assert off_by(pictures.encode(SCENE, kind, icc_profile=swapped), np.ascontiguousarray(SCENE[..., ::-1])) <= 2
        for broken in (srgb[:200], srgb[:128] + b"\xff" * 460, b"rubbish", srgb.replace(b"RGB ", b"CMYK", 1)):
            assert off_by(pictures.encode(SCENE, kind, icc_profile=broken)) == 0


def test_a_profile_bomb_costs_nothing() -> None:
    body = b"icc\0\0" + zlib.compress(bytes(50_000_000), 9)
    data = pictures.png_with({b"iCCP": body})
    tracemalloc.start()
    try:
        assert off_by(data) == 0
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_text_bombs_are_passed_over() -> None:
    assert off_by(pictures.ztxt_bomb()) == 0


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (pictures.text_as_jpeg(), "not an image this plugin reads (JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF)"),
        (b"\xff", "not an image"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), "HEIC"),
        (b"%PDF-1.7", "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (b"\xff\xd8\xff", "cut off"),
        (pictures.PNG_MAGIC, "cut off"),
        (pictures.encode(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "kind F"),
    ],
)
def test_refusals_say_what_is_wrong(data: bytes, words: str) -> None:
    assert words in refusal(data)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_files_are_refused(kind: str, share: float) -> None:
    data = pictures.encode(np.tile(SCENE, (4, 4, 1)), kind)
    assert "cut off" in refusal(pictures.truncated(data, share)) or "damaged" in refusal(pictures.truncated(data, share))


def test_truncated_progressive_jpeg_and_a_png_without_its_last_bytes() -> None:
    assert "cut off" in refusal(pictures.truncated(pictures.jpeg(progressive=True), 0.9))
    assert "cut off" in refusal(pictures.png()[:-4])


def test_a_damaged_png_is_refused_by_its_checksum() -> None:
    data = bytearray(pictures.png())
    data[data.index(b"IDAT") + 20] ^= 1
    assert "checksum of its IDAT" in refusal(bytes(data))


BOMBS = {
    "png": pictures.png_header,
    "jpeg": pictures.jpeg_header,
    "webp": pictures.webp_header,
    "bmp": pictures.bmp_header,
    "gif": pictures.gif_header,
    "tiff": pictures.tiff_header,
}


@pytest.mark.parametrize("kind", BOMBS)
def test_bombs_are_refused_before_decoding(kind: str) -> None:
    data = BOMBS[kind](30_000, 30_000)
    tracemalloc.start()
    started = time.process_time()
    try:
        assert "30000 x 30000" in refusal(data)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize("kind", BOMBS)
def test_pixels_are_limited_below_the_side_limit(kind: str) -> None:
    assert "50000000" in refusal(BOMBS[kind](9_000, 9_000))


def test_a_jpeg_with_thousands_of_scans_is_refused() -> None:
    data = pictures.jpeg(progressive=True)
    scan = data.rindex(b"\xff\xda")
    assert "scans" in refusal(data[:-2] + data[scan:-2] * 400 + data[-2:])
    assert off_by(data + data[scan:] * 400) <= 4, "what follows the picture's end is not part of it"


def test_files_made_of_parts_are_refused_quickly() -> None:
    data = pictures.PNG_MAGIC + pictures.png_chunk(b"teSt", b"") * 150_000
    started = time.process_time()
    assert "parts" in refusal(data)
    assert time.process_time() - started < 2.0


def test_limits_are_inclusive() -> None:
    data = pictures.png()
    exact = ImageLimits(bytes=len(data), pixels=64 * 48, side=64, min_side=48)
    assert decode(data, exact).shape == (48, 64, 3)
    for tighter in (
        ImageLimits(bytes=len(data) - 1),
        ImageLimits(pixels=64 * 48 - 1),
        ImageLimits(side=63),
        ImageLimits(min_side=49),
    ):
        refusal(data, tighter)


def test_limits_above_pillows_own_hold() -> None:
    wide = pictures.encode(Image.new("1", (20_000, 9_500)), "PNG")
    assert inspect(wide, ImageLimits(pixels=200_000_000)) == Inspected("PNG", 20_000, 9_500)


def test_one_pixel_is_a_picture() -> None:
    assert off_by(pictures.png(SCENE[:1, :1]), SCENE[:1, :1]) == 0


def test_an_mpo_and_what_follows_a_jpeg_do_not_matter() -> None:
    out = io.BytesIO()
    Image.fromarray(SCENE).save(
        out, "MPO", save_all=True, append_images=[Image.new("RGB", (64, 48))], quality=95, subsampling=0
    )
    assert inspect(out.getvalue(), LIMITS).format == "JPEG"
    assert off_by(out.getvalue()) <= 4
    assert off_by(pictures.jpeg() + b"\xff\xda" * 1000) <= 4


SEEDS = {
    "jpeg": pictures.jpeg(exif=pictures.exif_block(6, {0x0131: "tool"})),
    "progressive": pictures.jpeg(progressive=True),
    "apng": pictures.animation("PNG", 3),
    "webp": pictures.animation("WEBP", 3),
    "gif": pictures.animation("GIF", 3),
    "bmp": pictures.encode(SCENE, "BMP"),
    "tiff": pictures.encode(SCENE, "TIFF", compression="tiff_lzw"),
    "avif": pictures.encode(SCENE, "AVIF"),
}


@settings(max_examples=300)
@given(
    seed=st.sampled_from(sorted(SEEDS)),
    changes=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=20),
    cut=st.floats(0.2, 1.0),
)
@pytest.mark.filterwarnings("ignore:::PIL")
def test_rubbish_is_a_picture_or_refused(seed: str, changes: list[tuple[int, int]], cut: float) -> None:
    data = bytearray(SEEDS[seed])
    for at, value in changes:
        data[at % len(data)] = value
    small = ImageLimits(pixels=1_000_000)
    try:
        found, pixels = inspect(bytes(data[: int(len(data) * cut)]), small), decode(bytes(data[: int(len(data) * cut)]), small)
    except BadImage as error:
        assert error.detail and "\n" not in error.detail
    else:
        assert pixels.shape == (found.height, found.width, 3)


def test_threads_decode_alike() -> None:
    files = [pictures.oriented(index % 8 + 1, kind) for index, kind in enumerate(["JPEG", "PNG", "WEBP", "TIFF", "AVIF"] * 8)]
    alone = [decode(data, LIMITS) for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: decode(data, LIMITS), files))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))

"""Content Credentials: told from forged, copied and broken ones; nothing is fetched, nothing lowers a score."""

from __future__ import annotations

import io
import json
import random
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests import pictures
from tests.conftest import missing
from tests.system.tiny_models import face_picture, make_repository
from unmask import Unmask, Verdict
from unmask.adapters.c2pa_reader import C2paReader, is_available, settings
from unmask.core.domain import Claim
from unmask.core.pictures import ImageLimits, decode
from unmask.core.reasons import claim_reason
from unmask.ingestion.credentials import verifier
from unmask.ingestion.provenance import Verify, claims

if not is_available():
    missing("c2pa-python (extra service) is not installed")

import c2pa

from tests.signed_pictures import AI_MADE, Authority, png_chunks, png_of

OURS = Authority()
KINDS = ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF"]


def _verify(anchors: str) -> Iterator[Verify]:
    reader = C2paReader(anchors)
    yield verifier(reader.read)
    reader.close()


@pytest.fixture(scope="module")
def trusting() -> Iterator[Verify]:
    """Trusts our authority."""
    yield from _verify(OURS.anchor)


@pytest.fixture(scope="module")
def trusting_nobody() -> Iterator[Verify]:
    """As without settings."""
    yield from _verify("")


def of_kind(found: tuple[Claim, ...], kind: str) -> list[Claim]:
    """The claims of one kind."""
    return [claim for claim in found if claim.kind == kind]


def with_manifest_of(picture: bytes, other: bytes) -> bytes:
    """The PNG `picture` with the manifest of `other`, in the same place."""
    (manifest,) = (chunk for chunk in png_chunks(other) if chunk[0] == b"caBX")
    return png_of([manifest if chunk[0] == b"caBX" else chunk for chunk in png_chunks(picture)])


@pytest.mark.parametrize("kind", KINDS)
def test_a_trusted_signer_is_named_and_what_it_signed_is_told(kind: str, trusting: Verify) -> None:
    found = claims(OURS.signed(kind), trusting)
    assert found[:3] == (
        Claim("c2pa_verified", "C2PA signature", "signed by Test Signer of Test Organization, made with Unmask tests 1"),
        Claim("digital_source_type", "verified C2PA actions", "trainedAlgorithmicMedia"),
        Claim("generator", "verified C2PA actions", "Some Generator 3"),
    )
    assert len(found) == 3, "what the file's bytes say of themselves is not told twice"
    assert [claim_reason(claim).text.endswith("not verified") for claim in found] == [False] * 3


def test_anybody_can_sign_so_without_anchors_nobody_is_trusted(trusting: Verify, trusting_nobody: Verify) -> None:
    for signed, verify in ((OURS.signed(), trusting_nobody), (Authority().signed(), trusting)):
        found = claims(signed, verify)
        assert [claim.kind for claim in found] == ["c2pa_untrusted", "digital_source_type", "generator"]
        assert [claim_reason(claim).text.endswith("; not verified") for claim in found] == [False, True, True]


def test_tampered_pixels_break_the_credentials(trusting: Verify) -> None:
    pixels = pictures.scene()
    pixels[10:20, 10:20] = 0
    other = dict(png_chunks(pictures.png(pixels)))
    changed = png_of([(name, other.get(name, body)) for name, body in png_chunks(OURS.signed())])
    jpeg = bytearray(OURS.signed("JPEG"))
    jpeg[-40] ^= 1
    for data in (changed, bytes(jpeg)):
        found = claims(data, trusting)
        assert found[0] == Claim("c2pa_invalid", "C2PA manifest", "assertion.dataHash.mismatch")
        assert not [claim for claim in found if claim.field.startswith("verified")]
        assert "not verified" in claim_reason(found[1]).text, "a broken manifest's words are anybody's"


def test_a_stripped_picture_says_nothing(trusting: Verify) -> None:
    assert claims(png_of([chunk for chunk in png_chunks(OURS.signed()) if chunk[0] != b"caBX"]), trusting) == ()


def test_a_manifest_copied_from_another_picture_does_not_hold(trusting: Verify) -> None:
    other = OURS.sign(pictures.png(pictures.scene()[::-1].copy()))
    (broken,) = of_kind(claims(with_manifest_of(other, OURS.signed()), trusting), "c2pa_invalid")
    assert "assertion.dataHash.mismatch" in broken.value


def test_a_signer_whose_certificate_ran_out_is_not_trusted() -> None:
    late = Authority(seconds=2.5)
    data, reader = late.signed(), C2paReader(late.anchor)
    deadline = time.monotonic() + 20
    while (found := claims(data, verifier(reader.read)))[0].kind == "c2pa_verified" and time.monotonic() < deadline:
        time.sleep(0.05)
    reader.close()
    assert found[0].kind == "c2pa_invalid"
    assert "signingCredential.expired" in found[0].value


@pytest.mark.parametrize("rubbish", [b"", b"rubbish", bytes(200), b"\0\0\0\x1ejumb" + bytes(range(200))])
def test_rubbish_in_the_manifests_place(rubbish: bytes, trusting: Verify) -> None:
    (claim,) = claims(pictures.png_with({b"caBX": rubbish}), trusting)
    assert claim.kind in {"c2pa_invalid", "c2pa_present"}


def test_a_camera_and_an_editor_are_no_generators(trusting: Verify) -> None:
    capture = AI_MADE.replace("trainedAlgorithmicMedia", "digitalCapture")
    actions = [
        {"action": "c2pa.created", "digitalSourceType": capture, "softwareAgent": {"name": "Camera"}},
        {"action": "c2pa.edited", "softwareAgent": {"name": "Adobe Photoshop", "version": "26"}},
    ]
    found = claims(OURS.signed(actions=actions, program="Adobe Firefly"), trusting)
    assert [(claim.kind, claim.value) for claim in found[1:]] == [
        ("capture", "digitalCapture"),
        ("editor", "Adobe Photoshop 26"),
        ("generator", "Adobe Firefly 1"),
    ]


def test_words_of_a_signed_manifest_are_printable_and_bounded(trusting: Verify) -> None:
    rude = "\x1b[2J\u202e" + "x" * 5000
    agents = [{"softwareAgent": {"name": f"Midjourney{number}{rude}"}} for number in range(99)]
    edits = [{"action": "c2pa.edited", "digitalSourceType": AI_MADE, **agent} for agent in agents]
    actions = [{"action": "c2pa.created", "digitalSourceType": AI_MADE, **agents[0]}, *edits]
    found = claims(OURS.signed(actions=actions, program=rude), trusting)
    assert found[0].kind == "c2pa_verified"
    assert len(found) <= 20
    assert all(part.isprintable() and len(part) <= 200 for claim in found for part in (claim.field, claim.value))


def test_without_the_library_credentials_are_present_and_not_verified() -> None:
    assert claims(OURS.signed())[0] == Claim("c2pa_present", "C2PA manifest", "")


@pytest.fixture
def asked() -> Iterator[tuple[str, list[str]]]:
    """An address on this machine, and the requests it has had."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_response(404)
            self.end_headers()

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/m", seen
        server.shutdown()
        thread.join()


def _library_alone(data: bytes, settings: dict[str, Any]) -> None:
    """The same library in this process, under other settings."""
    try:
        with c2pa.Reader("image/png", io.BytesIO(data), context=c2pa.Context(c2pa.Settings.from_dict(settings))):
            pass
    except c2pa.C2paError:
        pass


def test_a_manifest_elsewhere_is_told_and_not_fetched(asked: tuple[str, list[str]], trusting: Verify) -> None:
    address, seen = asked
    elsewhere = OURS.signed(remote=address)
    _library_alone(elsewhere, {})
    assert seen == ["/m"], "left alone the library does fetch it"
    seen.clear()
    _library_alone(elsewhere, json.loads(settings("")))
    assert seen == [], "the settings alone forbid it, whatever else its child is kept from"
    assert trusting(elsewhere, "PNG") == ()
    (claim,) = claims(elsewhere, trusting)
    assert (claim.kind, claim.field, claim.value) == ("c2pa_present", "XMP provenance", f"elsewhere, not fetched: {address}")
    assert seen == []


def test_whether_a_certificate_was_revoked_is_not_asked(asked: tuple[str, list[str]]) -> None:
    address, seen = asked
    authority = Authority(ocsp=address)
    data, reader = authority.signed(), C2paReader(authority.anchor)
    _library_alone(data, {"verify": {"ocsp_fetch": True}, "trust": {"trust_anchors": authority.anchor}})
    assert seen, "left alone the library does ask"
    seen.clear()
    _library_alone(data, json.loads(settings(authority.anchor)))
    assert seen == []
    assert claims(data, verifier(reader.read))[0].kind == "c2pa_verified"
    assert seen == []
    reader.close()


def _mutated(data: bytes, rng: random.Random) -> bytes:
    changed, way = bytearray(data), rng.randrange(4)
    if way == 0:
        return data[: rng.randrange(len(data))]
    if way == 1:
        for _ in range(rng.choice((1, 5, 50))):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    elif way == 2:
        places = [at for name in (b"jumb", b"jumd", b"cbor", b"bidb") for at in range(len(data)) if data[at : at + 4] == name]
        at = rng.choice(places)
        changed[at - 4 : at] = rng.choice((0, 1, 7, 8, 100_000, 0x7FFFFFFF, 0xFFFFFFFF)).to_bytes(4, "big")
    else:
        at = rng.randrange(len(data))
        changed[at : at + rng.randrange(60)] = rng.randbytes(rng.randrange(60))
    return bytes(changed)


def test_no_bytes_raise_or_take_long(trusting: Verify) -> None:
    rng, signed = random.Random(7), [OURS.signed(kind) for kind in KINDS]
    shown = {_shows(data) for data in signed}
    kinds: set[str] = set()
    slowest = 0.0
    for _ in range(250):
        data = _mutated(rng.choice(signed), rng)
        start = time.monotonic()
        found = claims(data, trusting)
        slowest = max(slowest, time.monotonic() - start)
        kinds |= {claim.kind for claim in found}
        if of_kind(found, "c2pa_verified"):
            assert _shows(data) in shown, "what verifies shows what was signed"
    assert {"c2pa_invalid", "c2pa_present"} & kinds
    assert slowest < 10.0


def _shows(data: bytes) -> bytes:
    return decode(data, ImageLimits()).tobytes()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repository(tmp_path_factory.mktemp("tiny") / "models")


@pytest.fixture(scope="module")
def unmask(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unmask]:
    anchors = tmp_path_factory.mktemp("trust") / "anchors.pem"
    anchors.write_text(OURS.anchor)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNMASK_C2PA_TRUST", str(anchors))
        with Unmask(models=repository, threads=1) as made:
            yield made


@pytest.mark.parametrize(("red", "blue"), [(10, 10), (250, 10), (10, 250), (130, 130)], ids="real made changed unsure".split())
def test_no_credentials_lower_score_or_action(red: int, blue: int, unmask: Unmask) -> None:
    plain = face_picture(red=red, blue=blue)
    signed = OURS.sign(plain, actions=[{"action": "c2pa.created", "digitalSourceType": AI_MADE}])
    camera = OURS.sign(
        plain, actions=[{"action": "c2pa.created", "digitalSourceType": AI_MADE[: AI_MADE.rindex("/")] + "/digitalCapture"}]
    )
    variants = {
        "c2pa_verified": signed,
        "capture": camera,
        "c2pa_untrusted": Authority().sign(plain),
        "c2pa_invalid": png_of([*png_chunks(signed)[:-1], (b"tEXt", b"a\0b"), (b"IEND", b"")]),
        "c2pa_present": OURS.sign(plain, remote="http://127.0.0.1:9/m"),
    }
    alone = unmask.check(plain)
    assert alone.score is not None and alone.claims == ()
    for kind, data in variants.items():
        found: Verdict = unmask.check(data)
        assert of_kind(found.claims, kind), f"{kind}: {found.claims}"
        assert (found.label, found.score, found.doubt, found.action) == (alone.label, alone.score, alone.doubt, alone.action)
        assert f"provenance_{kind}" in {reason.code for reason in found.reasons}

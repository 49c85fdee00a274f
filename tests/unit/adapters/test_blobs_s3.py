"""The S3 store by itself: what it is told, and what it makes of answers that a real store does not give at a test's wish."""

from __future__ import annotations

import multiprocessing
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from unmask.adapters.blobs_s3 import S3Blobs, S3Bucket
from unmask.core.errors import BadConfig, Unavailable, UnknownBlob, UnmaskError


class TestTold:
    """Settings that can be seen to be wrong before anything is asked."""

    @pytest.mark.parametrize("sse", ["aes256", "kms:", "aws:kms"])
    def test_unknown_encryption(self, sse: str) -> None:
        with pytest.raises(BadConfig, match="AES256 or kms:KEY"):
            S3Blobs(S3Bucket("https://store", "pictures", "key", "secret", sse=sse))

    def test_a_kms_key_needs_tls(self) -> None:
        S3Blobs(S3Bucket("https://store", "pictures", "key", "secret", sse="kms:ours"))
        with pytest.raises(BadConfig, match="https"):
            S3Blobs(S3Bucket("http://store", "pictures", "key", "secret", sse="kms:ours"))

    @pytest.mark.parametrize("endpoint", ["", "store:9000", "ftp://store", "http://us:pass@store", "http://store/a", "http://"])
    def test_a_wrong_endpoint_is_not_repeated(self, endpoint: str) -> None:
        with pytest.raises(BadConfig, match="HOST") as raised:
            S3Blobs(S3Bucket(endpoint, "pictures", "key", "secret"))
        assert "pass" not in str(raised.value)

    def test_a_bucket_that_cannot_be_one(self) -> None:
        for name in ("", "Up", "a", "1.2.3.4", "a..b"):
            with pytest.raises(BadConfig, match="bucket"):
                S3Blobs(S3Bucket("http://store", name, "key", "secret"))

    def test_certificates_that_are_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(BadConfig, match=r"none\.pem"):
            S3Blobs(S3Bucket("https://store", "pictures", "key", "secret", ca=tmp_path / "none.pem"))

    def test_secrets_are_not_in_what_it_prints(self) -> None:
        assert "secret-of-ours" not in repr(S3Bucket("http://store", "pictures", "key", "secret-of-ours"))


def s3_error(code: str) -> str:
    """The body of an S3 error."""
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>why</Message></Error>"


GONE = s3_error("NoSuchKey")
ANSWERS: dict[str, tuple[int, str, type[UnmaskError]]] = {
    "slow down": (503, s3_error("SlowDown"), Unavailable),
    "throttled": (400, s3_error("Throttling"), Unavailable),
    "our own slowness": (400, s3_error("RequestTimeout"), Unavailable),
    "over quota": (403, s3_error("QuotaExceeded"), Unavailable),
    "no room": (507, s3_error("InsufficientStorage"), Unavailable),
    "not implemented": (501, s3_error("NotImplemented"), BadConfig),
    "our clock": (403, s3_error("RequestTimeTooSkewed"), BadConfig),
    "another region": (400, s3_error("AuthorizationHeaderMalformed"), BadConfig),
    "a gateway's page": (502, "<html>bad gateway</html>", Unavailable),
    "a limiter's page": (429, "<html>too many</html>", Unavailable),
    "a website": (404, "<html>not here</html>", BadConfig),
    "gone": (404, GONE, UnknownBlob),
}


class Answering(BaseHTTPRequestHandler):
    """One connection's questions; `of` tells what to answer."""

    protocol_version = "HTTP/1.1"  # connections are kept
    of: Answers
    asked = 0

    def do_GET(self) -> None:
        self.of.ports.append(self.client_address[1])
        self.asked += 1
        if self.asked > self.of.a_connection:
            self.close_connection = True
            return
        self.send_response(self.of.status)
        self.send_header("Content-Type", "text/html" if self.of.body.startswith("<html") else "application/xml")
        self.send_header("Content-Length", str(len(self.of.body)))
        self.end_headers()
        self.wfile.write(self.of.body.encode())

    def log_message(self, *_: object) -> None:
        """Silence."""


@dataclass
class Answers:
    """What a server always answers; a connection breaks at the question after `a_connection` of them."""

    status: int
    body: str
    a_connection: int = 1000
    # From which port each question came.
    ports: list[int] = field(default_factory=list)
    endpoint: str = ""


@contextmanager
def answering(answers: Answers, tls: ssl.SSLContext | None = None) -> Iterator[S3Bucket]:
    """A bucket at a server that always answers that."""
    handler = type("Handler", (Answering,), {"of": answers})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield S3Bucket(f"http{'s' if tls else ''}://localhost:{server.server_port}", "pictures", "key", "secret")
        server.shutdown()


@pytest.mark.parametrize("name", ANSWERS)
def test_what_other_stores_answer(name: str) -> None:
    status, body, kind = ANSWERS[name]
    with answering(Answers(status, body)) as told, pytest.raises(UnmaskError) as raised:
        S3Blobs(told).get("t/x")
    assert type(raised.value) is kind, raised.value


def test_a_broken_connection_is_made_again_once() -> None:
    once = Answers(404, GONE, a_connection=1)
    with answering(once) as told:
        blobs = S3Blobs(told)
        _asks(blobs, 3)
    assert len(once.ports) == 5 and len(set(once.ports)) == 3
    never = Answers(404, GONE, a_connection=0)
    with answering(never) as told, pytest.raises(Unavailable, match="onnection"):
        S3Blobs(told).get("t/x")
    assert len(never.ports) == 2


def test_only_certificates_of_the_named_authority_are_trusted(tmp_path: Path) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with answering(Answers(404, GONE), context) as told:
        _asks(S3Blobs(replace(told, ca=tmp_path / "ca.pem")), 1)
        with pytest.raises(BadConfig, match="certificate is not trusted"):
            S3Blobs(told).get("t/x")


def test_a_forked_child_has_connections_of_its_own() -> None:
    """One that parent and child share would mix up their answers."""
    answers = Answers(404, GONE)
    with answering(answers) as told:
        blobs = S3Blobs(told)
        _asks(blobs, 2)
        child = multiprocessing.get_context("fork").Process(target=_asks, args=(blobs, 2))
        child.start()
        child.join(30)
        _asks(blobs, 1)
    assert child.exitcode == 0
    mine, theirs = answers.ports[0], answers.ports[2]
    assert answers.ports == [mine, mine, theirs, theirs, mine] and mine != theirs


def _asks(blobs: S3Blobs, times: int) -> None:
    for _ in range(times):
        with pytest.raises(UnknownBlob):
            blobs.get("t/x")

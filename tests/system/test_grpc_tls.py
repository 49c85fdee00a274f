"""TLS and mTLS on loopback: what is let in, what each side is told, and certificates that change while the server runs."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.system.command import run
from tests.system.grpc_servers import ANY_PORT, Stuck, stuck
from tests.system.tiny_models import dark_picture
from unmask.cli.serve import certificates
from unmask.core.errors import BadConfig, Unavailable
from unmask.rpc.client import AsyncClient, Client
from unmask.rpc.serving import ServerSettings, checked_address, started
from unmask.rpc.tls import Certificates, PemFiles, Tls
from unmask.settings import TlsSettings

PAST: dict[str, Any] = {"not_before": datetime(2020, 1, 1, tzinfo=UTC), "not_after": datetime(2021, 1, 1, tzinfo=UTC)}


class Folder:
    """An authority, and what it issues into files."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.authority = trustme.CA()
        self.ca = place / "ca.pem"
        self.cert, self.key = place / "server.pem", place / "server.key"
        self.ca.write_bytes(self.authority.cert_pem.bytes())
        self.issue("server", "127.0.0.1")

    def issue(self, name: str, *hosts: str, by: trustme.CA | None = None, **when: Any) -> tuple[Path, Path]:
        """Paths of a certificate and its key."""
        made = (by or self.authority).issue_cert(*hosts, **when)
        cert, key = self.place / f"{name}.pem", self.place / f"{name}.key"
        key.write_bytes(made.private_key_pem.bytes())
        cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        return cert, key

    def files(self, *, mutual: bool = False) -> PemFiles:
        """As the server reads them."""
        return PemFiles(self.cert, self.key, self.ca if mutual else None)

    def shown(self, name: str = "client", **more: Any) -> Tls:
        """A client that trusts the authority and shows a certificate."""
        cert, key = self.issue(name, "client", **more)
        return Tls(self.ca, cert, key)


@pytest.fixture
def pems(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
async def still(tiny: Path) -> AsyncIterator[Stuck]:
    async with stuck(tiny) as world:
        yield world


@asynccontextmanager
async def serving(still: Stuck, tls: Certificates | None) -> AsyncIterator[str]:
    async with started(still.services(), ServerSettings(ANY_PORT, grace=1.0, tls=tls)) as server:
        yield server.address


async def submits(address: str, tls: Tls | None) -> None:
    """A whole call over a new connection."""
    async with AsyncClient(address, tls=tls, timeout=10) as client:
        await client.submit(dark_picture())


async def refused(address: str, tls: Tls | None) -> str:
    with pytest.raises(Unavailable) as caught:
        await submits(address, tls)
    return caught.value.detail


async def test_a_call_over_tls(still: Stuck, pems: Folder) -> None:
    async with serving(still, pems.files()) as address:
        await submits(address, Tls(pems.ca))
        await submits(address, Tls(pems.ca.read_bytes()))
        assert "may want TLS" in await refused(address, None)
        assert "no authority that is trusted" in await refused(address, Tls())
        assert "no authority that is trusted" in await refused(address, Tls(trustme.CA().cert_pem.bytes()))


async def test_a_synchronous_call_over_mutual_tls(still: Stuck, pems: Folder) -> None:
    async with serving(still, pems.files(mutual=True)) as address:

        def use() -> None:
            with Client(address, tls=pems.shown(), timeout=10) as client:
                client.submit(dark_picture())

        await still.workers.run(use)


async def test_who_shows_no_good_certificate_is_not_let_in(still: Stuck, pems: Folder) -> None:
    async with serving(still, pems.files(mutual=True)) as address:
        await submits(address, pems.shown())
        said = [
            await refused(address, None),
            await refused(address, Tls(pems.ca)),
            await refused(address, pems.shown("foreign", by=trustme.CA())),
            await refused(address, pems.shown("expired", **PAST)),
        ]
        assert all("may want TLS, or a client certificate that it trusts" in text for text in said)
        await submits(address, pems.shown("again"))


async def test_a_tls_client_is_told_that_the_server_speaks_none(still: Stuck, pems: Folder) -> None:
    async with serving(still, None) as address:
        assert "speaks no TLS" in await refused(address, Tls(pems.ca))


@pytest.mark.parametrize(
    ("hosts", "when", "says"),
    [
        (("127.0.0.1",), PAST, "the server's certificate has expired"),
        (("example.org",), {}, "the server's certificate is for another host"),
    ],
)
async def test_a_servers_bad_certificate_is_named(
    still: Stuck, pems: Folder, hosts: tuple[str, ...], when: dict[str, Any], says: str
) -> None:
    pems.issue("server", *hosts, **when)
    async with serving(still, pems.files()) as address:
        assert says in await refused(address, Tls(pems.ca))


async def test_certificates_are_read_again_without_a_restart(
    still: Stuck, pems: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    pems.issue("server", "127.0.0.1", **PAST)
    async with serving(still, pems.files()) as address, AsyncClient(address, tls=Tls(pems.ca), timeout=10) as lasting:
        assert "has expired" in await refused(address, Tls(pems.ca))
        pems.issue("server", "127.0.0.1")
        await submits(address, Tls(pems.ca))
        await lasting.submit(dark_picture())
        # Files that do not belong together, half written or gone leave the old ones serving.
        whole = pems.key.read_bytes()
        _, other = pems.issue("other", "127.0.0.1")
        for broken in (other.read_bytes(), whole[: len(whole) // 2], b""):
            pems.key.write_bytes(broken)
            await submits(address, Tls(pems.ca))
        pems.key.unlink()
        await submits(address, Tls(pems.ca))
        assert "the certificate read before goes on" in caplog.text
        await lasting.submit(dark_picture())
        pems.issue("server", "example.org")
        assert "another host" in await refused(address, Tls(pems.ca))


@pytest.mark.parametrize("broken", ["cert", "key", "ca", "mismatch", "missing", "locked"])
def test_files_that_are_no_pair_are_refused_at_the_start(pems: Folder, broken: str) -> None:
    if broken in {"cert", "key", "ca"}:
        getattr(pems, broken).write_text("no PEM")
    elif broken == "mismatch":
        shutil.copy(pems.issue("other", "127.0.0.1")[1], pems.key)
    elif broken == "missing":
        pems.key.unlink()
    else:
        kind = "ENCRYPTED PRIVATE KEY"
        pems.key.write_text(f"-----BEGIN {kind}-----\nMIGjMF8GCSqGSIb3DQEFDTBSMDEGCSqGSIb3DQEFDDAk\n-----END {kind}-----\n")
    with pytest.raises(BadConfig, match="TLS"):
        pems.files(mutual=True)()


@pytest.mark.parametrize(
    ("names", "refuses"), [("", False), ("ck", False), ("cka", False), ("c", True), ("k", True), ("a", True), ("ca", True)]
)
def test_half_a_setting_is_refused(pems: Folder, names: str, refuses: bool) -> None:
    files = {"c": pems.cert, "k": pems.key, "a": pems.ca}
    told = TlsSettings(*(files[letter] if letter in names else None for letter in "cka"))
    if refuses:
        with pytest.raises(BadConfig, match="go together"):
            certificates(told)
    else:
        assert (certificates(told) is None) == (names == "")


@pytest.mark.parametrize("tls", [Tls(cert=b"x"), Tls(key=b"x"), Tls(ca=b"no PEM"), Tls(ca="/nonexistent/ca.pem")])
def test_a_clients_half_pair_is_refused(tls: Tls) -> None:
    with pytest.raises(BadConfig, match="TLS"):
        Client("127.0.0.1:1", tls=tls)


def test_keys_do_not_show_in_what_is_printed(pems: Folder) -> None:
    assert "PRIVATE" not in repr(pems.files()()) and "secret" not in repr(Tls(key=b"secret"))


@pytest.mark.parametrize(
    ("tls", "tokens", "missing"),
    [(True, True, ""), (True, False, "without tokens"), (False, True, "without TLS"), (False, False, "without TLS and tokens")],
)
def test_beyond_loopback_only_with_tls_and_tokens(tls: bool, tokens: bool, missing: str) -> None:
    for listen in ("0.0.0.0:1", "[::]:1", "192.168.1.5:1"):
        if not missing:
            assert checked_address(listen, tls=tls, tokens=tokens) == listen
            continue
        with pytest.raises(BadConfig, match=missing):
            checked_address(listen, tls=tls, tokens=tokens)


async def test_a_server_without_tokens_stays_on_loopback_whatever_its_tls(still: Stuck, pems: Folder) -> None:
    with pytest.raises(BadConfig, match="without tokens"):
        async with started(still.services(), ServerSettings("0.0.0.0:0", tls=pems.files())):
            pass


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({}, "without TLS and tokens"),
        ({"UNMASK_AUTH": "tokens"}, "UNMASK_AUTH=tokens: tokens are kept in a database"),
        ({"UNMASK_TLS_CERT": "/x"}, "go together"),
        ({"UNMASK_TLS_CERT": "/x", "UNMASK_TLS_KEY": "/x"}, "/x"),
    ],
)
def test_the_command_says_what_is_missing(more: dict[str, Any], says: str) -> None:
    ran = run("serve", "ingestion", "--listen", "0.0.0.0:0", **more)
    assert ran.code == 2 and says in ran.complaint


async def test_the_development_certificates_serve(still: Stuck, tmp_path: Path) -> None:
    from unmask_dev.certs import main, write_certificates

    place = tmp_path / "certs"
    assert main([str(place)]) == 0
    assert {path.name: path.stat().st_mode & 0o077 for path in place.iterdir() if path.suffix == ".key"} == {
        "server.key": 0,
        "client.key": 0,
    }
    files = PemFiles(place / "server.pem", place / "server.key", place / "ca.pem")
    async with serving(still, files) as address:
        await submits(address, Tls(place / "ca.pem", place / "client.pem", place / "client.key"))
        write_certificates(place, ["127.0.0.1"])
        await submits(address, Tls(place / "ca.pem", place / "client.pem", place / "client.key"))
    until = ssl.cert_time_to_seconds(_end_of(place / "server.pem"))
    assert timedelta(days=360) < datetime.fromtimestamp(until, UTC) - datetime.now(UTC) < timedelta(days=367)


def _end_of(cert: Path) -> str:
    found: str = ssl._ssl._test_decode_cert(str(cert))["notAfter"]  # type: ignore[attr-defined]
    return found

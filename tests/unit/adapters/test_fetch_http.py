"""Fetching https pictures: what comes through, what is refused before a byte is sent, what is cut off."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.unit.adapters.https_server import PICTURE, Site, serving
from unmask.adapters.fetch_http import HttpFetcher
from unmask.core.errors import BadImage, BadRequest, Unavailable

LIMIT = 1_000_000
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


@pytest.fixture(scope="module")
def server() -> Iterator[Site]:
    with serving() as running:
        yield running


@pytest.fixture
def site(server: Site) -> Site:
    server.clear()
    return server


@pytest.fixture
def fetcher(site: Site) -> HttpFetcher:
    return HttpFetcher(seconds=5, allowed=LOOPBACK, context=site.trust)


class TestComesThrough:
    """Over real TLS."""

    def test_the_bytes_under_the_name_that_was_asked_for(self, site: Site, fetcher: HttpFetcher) -> None:
        assert fetcher.fetch(site.url("/picture?size=big&x=%20"), LIMIT) == PICTURE
        path, headers = site.asked[0]
        assert path == "/picture?size=big&x=%20" and site.names == ["localhost"]
        assert headers["Host"] == f"localhost:{site.port}" and headers["Accept-Encoding"] == "identity"

    def test_a_body_without_a_length_and_one_of_just_the_limit(self, site: Site, fetcher: HttpFetcher) -> None:
        assert fetcher.fetch(site.url("/unsized"), LIMIT) == PICTURE
        assert fetcher.fetch(site.url("/picture"), len(PICTURE)) == PICTURE
        assert fetcher.fetch(site.url("/unsized"), len(PICTURE)) == PICTURE

    def test_a_name_outside_ascii_in_the_path(self, site: Site, fetcher: HttpFetcher) -> None:
        assert fetcher.fetch(site.url("/picture/ü☃.png"), LIMIT) == PICTURE
        assert site.asked[0][0] == "/picture/%C3%BC%E2%98%83.png"

    def test_three_redirects_and_no_fourth(self, site: Site, fetcher: HttpFetcher) -> None:
        assert fetcher.fetch(site.url("/again/3"), LIMIT) == PICTURE
        with pytest.raises(BadRequest, match="redirects"):
            fetcher.fetch(site.url("/again/4"), LIMIT)

    def test_the_next_address_where_the_first_does_not_answer(self, site: Site, fetcher: HttpFetcher, resolves: Any) -> None:
        resolves("localhost", "127.0.0.99", "127.0.0.1")  # nothing listens on the first
        assert fetcher.fetch(site.url("/picture"), LIMIT) == PICTURE


@pytest.fixture
def resolves(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Sets what a name resolves to, as a hostile name server would; gives the list of names asked for."""
    real, asked = socket.getaddrinfo, list[str]()

    def choose(name: str, *addresses: str) -> list[str]:
        def lookup(host: str, port: int, *rest: Any, **more: Any) -> Any:
            if host != name:
                return real(host, port, *rest, **more)
            asked.append(host)
            return [entry for address in addresses for entry in real(address, port, *rest, **more)]

        monkeypatch.setattr(socket, "getaddrinfo", lookup)
        return asked

    return choose


REFUSED_HOSTS = [
    "127.0.0.1", "127.8.9.10", "[::1]", "169.254.169.254", "0.0.0.0", "[::]", "10.0.0.1", "172.16.3.4", "192.168.1.1",
    "100.64.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1",
    "[::ffff:127.0.0.1]", "[::ffff:169.254.169.254]", "[::127.0.0.1]", "[fe80::1]", "[fc00::1]", "[ff02::1]",
    "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[2001:db8::1]", "localhost",
]  # fmt: skip


class TestRefused:
    """Nothing is sent to an address that is not public."""

    @pytest.mark.parametrize("host", REFUSED_HOSTS)
    def test_addresses_that_are_not_public(self, site: Site, host: str) -> None:
        with pytest.raises(BadRequest, match="not a public address"):
            HttpFetcher(context=site.trust).fetch(site.url("/picture", host), LIMIT)
        assert not site.asked and not site.names

    @pytest.mark.parametrize("host", ["10.0.0.1", "[::1]", "169.254.169.254"])
    def test_an_allowed_network_allows_no_other(self, fetcher: HttpFetcher, host: str) -> None:
        with pytest.raises(BadRequest, match="not a public address"):
            fetcher.fetch(f"https://{host}/x", LIMIT)

    def test_a_name_with_one_private_address_among_public_ones(self, resolves: Any, site: Site) -> None:
        resolves("mixed.example", "93.184.215.14", "127.0.0.1")
        with pytest.raises(BadRequest, match=r"127\.0\.0\.1 is not a public address"):
            HttpFetcher(context=site.trust).fetch(site.url("/picture", "mixed.example"), LIMIT)

    def test_the_name_is_looked_up_once(self, resolves: Any, site: Site, fetcher: HttpFetcher) -> None:
        asked = resolves("localhost", "127.0.0.1")
        assert fetcher.fetch(site.url("/picture"), LIMIT) == PICTURE
        assert asked == ["localhost"]

    @pytest.mark.parametrize("place", ["https:||10.0.0.1|x", "https:||[::1]|x", "https:||169.254.169.254|latest|meta-data"])
    def test_a_redirect_to_a_private_address(self, site: Site, fetcher: HttpFetcher, place: str) -> None:
        with pytest.raises(BadRequest, match="not a public address"):
            fetcher.fetch(site.url(f"/to/{place}"), LIMIT)

    @pytest.mark.parametrize("place", ["http:||localhost|x", "file:|||etc|passwd", "ftp:||localhost|x"])
    def test_a_redirect_away_from_https(self, site: Site, fetcher: HttpFetcher, place: str) -> None:
        with pytest.raises(BadRequest, match="only https"):
            fetcher.fetch(site.url(f"/to/{place}"), LIMIT)

    @pytest.mark.parametrize(
        "url",
        ["http://example.com/a", "file:///etc/passwd", "https://", "https:///x", "example.com", "", "https://h:99999/", "https://h:0/",
         "https://user:pw@example.com/", "https://example.com/a b", "https://example.com/\r\nX: y", "https://[::1/",
         "https://" + "a" * 80 + "/"],
    )  # fmt: skip
    def test_urls_that_are_none(self, fetcher: HttpFetcher, url: str) -> None:
        with pytest.raises(BadRequest):
            fetcher.fetch(url, LIMIT)


PUBLIC = "93.184.215.14"


class TestPinned:
    """A name server that says one thing when it is asked and another later."""

    def test_the_address_that_was_checked_is_spoken_to_whatever_the_name_says_next(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answers, spoken_to, real = [[PUBLIC], ["127.0.0.1"], ["127.0.0.1"]], list[str](), socket.create_connection

        def connect(address: tuple[str, int], *rest: Any) -> socket.socket:
            spoken_to.append(address[0])
            if address[0] == PUBLIC:
                raise ConnectionRefusedError("nobody is called in a test")
            return real(address, *rest)

        monkeypatch.setattr(socket, "create_connection", connect)
        fetcher = HttpFetcher(context=site.trust, resolve=lambda host, port: answers.pop(0))
        with pytest.raises(Unavailable, match="nobody"):
            fetcher.fetch(site.url("/picture"), LIMIT)
        assert spoken_to == [PUBLIC] and len(answers) == 2 and not site.names
        with pytest.raises(BadRequest, match=r"127\.0\.0\.1 is not a public address"):
            fetcher.fetch(site.url("/picture"), LIMIT)

    def test_the_other_way_round_over_real_tls(self, site: Site) -> None:
        answers = [["127.0.0.1"], ["127.0.0.99"]]  # nothing listens on the second
        fetcher = HttpFetcher(allowed=LOOPBACK, context=site.trust, resolve=lambda host, port: answers.pop(0))
        assert fetcher.fetch(site.url("/picture"), LIMIT) == PICTURE and len(answers) == 1

    def test_an_ipv4_address_in_ipv6s_clothes_is_judged_as_what_it_is(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def connect(address: tuple[str, int], *rest: Any) -> socket.socket:
            raise ConnectionRefusedError(f"{address[0]} was allowed")

        monkeypatch.setattr(socket, "create_connection", connect)
        for answers in ([f"::ffff:{PUBLIC}"], ["::ffff:127.0.0.1"]):
            fetcher = HttpFetcher(allowed=LOOPBACK, context=site.trust, resolve=lambda host, port: answers)  # noqa: B023
            with pytest.raises(Unavailable, match="was allowed"):
                fetcher.fetch(site.url("/picture"), LIMIT)

    def test_a_redirect_is_looked_up_and_checked_anew(self, site: Site) -> None:
        answers = [["127.0.0.1"], ["10.0.0.1"]]
        fetcher = HttpFetcher(allowed=LOOPBACK, context=site.trust, resolve=lambda host, port: answers.pop(0))
        with pytest.raises(BadRequest, match=r"10\.0\.0\.1 is not a public address"):
            fetcher.fetch(site.url("/to/|picture"), LIMIT)
        assert [path for path, _ in site.asked] == ["/to/%7Cpicture"]

    def test_a_name_server_that_hangs_counts_into_the_time(self, site: Site) -> None:
        release = threading.Event()

        def hang(host: str, port: int) -> list[str]:
            release.wait(10)
            return ["127.0.0.1"]

        started = time.monotonic()
        with pytest.raises(Unavailable, match=r"more than 0\.3 s"):
            HttpFetcher(seconds=0.3, allowed=LOOPBACK, context=site.trust, resolve=hang).fetch(site.url("/picture"), LIMIT)
        assert time.monotonic() - started < 3
        release.set()

    def test_an_allowed_network_does_not_bring_plain_http(self, fetcher: HttpFetcher) -> None:
        with pytest.raises(BadRequest, match="only https"):
            fetcher.fetch("http://127.0.0.1/x", LIMIT)

    def test_no_more_than_the_limit_is_read_of_an_endless_body(self, site: Site, fetcher: HttpFetcher) -> None:
        with pytest.raises(BadImage):
            fetcher.fetch(site.url("/endless"), 100_000)
        assert site.written < 30_000_000  # what fits into the buffers between


class TestBroken:
    """Servers that misbehave."""

    @pytest.mark.parametrize("path", ["/endless", "/unsized", "/picture"])
    def test_a_body_over_the_limit(self, site: Site, fetcher: HttpFetcher, path: str) -> None:
        with pytest.raises(BadImage, match="255999 bytes"):
            fetcher.fetch(site.url(path), len(PICTURE) - 1)

    @pytest.mark.parametrize("path", ["/drip", "/slowhead", "/silent", "/endless"])
    def test_the_time_limit_is_of_the_whole(self, site: Site, path: str) -> None:
        fetcher = HttpFetcher(seconds=0.4, allowed=LOOPBACK, context=site.trust)
        started = time.monotonic()
        with pytest.raises(Unavailable, match=r"more than 0\.4 s"):
            fetcher.fetch(site.url(path), 1 << 40)
        assert time.monotonic() - started < 3

    def test_a_server_that_never_shakes_hands(self, site: Site) -> None:
        with socket.create_server(("127.0.0.1", 0)) as mute:
            fetcher = HttpFetcher(seconds=0.3, allowed=LOOPBACK, context=site.trust)
            with pytest.raises(Unavailable, match=r"more than 0\.3 s"):
                fetcher.fetch(f"https://localhost:{mute.getsockname()[1]}/x", LIMIT)

    @pytest.mark.parametrize(
        ("path", "why"),
        [
            ("/status/503", "503"),
            ("/status/429", "429"),
            ("/short", "256000 bytes early"),
            ("/gzip", "gzip"),
            ("/garbage", "no HTTP answer"),
        ],
    )
    def test_what_is_no_answer(self, site: Site, fetcher: HttpFetcher, path: str, why: str) -> None:
        with pytest.raises(Unavailable, match=why):
            fetcher.fetch(site.url(path), LIMIT)

    @pytest.mark.parametrize("status", [403, 404, 410])
    def test_a_link_that_is_dead_is_the_callers(self, site: Site, fetcher: HttpFetcher, status: int) -> None:
        with pytest.raises(BadRequest, match=str(status)):
            fetcher.fetch(site.url(f"/status/{status}"), LIMIT)

    def test_a_certificate_of_nobody(self, site: Site) -> None:
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            HttpFetcher(allowed=LOOPBACK, context=ssl.create_default_context()).fetch(site.url("/picture"), LIMIT)
        assert not site.asked

    def test_a_certificate_of_another_name(self, site: Site, fetcher: HttpFetcher, resolves: Any) -> None:
        resolves("other.example", "127.0.0.1")
        with pytest.raises(Unavailable, match=r"other\.example"):
            fetcher.fetch(site.url("/picture", "other.example"), LIMIT)
        assert not site.asked and site.names == ["other.example"]

    def test_nobody_there(self, fetcher: HttpFetcher) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        with pytest.raises(Unavailable, match="refused"):
            fetcher.fetch(f"https://localhost:{port}/x", LIMIT)

    def test_a_name_that_is_none(self, fetcher: HttpFetcher) -> None:
        with pytest.raises(Unavailable, match="not resolved"):
            fetcher.fetch("https://no-such-host.invalid/x", LIMIT)

    def test_no_thread_is_left(self, site: Site, fetcher: HttpFetcher) -> None:
        fetcher.fetch(site.url("/picture"), LIMIT)
        assert not [
            thread for thread in threading.enumerate() if isinstance(thread, threading.Timer) and not thread.finished.is_set()
        ]

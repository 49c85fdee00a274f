"""Webhooks over a real receiver: what is signed and sent, which answers accept, what is refused, cut off or put off."""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from tests.unit.adapters.https_server import GIGABYTE, Post, Site, serving
from unmask.adapters.clock import SystemClock
from unmask.adapters.sink_webhook import WebhookSink, event_body, webhook_secret
from unmask.core.domain import Event
from unmask.core.errors import BadConfig, BadRequest, CallerError, StoreCorrupt, Unavailable

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
OLD, NEW = b"o" * 32, b"n" * 32
AT = datetime(2026, 3, 1, 13, 30, 15, 123999, tzinfo=timezone(timedelta(hours=1)))
EVENT = Event("018f-1", "acme", "case-1", "verdict.decided", '{"id": "case-1", "label": "söt ☃"}', AT, "https://x/", 7)


@pytest.fixture(scope="module")
def server() -> Iterator[Site]:
    with serving() as running:
        yield running


@pytest.fixture
def site(server: Site) -> Site:
    server.clear()
    return server


@pytest.fixture
def sink(site: Site) -> WebhookSink:
    return WebhookSink(keys=[NEW], clock=SystemClock(), seconds=5, allowed=LOOPBACK, context=site.trust)


def quick(site: Site) -> WebhookSink:
    """One that gives up soon."""
    return WebhookSink(keys=[NEW], clock=SystemClock(), seconds=0.4, allowed=LOOPBACK, context=site.trust)


def to(target: str) -> Event:
    """The event for that callback."""
    return replace(EVENT, target=target)


def verified(post: Post, master: bytes, tenant: str = "acme") -> object:
    """The payload, as a receiver with that tenant's secret gets it out of the real library."""
    return Webhook(webhook_secret(master, tenant)).verify(post.body, post.headers)


class TestSent:
    """What arrives."""

    def test_type_timestamp_and_data_with_what_orders_them(self, site: Site, sink: WebhookSink) -> None:
        sink.send(to(site.url("/hook/a?token=t")))
        (post,) = site.posts
        assert verified(post, NEW) == {
            "type": "verdict.decided",
            "timestamp": "2026-03-01T12:30:15.123Z",
            "data": {"id": "case-1", "label": "söt ☃", "case_id": "case-1", "tenant": "acme", "sequence": 7},
        }
        assert post.path == "/hook/a?token=t" and post.id == EVENT.id
        assert post.headers["Content-Type"] == "application/json" and post.headers["User-Agent"] == "unmask"
        assert post.headers["Host"] == f"localhost:{site.port}" and site.names == ["localhost"]

    def test_the_timestamp_is_that_of_the_attempt_and_the_body_the_same_each_time(self, site: Site, sink: WebhookSink) -> None:
        for _ in range(2):
            sink.send(to(site.url("/hook")))
        first, second = site.posts
        assert abs(int(first.headers["webhook-timestamp"]) - time.time()) < 5
        assert (first.body, first.id) == (second.body, second.id)

    def test_the_receiver_refuses_what_was_changed_on_the_way(self, site: Site, sink: WebhookSink) -> None:
        sink.send(to(site.url("/hook")))
        (post,) = site.posts
        for wrong in (
            replace(post, body=post.body.replace(b"acme", b"evil")),
            replace(post, headers={**post.headers, "webhook-id": "018f-2"}),
            replace(post, headers={**post.headers, "webhook-timestamp": str(int(time.time()) - 7)}),
        ):
            with pytest.raises(WebhookVerificationError):
                verified(wrong, NEW)

    def test_each_tenant_has_a_secret_of_its_own(self, site: Site, sink: WebhookSink) -> None:
        sink.send(to(site.url("/hook")))
        with pytest.raises(WebhookVerificationError):
            verified(site.posts[0], NEW, "other")
        assert len({webhook_secret(key, tenant) for key in (OLD, NEW) for tenant in ("acme", "other")}) == 4

    def test_while_keys_are_rotated_receivers_with_either_are_served_newest_first(self, site: Site) -> None:
        sink = WebhookSink(keys=[NEW, OLD], clock=SystemClock(), allowed=LOOPBACK, context=site.trust)
        sink.send(to(site.url("/hook")))
        (post,) = site.posts
        assert verified(post, OLD) == verified(post, NEW)
        first = post.headers["webhook-signature"].split()[0]
        only = replace(post, headers={**post.headers, "webhook-signature": first})
        assert verified(only, NEW)
        with pytest.raises(WebhookVerificationError):
            verified(only, OLD)

    @pytest.mark.parametrize("keys", [[], [b"short"], [NEW, b"x" * 31]])
    def test_keys_that_could_be_guessed_are_no_keys(self, keys: list[bytes]) -> None:
        with pytest.raises(BadConfig, match="32 bytes"):
            WebhookSink(keys=keys, clock=SystemClock())

    @pytest.mark.parametrize("body", ["", "{", "[1]", "3"])
    def test_a_stored_body_that_is_none(self, body: str) -> None:
        with pytest.raises(StoreCorrupt):
            event_body(replace(EVENT, body=body))

    def test_the_bodys_own_fields_do_not_pass_for_the_rows(self) -> None:
        told = json.loads(event_body(replace(EVENT, body='{"tenant": "evil", "sequence": 99}')))
        assert told["data"] == {"tenant": "acme", "sequence": 7, "case_id": "case-1"}

    def test_a_case_without_a_callback_sends_nothing(self, sink: WebhookSink) -> None:
        assert sink.takes(EVENT) and not sink.takes(to(""))

    def test_an_endpoint_is_a_tenants_origin(self, sink: WebhookSink) -> None:
        named = {
            target: sink.endpoint(to(target)) for target in ("https://A.b/1?secret", "https://a.b:443/2", "https://[::1]:8/")
        }
        assert list(named.values()) == ["acme https://a.b:443"] * 2 + ["acme https://[::1]:8"]
        assert sink.endpoint(replace(EVENT, tenant="other")) != sink.endpoint(EVENT)
        assert "secret" not in "".join(named.values()) and sink.endpoint(to("https://[")) == "acme a malformed URL"


class TestAnswers:
    """What the receiver says."""

    @pytest.mark.parametrize("path", ["/hook", "/nothing", "/status/202", "/picture", "/unsized", "/short", "/drip"])
    def test_2xx_accepts_whatever_follows(self, site: Site, sink: WebhookSink, path: str) -> None:
        started = time.monotonic()
        sink.send(to(site.url(path)))
        assert time.monotonic() - started < 3

    @pytest.mark.parametrize("path", ["/gigabyte", "/endless"])
    def test_an_answer_without_end_is_not_read(self, site: Site, sink: WebhookSink, path: str) -> None:
        started = time.monotonic()
        sink.send(to(site.url(path)))
        assert time.monotonic() - started < 3
        assert site.written < GIGABYTE / 30  # what fits into the buffers between

    def test_one_that_never_comes_is_not_waited_for_beyond_the_limit(self, site: Site) -> None:
        started = time.monotonic()
        quick(site).send(to(site.url("/mute")))
        assert time.monotonic() - started < 3

    @pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
    def test_a_redirect_is_a_failure_and_never_followed(self, site: Site, sink: WebhookSink, code: int) -> None:
        with pytest.raises(Unavailable, match=f"{code}; redirects are not followed"):
            sink.send(to(site.url(f"/moved/{code}")))
        assert [path for path, _ in site.asked] == [f"/moved/{code}"]

    def test_410_is_for_good(self, site: Site, sink: WebhookSink) -> None:
        with pytest.raises(CallerError, match="410"):
            sink.send(to(site.url("/status/410")))

    @pytest.mark.parametrize("code", [400, 401, 404, 408, 429, 500, 503])
    def test_the_rest_may_work_later_and_the_url_is_not_told(self, site: Site, sink: WebhookSink, code: int) -> None:
        with pytest.raises(Unavailable, match=f"answered {code}") as caught:
            sink.send(to(site.url(f"/status/{code}?token=secret")))
        assert caught.value.retry_after is None
        assert "secret" not in caught.value.detail and f"https://localhost:{site.port}" in caught.value.detail

    @pytest.mark.parametrize(
        ("header", "seconds"),
        [("17", 17.0), ("0", 0.0), ("99999999999999999", 21600.0), ("-3", None), ("soon", None), ("1.5", None), ("²", None)],
    )
    def test_when_to_come_again_in_seconds(self, site: Site, sink: WebhookSink, header: str, seconds: float | None) -> None:
        with pytest.raises(Unavailable) as caught:
            sink.send(to(site.url(f"/busy/429/{header}")))
        assert caught.value.retry_after == seconds

    @pytest.mark.parametrize(("minutes", "seconds"), [(2, 120.0), (-9, 0.0), (99_999, 21600.0)])
    def test_when_to_come_again_by_date(self, site: Site, sink: WebhookSink, minutes: int, seconds: float) -> None:
        date = format_datetime(datetime.now(UTC) + timedelta(minutes=minutes), usegmt=True).replace(" ", "%20")
        with pytest.raises(Unavailable) as caught:
            sink.send(to(site.url(f"/busy/503/{date}")))
        assert caught.value.retry_after == pytest.approx(seconds, abs=5)


class TestCutOff:
    """Receivers that break off, or never come to an end."""

    @pytest.mark.parametrize("path", ["/late/8", "/silent", "/slowhead"])
    def test_the_time_limit_is_of_the_whole(self, site: Site, path: str) -> None:
        started = time.monotonic()
        with pytest.raises(Unavailable, match=r"more than 0\.4 s"):
            quick(site).send(to(site.url(path)))
        assert time.monotonic() - started < 3

    @pytest.mark.parametrize("path", ["/drop", "/garbage", "/halfhead"])
    def test_a_connection_that_ends_without_an_answer(self, site: Site, sink: WebhookSink, path: str) -> None:
        with pytest.raises(Unavailable, match="no HTTP answer"):
            sink.send(to(site.url(path)))


REFUSED = [
    "127.0.0.1", "[::1]", "169.254.169.254", "0.0.0.0", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "10.0.0.1",
    "[::ffff:127.0.0.1]", "[::ffff:169.254.169.254]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[fe80::1]", "localhost",
]  # fmt: skip


class TestRefused:
    """Nothing is sent to where a stranger may not make us send."""

    @pytest.mark.parametrize("host", REFUSED)
    def test_addresses_that_are_not_public(self, site: Site, host: str) -> None:
        sink = WebhookSink(keys=[NEW], clock=SystemClock(), context=site.trust)
        for scheme in ("https", "http"):
            with pytest.raises(BadRequest, match=r"not a public address|only https"):
                sink.send(to(f"{scheme}://{host}:{site.port}/hook"))
        assert not site.asked and not site.names

    @pytest.mark.parametrize("host", ["10.0.0.1", "[::1]", "169.254.169.254"])
    def test_an_allowed_network_allows_no_other(self, sink: WebhookSink, host: str) -> None:
        with pytest.raises(BadRequest, match="not a public address"):
            sink.send(to(f"https://{host}/x"))

    def test_plain_http_goes_to_allowed_addresses_alone(self) -> None:
        answers = {
            "allowed.example": ["127.0.0.1"],
            "public.example": ["93.184.215.14"],
            "both": ["127.0.0.1", "93.184.215.14"],
        }
        with serving(tls=False) as plain:
            sink = WebhookSink(
                keys=[NEW], clock=SystemClock(), allowed=LOOPBACK, resolve=lambda host, port: answers.get(host, ["127.0.0.1"])
            )
            sink.send(to(plain.url("/hook", "allowed.example")))
            assert verified(plain.posts[0], NEW) and plain.posts[0].headers["Host"] == f"allowed.example:{plain.port}"
            for host in ("public.example", "both"):
                with pytest.raises(BadRequest, match="only https"):
                    sink.send(to(plain.url("/hook", host)))
            assert len(plain.posts) == 1

    def test_the_address_that_was_checked_is_the_one_that_is_posted_to(self, site: Site) -> None:
        answers = [["127.0.0.1"], ["127.0.0.99"]]  # nothing listens on the second
        sink = WebhookSink(
            keys=[NEW], clock=SystemClock(), allowed=LOOPBACK, context=site.trust, resolve=lambda host, port: answers.pop(0)
        )
        sink.send(to(site.url("/hook", "localhost")))
        assert len(site.posts) == 1 and len(answers) == 1

    def test_a_receiver_without_a_certificate_of_the_name(self, site: Site) -> None:
        sink = WebhookSink(
            keys=[NEW], clock=SystemClock(), allowed=LOOPBACK, context=site.trust, resolve=lambda host, port: ["127.0.0.1"]
        )
        with pytest.raises(Unavailable, match=r"other\.example"):
            sink.send(to(site.url("/hook", "other.example")))
        assert not site.posts

    @pytest.mark.parametrize(
        "target",
        ["x", "https://", "ftp://example.com/", "file:///etc/passwd", "https://user:pw@example.com/", "https://example.com/a b",
         "https://example.com/\r\nX-A: b", "https://h:0/", "https://h:99999/", "https://[::1/", "https://" + "a" * 80 + "/"],
    )  # fmt: skip
    def test_targets_that_are_none(self, sink: WebhookSink, target: str) -> None:
        with pytest.raises(CallerError):
            sink.send(to(target))

"""Settings: every variable, files in the place of secrets, and errors that name the variable."""

from __future__ import annotations

import ipaddress
from dataclasses import fields
from pathlib import Path

import pytest

from unmask.core.errors import BadConfig
from unmask.settings import S3Settings, Settings, TlsSettings

FULL = {
    "UNMASK_MODELS": "/m",
    "UNMASK_STATE": "/s",
    "UNMASK_POLICY": "/p.yaml",
    "UNMASK_THREADS": "3",
    "UNMASK_MAX_BYTES": "1000",
    "UNMASK_MAX_PIXELS": "2000",
    "UNMASK_MAX_SIDE": "300",
    "UNMASK_MAX_FACES": "4",
    "UNMASK_FETCH": "1",
    "UNMASK_ALLOW_PRIVATE": "10.0.0.0/8, fd00::/8",
    "UNMASK_DATABASE": "postgresql://u:p@h/d",
    "UNMASK_BROKER": "amqp://u:p@h/",
    "UNMASK_S3": "https://s3",
    "UNMASK_S3_BUCKET": "b",
    "UNMASK_S3_ACCESS_KEY": "a",
    "UNMASK_S3_SECRET_KEY": "k",
    "UNMASK_S3_REGION": "r",
    "UNMASK_S3_CA": "/ca.pem",
    "UNMASK_S3_SSE": "AES256",
    "UNMASK_S3_CREATE": "true",
    "UNMASK_TRITON": "t:8001",
    "UNMASK_TRITON_CA": "/t.pem",
    "UNMASK_TRITON_SECONDS": "2.5",
    "UNMASK_ATTEMPTS": "9",
    "UNMASK_OUTAGE_SECONDS": "100000",
    "UNMASK_RETRY_SECONDS": "0.5",
    "UNMASK_STUCK_SECONDS": "30",
    "UNMASK_CHILD_MEMORY": "512",
    "UNMASK_EVENTS": "unmask.events",
    "UNMASK_WEBHOOK_KEYS": "new, old",
    "UNMASK_AUTH": "none",
    "UNMASK_TLS_CERT": "/c.pem",
    "UNMASK_TLS_KEY": "/k.pem",
    "UNMASK_TLS_CA": "/a.pem",
    "UNMASK_METRICS": "127.0.0.1:9100",
    "UNMASK_LOG": "json",
    "UNMASK_C2PA_TRUST": "/anchors.pem",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317",
}


def test_nothing_told_is_the_default() -> None:
    assert Settings.from_environment({}) == Settings() and not Settings().distributed


def test_every_setting_can_be_told_and_none_stays_at_its_default() -> None:
    told = Settings.from_environment(FULL)
    alike = [field.name for field in fields(Settings) if getattr(told, field.name) == getattr(Settings(), field.name)]
    assert not alike and told.distributed and told.traces
    assert told.s3 == S3Settings("https://s3", "b", "a", "k", "r", Path("/ca.pem"), "AES256", create=True)
    assert told.tls == TlsSettings(Path("/c.pem"), Path("/k.pem"), Path("/a.pem"))
    assert told.allow_private == (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))
    assert told.webhook_keys == ("new", "old")


def test_a_secret_may_lie_in_a_file_and_the_plain_variable_wins(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("postgresql://u:from-file@h/d\n")
    assert Settings.from_environment({"UNMASK_DATABASE_FILE": str(secret)}).database == "postgresql://u:from-file@h/d"
    both = {"UNMASK_DATABASE_FILE": str(secret), "UNMASK_DATABASE": "sqlite:///x"}
    assert Settings.from_environment(both).database == "sqlite:///x"
    with pytest.raises(BadConfig, match="UNMASK_BROKER_FILE"):
        Settings.from_environment({"UNMASK_BROKER_FILE": str(tmp_path / "none")})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("UNMASK_THREADS", "-1"),
        ("UNMASK_ATTEMPTS", "0"),
        ("UNMASK_FETCH", "maybe"),
        ("UNMASK_AUTH", "password"),
        ("UNMASK_LOG", "xml"),
        ("UNMASK_TRITON_SECONDS", "0"),
        ("UNMASK_RETRY_SECONDS", "soon"),
        ("UNMASK_ALLOW_PRIVATE", "10.0.0.1/8"),
        ("UNMASK_CHILD_MEMORY", "10"),
    ],
)
def test_a_wrong_value_is_refused_by_the_variables_name(name: str, text: str) -> None:
    with pytest.raises(BadConfig, match=name):
        Settings.from_environment({name: text})

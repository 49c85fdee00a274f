"""Settings: read once from the environment by bootstrap; an empty URL or path means "in this process"."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from unmask.core.errors import BadConfig

_MIB: Final = 1024 * 1024
_SECRETS_END: Final = "_FILE"
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class S3Settings:
    """An S3 store; `endpoint` is an http(s) URL, empty for none."""

    endpoint: str = ""
    bucket: str = "unmask"
    access_key: str = ""
    secret_key: str = ""
    region: str = "us-east-1"
    ca: Path | None = None
    # `AES256`, or `kms:KEY`; empty for the bucket's own default.
    sse: str = ""
    create: bool = False


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """Certificates in PEM files.  As a server: `cert` and `key`, with `ca` callers must show one too; as a client: the same."""

    cert: Path | None = None
    key: Path | None = None
    ca: Path | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """What a process is told from outside."""

    models: Path | None = None
    state: Path | None = None
    policy: Path | None = None
    threads: int = 0
    max_bytes: int = 20 * _MIB
    max_pixels: int = 50_000_000
    max_side: int = 20_000
    max_faces: int = 32
    fetch: bool = False
    # Networks that may be spoken to though they are not public: URLs fetched, webhooks.
    allow_private: tuple[Network, ...] = ()
    database: str = ""
    broker: str = ""
    s3: S3Settings = S3Settings()
    triton: str = ""
    triton_ca: Path | None = None
    triton_seconds: float = 10.0
    # How often a step is tried, and seconds before the second time (twice as long each time, at most two minutes).
    attempts: int = 6
    retry_seconds: float = 2.0
    # For so long after a case came no outage of a server, and no model that an operator must repair, ends it.
    outage_seconds: float = 86_400.0
    # After these a case that nobody moved is published again.
    stuck_seconds: float = 60.0
    # Of a child process that decodes pictures, MiB it may write to.
    child_memory: int = 2048
    # The exchange (AMQP) that events go to beside webhooks; empty for none.
    events: str = ""
    # Keys that webhook secrets are derived from, newest first; none switches webhooks off.
    webhook_keys: tuple[str, ...] = ()
    # `tokens`, `none` (loopback only), or empty: tokens where there is a database of tenants.
    auth: str = ""
    tls: TlsSettings = TlsSettings()
    # host:port of the metrics page; empty for none.
    metrics: str = ""
    log: str = "text"
    # Whether traces are exported: the SDK's own variable says where to.
    traces: bool = False
    # PEM file of certificate authorities whose Content Credentials are trusted.
    c2pa_trust: Path | None = None

    @property
    def distributed(self) -> bool:
        """Whether cases are kept in a database that other processes share."""
        return bool(self.database)

    @staticmethod
    def from_environment(environment: Mapping[str, str] | None = None) -> Settings:
        """Reads UNMASK_*, each also from the file that UNMASK_*_FILE names; raises `BadConfig` naming the variable."""
        given = os.environ if environment is None else environment
        env = _with_files(given)
        default = Settings()
        return Settings(
            models=_path(env, "UNMASK_MODELS"),
            state=_path(env, "UNMASK_STATE"),
            policy=_path(env, "UNMASK_POLICY"),
            threads=_whole(env, "UNMASK_THREADS", default.threads, 0),
            max_bytes=_whole(env, "UNMASK_MAX_BYTES", default.max_bytes, 1),
            max_pixels=_whole(env, "UNMASK_MAX_PIXELS", default.max_pixels, 1),
            max_side=_whole(env, "UNMASK_MAX_SIDE", default.max_side, 1),
            max_faces=_whole(env, "UNMASK_MAX_FACES", default.max_faces, 1),
            fetch=_flag(env, "UNMASK_FETCH", default.fetch),
            allow_private=_networks(env, "UNMASK_ALLOW_PRIVATE"),
            database=env.get("UNMASK_DATABASE", ""),
            broker=env.get("UNMASK_BROKER", ""),
            s3=_s3(env),
            triton=env.get("UNMASK_TRITON", ""),
            triton_ca=_path(env, "UNMASK_TRITON_CA"),
            triton_seconds=_seconds(env, "UNMASK_TRITON_SECONDS", default.triton_seconds),
            attempts=_whole(env, "UNMASK_ATTEMPTS", default.attempts, 1),
            retry_seconds=_seconds(env, "UNMASK_RETRY_SECONDS", default.retry_seconds),
            outage_seconds=_seconds(env, "UNMASK_OUTAGE_SECONDS", default.outage_seconds, 30 * 86_400.0),
            stuck_seconds=_seconds(env, "UNMASK_STUCK_SECONDS", default.stuck_seconds),
            child_memory=_whole(env, "UNMASK_CHILD_MEMORY", default.child_memory, 256),
            events=env.get("UNMASK_EVENTS", ""),
            webhook_keys=tuple(env.get("UNMASK_WEBHOOK_KEYS", "").replace(",", " ").split()),
            auth=_one_of(env, "UNMASK_AUTH", ("", "tokens", "none")),
            tls=TlsSettings(_path(env, "UNMASK_TLS_CERT"), _path(env, "UNMASK_TLS_KEY"), _path(env, "UNMASK_TLS_CA")),
            metrics=env.get("UNMASK_METRICS", ""),
            log=_one_of(env, "UNMASK_LOG", ("text", "json")),
            traces=bool(given.get("OTEL_EXPORTER_OTLP_ENDPOINT")),
            c2pa_trust=_path(env, "UNMASK_C2PA_TRUST"),
        )


def _s3(env: Mapping[str, str]) -> S3Settings:
    default = S3Settings()
    return S3Settings(
        endpoint=env.get("UNMASK_S3", ""),
        bucket=env.get("UNMASK_S3_BUCKET", "") or default.bucket,
        access_key=env.get("UNMASK_S3_ACCESS_KEY", ""),
        secret_key=env.get("UNMASK_S3_SECRET_KEY", ""),
        region=env.get("UNMASK_S3_REGION", "") or default.region,
        ca=_path(env, "UNMASK_S3_CA"),
        sse=env.get("UNMASK_S3_SSE", ""),
        create=_flag(env, "UNMASK_S3_CREATE", default.create),
    )


def _with_files(env: Mapping[str, str]) -> dict[str, str]:
    """Variables of ours, with the contents of files (mounted secrets) where a name ends in _FILE; the plain name wins."""
    found = {name: value for name, value in env.items() if name.startswith("UNMASK_") and value}
    for name, place in list(found.items()):
        plain = name.removesuffix(_SECRETS_END)
        if plain == name or plain in found:
            continue
        try:
            found[plain] = Path(place).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise BadConfig(f"{name}={place!r}: cannot be read ({getattr(error, 'strerror', None) or 'not text'})") from error
    return found


def _path(env: Mapping[str, str], name: str) -> Path | None:
    text = env.get(name, "")
    return Path(text) if text else None


def _whole(env: Mapping[str, str], name: str, default: int, least: int) -> int:
    text = env.get(name, "")
    if not text:
        return default
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise BadConfig(f"{name}={text!r}: expected a whole number of at least {least}")
    return value


def _seconds(env: Mapping[str, str], name: str, default: float, most: float = 3600.0) -> float:
    text = env.get(name, "")
    try:
        value = float(text or default)
    except ValueError:
        value = 0.0
    if not 0.0 < value <= most:
        raise BadConfig(f"{name}={text!r}: expected seconds, more than 0 and at most {most:.0f}")
    return value


def _flag(env: Mapping[str, str], name: str, default: bool) -> bool:
    text = env.get(name, "").lower()
    if text not in {"", "0", "1", "false", "true"}:
        raise BadConfig(f"{name}={text!r}: expected 0 or 1")
    return default if not text else text in {"1", "true"}


def _one_of(env: Mapping[str, str], name: str, words: tuple[str, ...]) -> str:
    """One of the words; the first stands for an unset variable."""
    text = env.get(name, "") or words[0]
    if text not in words:
        raise BadConfig(f"{name}={text!r}: expected one of {', '.join(word for word in words if word)}")
    return text


def _networks(env: Mapping[str, str], name: str) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(text) for text in env.get(name, "").replace(",", " ").split())
    except ValueError as error:
        raise BadConfig(f"{name}: {error}; expected networks such as 10.0.0.0/8") from error

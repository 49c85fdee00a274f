"""Certificates: a server's, read again when their files change, and what a client trusts and shows."""

from __future__ import annotations

import logging
import os
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import grpc

from unmask.core.errors import BadConfig

_log = logging.getLogger(__name__)
PemSource = bytes | str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Pem:
    """A server's certificate chain and key, PEM; with `client_ca` callers have to show a certificate of that authority."""

    cert: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None = None


# Asked at the start and at every new connection; what it raises then is logged, and the last good one goes on.
Certificates = Callable[[], Pem]


class PemFiles:
    """Certificates in files, read at every call and checked when one of them has changed.  Thread-safe.

    Raises `BadConfig` for files that cannot be read, are no PEM, or do not belong together.
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None = None) -> None:
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._lock = threading.Lock()
        self._good: Pem | None = None

    def __call__(self) -> Pem:
        """The certificates as they now are."""
        client_ca = None if self._client_ca is None else _bytes(self._client_ca)
        pem = Pem(_bytes(self._cert), _bytes(self._key), client_ca)
        with self._lock:
            if pem != self._good:
                self._check()
                self._good = pem
        return pem

    def _check(self) -> None:
        context, what = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), f"TLS certificate {self._cert} with key {self._key}"
        try:
            # Without a password that is given, OpenSSL would ask for one on the terminal.
            context.load_cert_chain(self._cert, self._key, password=lambda: b"")
            what = f"TLS authority {self._client_ca}"
            if self._client_ca is not None:
                context.load_verify_locations(self._client_ca)
        except (ssl.SSLError, OSError, ValueError) as error:
            raise BadConfig(f"{what}: {_reason(error)}") from error


def server_credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """Credentials that ask for the certificates at every new connection; raises `BadConfig`."""
    first = certificates()
    last = [first]

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        try:
            pem = certificates()
        except BadConfig as error:
            _log.error("%s; the certificate read before goes on", error.detail)
            return None
        if pem == last[0]:
            return None
        last[0] = pem
        _log.info("the TLS certificate was read again")
        return _configuration(pem)

    wants_client = first.client_ca is not None
    # The stubs do not know that None goes on with what there is.
    told = cast("Callable[[], grpc.ServerCertificateConfiguration]", fetch)
    return grpc.dynamic_ssl_server_credentials(_configuration(first), told, require_client_authentication=wants_client)


def _configuration(pem: Pem) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pem.key, pem.cert)], root_certificates=pem.client_ca)


@dataclass(frozen=True, slots=True)
class Tls:
    """What a client trusts, and shows to a server that asks; each as PEM bytes or the path of a file.

    Without `ca` the authorities that come with gRPC are trusted; `cert` and `key` go together.
    """

    ca: PemSource | None = None
    cert: PemSource | None = None
    key: PemSource | None = field(default=None, repr=False)

    def credentials(self) -> grpc.ChannelCredentials:
        """The channel's credentials; raises `BadConfig`."""
        if (self.cert is None) != (self.key is None):
            raise BadConfig("TLS: a client's certificate and its key go together")
        ca, cert, key = (None if part is None else _bytes(part) for part in (self.ca, self.cert, self.key))
        for name, pem in (("ca", ca), ("cert", cert), ("key", key)):
            if pem is not None and b"-----BEGIN" not in pem:
                raise BadConfig(f"TLS: {name} is not PEM")
        return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=cert)


def _reason(error: Exception) -> str:
    """Why, without the library's numbers."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not PEM").replace("_", " ").lower()
    return getattr(error, "strerror", None) or str(error)


def _bytes(source: PemSource) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise BadConfig(f"TLS file {os.fspath(source)}: {error.strerror}") from error

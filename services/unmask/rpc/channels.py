"""Channels to a server: plaintext or TLS, and the token that goes along with every call."""

from __future__ import annotations

import ipaddress
from typing import Final

import grpc

from unmask.core.errors import BadConfig
from unmask.rpc.callers import HEADER
from unmask.rpc.tls import Tls

# A chip's pixels are lossless and can be larger than the picture's file; the server's own limit holds.
OPTIONS: Final = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
Metadata = tuple[tuple[str, str], ...]


def open_channel(address: str, tls: Tls | None) -> grpc.Channel:
    """A synchronous channel; TLS only where it is asked for.  Raises `BadConfig`."""
    if tls is None:
        return grpc.insecure_channel(address, options=OPTIONS)
    return grpc.secure_channel(address, tls.credentials(), options=OPTIONS)


def open_aio_channel(address: str, tls: Tls | None) -> grpc.aio.Channel:
    """The same for asyncio."""
    if tls is None:
        return grpc.aio.insecure_channel(address, options=OPTIONS)
    return grpc.aio.secure_channel(address, tls.credentials(), options=OPTIONS)


def metadata(address: str, token: str, tls: Tls | None) -> Metadata:
    """What every call carries.

    gRPC's own call credentials refuse plaintext, loopback too; so the token is plain metadata, and `BadConfig` is raised where
    it would cross a network in the clear.
    """
    if not token:
        return ()
    if tls is None and not is_loopback(address):
        raise BadConfig(f"{address}: a token is not sent over a network without TLS (tls=Tls(...))")
    if not token.isascii() or not token.isprintable():
        raise BadConfig("the token has characters that no token has")
    return ((HEADER, f"Bearer {token}"),)


def is_loopback(address: str) -> bool:
    """Whether HOST:PORT (or a unix socket) stays on this machine."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

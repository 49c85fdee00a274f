"""Ports on loopback that nobody listens on."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterable
from typing import Final

LOOPBACK: Final = "127.0.0.1"
# Below what Linux gives to outgoing connections (32768 up): a server that is restarted must find its port free again.
_FIRST: Final = 20_000
_LAST: Final = 32_000
_given: set[int] = set()
_lock = threading.Lock()


def free_port() -> int:
    """A TCP port on loopback that nobody listens on, and that this process was not given before."""
    return _take(0)


def free_ports_apart(distance: int) -> tuple[int, int]:
    """Two of them, the second one that much higher."""
    port = _take(distance)
    return port, port + distance


def set_aside(ports: Iterable[int]) -> None:
    """Never gives these to a server of this process: somebody is going to listen there who does not listen yet."""
    with _lock:
        _given.update(ports)


def _take(distance: int) -> int:
    with _lock:
        for _ in range(1000):
            port = random.randint(_FIRST, _LAST - distance)
            both = {port, port + distance}
            if not both & _given and all(map(is_free, both)):
                _given.update(both)
                return port
    raise OSError(f"no free port between {_FIRST} and {_LAST}")


def is_free(port: int) -> bool:
    """Nobody listens there on any address, so that a server of the same port elsewhere is no surprise."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True

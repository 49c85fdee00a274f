"""One database behind all that is kept in rows: connections, transactions, schema version, errors as ours."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError, InterfaceError, InternalError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from unmask.adapters.store_statements import INSERT
from unmask.adapters.store_tables import SCHEMA_VERSION, metadata, schema
from unmask.core.errors import BadConfig, StoreCorrupt, Unavailable

# Of the first release, before migrations.
_OLD_SCHEMA: Final = "unmask_schema"
# Class 25: the server is read-only (a standby, a full disk); 53: it lacks memory, disk or connections; 57: it is shutting down;
# 40: a deadlock or serialization failure that goes away by itself.
_PASSING: Final = ("25006", "53", "57", "40")


class Database:
    """Connections to one database by its URL; thread-safe, and usable after a fork once `forked` was called in the child.

    Raises `BadConfig` for a database of another kind, of an older schema (Postgres: `unmask db upgrade`; a SQLite file is
    brought up by itself) or a newer one, `Unavailable` when it cannot be reached, `StoreCorrupt` for a file that is none.
    """

    def __init__(self, url: str, *, check: bool = True, **engine: Any) -> None:
        try:
            self.engine = sa.create_engine(_with_driver(url), **_pool(url), **engine)
        except (sa.exc.ArgumentError, ImportError) as error:  # the URL itself may hold a password
            raise BadConfig(f"case store: {error}") from error
        self.dialect = self.engine.dialect.name
        if self.dialect not in INSERT:
            raise BadConfig(f"case store: {self.dialect} is not one of {', '.join(INSERT)}")
        # SQLite has one writer; waiting here is cheaper and fairer than its busy loop.
        self._turn = threading.Lock() if self.dialect == "sqlite" else nullcontext()
        if self.dialect == "sqlite":
            sa.event.listen(self.engine, "connect", _pragmas)
        if check:
            self._check()

    @classmethod
    def in_memory(cls) -> Database:
        """A database that is gone with the process."""
        return cls("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})

    def close(self) -> None:
        """Gives its connections back."""
        self.engine.dispose()

    def forked(self) -> None:
        """Forgets the parent's connections without closing them for it."""
        self.engine.dispose(close=False)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """All or nothing; the driver's errors come out as ours."""
        with _our_errors(), self._turn, self.engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """For single statements: each reads by itself (on Postgres also writes), without round trips for begin and end."""
        with _our_errors(), self._turn, self.engine.connect() as connection:
            if self.dialect == "postgresql":
                connection.execution_options(isolation_level="AUTOCOMMIT")
            yield connection

    def probe(self) -> None:
        """Asks the database something; raises `Unavailable`."""
        with self.reading() as connection:
            connection.execute(sa.select(1))

    def version(self) -> str | None:
        """The schema's version: a migration's name, `0001` for the first release's files, None for an empty database."""
        with self.transaction() as connection:
            return _version(connection)

    def _check(self) -> None:
        with self.transaction() as connection:
            if self.dialect == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")  # two processes may open a new file at once
                if _version(connection) is None:
                    metadata.create_all(connection)
                    connection.execute(sa.insert(schema).values(version_num=SCHEMA_VERSION))
            found = _version(connection)
        if found == SCHEMA_VERSION:
            return
        if self.dialect == "sqlite" and found is not None and found < SCHEMA_VERSION:
            from unmask.adapters.migrate import upgrade

            upgrade(self)
            return
        raise BadConfig(
            f"the case store has schema version {found or 'none'}, this program needs {SCHEMA_VERSION}: "
            + ("run `unmask db upgrade`" if found is None or found < SCHEMA_VERSION else "it was written by a newer Unmask")
        )


@contextmanager
def _our_errors() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, InternalError) as error:
        raise Unavailable(f"case store: {error.orig}") from error
    except DatabaseError as error:
        code = str(getattr(error.orig, "sqlstate", None) or "")
        kind = Unavailable if code.startswith(_PASSING) or error.connection_invalidated else StoreCorrupt
        raise kind(f"case store: {error.orig}") from error
    except sa.exc.TimeoutError as error:
        raise Unavailable("case store: no connection became free") from error
    except SQLAlchemyError as error:
        raise StoreCorrupt(f"case store: {error}") from error


def _version(connection: Connection) -> str | None:
    tables = sa.inspect(connection)
    if tables.has_table(schema.name):
        return connection.execute(sa.select(schema.c.version_num)).scalar()
    return "0001" if tables.has_table(_OLD_SCHEMA) else None


def _with_driver(url: str) -> str:
    """`postgresql://` and `postgres://` mean psycopg 3, the driver that comes along."""
    for plain in ("postgresql://", "postgres://"):
        if url.startswith(plain):
            return "postgresql+psycopg://" + url.removeprefix(plain)
    return url


def _pool(url: str) -> dict[str, Any]:
    if not url.startswith(("postgres://", "postgresql")):
        return {}
    # A server that hangs is given up.  No ping before each use: the first statement on a dead connection fails as Unavailable
    # and takes the pool's other connections with it, which costs one attempt and not a round trip for every transaction.
    limits = "-c statement_timeout=30000 -c lock_timeout=10000 -c idle_in_transaction_session_timeout=60000"
    told = {"connect_timeout": 5, "tcp_user_timeout": 15000, "options": limits, "application_name": "unmask"}
    return {"pool_size": 4, "max_overflow": 12, "pool_timeout": 10, "connect_args": told}


def _pragmas(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA busy_timeout=10000")
    _write_ahead(connection)
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA foreign_keys=ON")


def _write_ahead(connection: Any) -> None:
    """Switching the journal does not always wait for the others who open a new file: SQLite answers `locked` at once."""
    deadline = time.monotonic() + 10.0
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)

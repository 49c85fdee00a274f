"""Real servers as fixtures: each starts when a test first asks for it, and serves the whole run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

import pytest

from tests.conftest import missing

if TYPE_CHECKING:
    # Not at run time: the training environment, which reads this file too, has no such servers.
    from unmask_dev.postgres import Postgres
    from unmask_dev.process import Server
    from unmask_dev.rabbitmq import RabbitMQ
    from unmask_dev.seaweedfs import SeaweedFS
    from unmask_dev.valkey import Valkey

S = TypeVar("S", bound="Server")


@contextmanager
def running(server: S) -> Iterator[S]:
    """The server, started; stopped at the end.  One that this machine does not have is a missing backend."""
    from unmask_dev.process import ServerMissing

    try:
        server.start()
    except ServerMissing as error:
        missing(str(error))
    try:
        yield server
    finally:
        server.stop()


def alive(server: S) -> S:
    """The server, started again if a test before this one killed it."""
    if not server.process.running:
        server.start()
    return server


def fresh_name() -> str:
    """A name that nothing has yet; fine for a database, a bucket and a vhost."""
    return f"t{uuid4().hex[:12]}"


@contextmanager
def open_folder() -> Iterator[Path]:
    """A temporary folder that other users may pass through, as pytest's own may not: Postgres does not run as root."""
    with tempfile.TemporaryDirectory(prefix="unmask-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A Postgres cluster."""
    from unmask_dev.postgres import Postgres

    with open_folder() as folder, running(Postgres(folder / "postgres")) as server:
        yield server


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    """SQLAlchemy's URL of an empty Postgres database."""
    name = fresh_name()
    yield alive(postgres).create_database(name)
    alive(postgres).drop_database(name)


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A Valkey that loses nothing by kill -9."""
    from unmask_dev.valkey import Valkey

    with running(Valkey(tmp_path_factory.mktemp("valkey"))) as server:
        yield server


@pytest.fixture
def valkey_url(valkey: Valkey) -> str:
    """The URL of an empty Valkey."""
    with alive(valkey).connect() as client:
        client.flushall()
    return valkey.url


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """An S3 store."""
    from unmask_dev.seaweedfs import SeaweedFS

    with running(SeaweedFS(tmp_path_factory.mktemp("seaweedfs"))) as server:
        yield server


@pytest.fixture
def bucket(seaweedfs: SeaweedFS) -> Iterator[str]:
    """The name of an empty bucket."""
    name = alive(seaweedfs).create_bucket(fresh_name())
    yield name
    alive(seaweedfs).drop_bucket(name)


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """A RabbitMQ node."""
    from unmask_dev.rabbitmq import RabbitMQ

    with running(RabbitMQ(tmp_path_factory.mktemp("rabbitmq"))) as server:
        yield server


@pytest.fixture
def vhost_url(rabbitmq: RabbitMQ) -> Iterator[str]:
    """The URL of an empty RabbitMQ vhost."""
    name = fresh_name()
    yield alive(rabbitmq).create_vhost(name)
    alive(rabbitmq).drop_vhost(name)

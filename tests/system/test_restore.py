"""What docs/operate.md says of backups, rehearsed: the database dumped, lost with the broker, and brought back."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import missing
from tests.system.backends import open_folder
from tests.system.tiny_models import face_picture, make_repository
from unmask.core.domain import Label, State
from unmask.core.errors import UnknownCase
from unmask.rpc.client import Client

if TYPE_CHECKING:
    from unmask_dev.stack import Stack

STAGES = "ingest align classify localize"
QUICK = {"UNMASK_RETRY_SECONDS": "0.2", "UNMASK_STUCK_SECONDS": "2"}


@pytest.fixture
def stack() -> Iterator[Stack]:
    """Servers, models in process, a tenant; no process of ours yet."""
    from unmask_dev.process import ServerMissing
    from unmask_dev.stack import Stack

    with open_folder() as folder:
        made = Stack(folder / "stack", make_repository(folder / "models"), broker="valkey", triton=False, env=QUICK)
        try:
            made.start()
        except ServerMissing as error:
            missing(str(error))
        try:
            yield made
        finally:
            made.close()


def tool(stack: Stack, name: str, *arguments: str) -> None:
    """Runs a program of Postgres against the database of the stack."""
    from unmask_dev.postgres import binaries

    program = binaries() / name
    if not program.is_file():
        missing(f"this Postgres has no {name}")
    server = ["--host=127.0.0.1", f"--port={stack.postgres.port}", "--username=unmask"]
    env = {"PATH": os.environ["PATH"], "PGPASSWORD": stack.postgres.password}
    done = subprocess.run([program, *server, *arguments], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{name}: {done.stderr}"


def serving(stack: Stack, *, working: bool) -> str:
    """Starts the gRPC server, and with `working` the workers; the server's address."""
    from unmask_dev.ports import LOOPBACK, free_port

    address = f"{LOOPBACK}:{free_port()}"
    stack.spawn("serve", "serve", "ingestion", "review", "--listen", address)
    if working:
        stack.work(STAGES, concurrency=1)
        stack.work("sweep")
    stack.wait_ready(120)
    return address


def stop_processes(stack: Stack) -> None:
    for process in stack.processes.values():
        process.stop(30)
    stack.processes.clear()
    stack.metrics.clear()


def test_a_restored_database_goes_on_where_the_backup_was_made(stack: Stack, tmp_path: Path) -> None:
    stack.command("tenant", "create", "acme")
    token = stack.command("token", "create", "acme", "--scope", "submit", "--scope", "read").strip()
    with Client(serving(stack, working=True), token=token) as client:
        before = client.check(face_picture(red=210, blue=10))
    assert before.label is Label.SYNTHETIC
    stop_processes(stack)
    with Client(serving(stack, working=False), token=token) as client:
        under_way = client.submit(face_picture(red=10, blue=10)).id
        tool(stack, "pg_dump", "--format=custom", f"--file={tmp_path / 'unmask.dump'}", "unmask")
        too_late = client.submit(face_picture(red=10, blue=10, seed=5)).id
    stop_processes(stack)

    tool(stack, "dropdb", "--force", "unmask")
    stack.broker.connect().flushall()  # type: ignore[attr-defined]
    tool(stack, "createdb", "unmask")
    tool(stack, "pg_restore", "--dbname=unmask", "--exit-on-error", str(tmp_path / "unmask.dump"))
    stack.command("db", "upgrade")

    with Client(serving(stack, working=True), token=token) as client:
        assert client.get_verdict(before.id).verdict == before
        *_, last = client.wait_verdict(under_way, timeout=60)
        assert (last.case.state, last.verdict and last.verdict.label) == (State.DECIDED, Label.REAL)
        with pytest.raises(UnknownCase):
            client.get_verdict(too_late)
        assert client.check(face_picture(red=10, blue=10, seed=5)).label is Label.REAL

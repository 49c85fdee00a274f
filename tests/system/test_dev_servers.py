"""The launchers of deploy/dev: servers that keep what they took, refuse strangers and die with whoever started them."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import tests.conftest
from tests.conftest import ROOT
from tests.system.backends import fresh_name, open_folder, running
from unmask_dev import ports
from unmask_dev.ports import free_port, free_ports_apart, set_aside
from unmask_dev.postgres import Postgres
from unmask_dev.process import Process, ServerFailed, ServerMissing, wait_until
from unmask_dev.rabbitmq import RabbitMQ
from unmask_dev.seaweedfs import SeaweedFS
from unmask_dev.valkey import Valkey


@dataclass(frozen=True)
class Kind:
    """How a server is used: `write` stores a text under a name, `read` gives it back, `stranger` has a wrong password."""

    server: type[Any]
    write: Callable[[Any, str, str], object]
    read: Callable[[Any, str], str]
    stranger: Callable[[Any], object]
    refusal: str


def _pg_write(server: Postgres, name: str, text: str) -> None:
    server.create_database(name)
    with server.connect(name) as connection:
        connection.execute("CREATE TABLE kept (text text)")
        connection.execute("INSERT INTO kept VALUES (%s)", (text,))


def _pg_read(server: Postgres, name: str) -> str:
    with server.connect(name) as connection:
        return str(connection.execute("SELECT text FROM kept").fetchone()[0])  # type: ignore[index]


def _pg_stranger(server: Postgres) -> None:
    import psycopg

    psycopg.connect(server.url.replace("+psycopg", "").replace(server.password, "wrong"))


def _valkey_read(server: Valkey, name: str) -> str:
    return server.connect().get(name).decode()  # type: ignore[union-attr]


def _valkey_stranger(server: Valkey) -> None:
    import redis

    redis.Redis.from_url(server.url.replace(server.password, "wrong")).ping()


def _weed_write(server: SeaweedFS, name: str, text: str) -> None:
    server.create_bucket(name)
    server.client().put_object(name, "kept", io.BytesIO(text.encode()), len(text))


def _weed_stranger(server: SeaweedFS) -> None:
    import minio

    minio.Minio(server.endpoint, server.access_key, "wrong", secure=False, region=server.region).list_buckets()


def _rabbit_write(server: RabbitMQ, name: str, text: str) -> None:
    import amqp

    with server.connect() as connection, connection.channel() as channel:
        channel.queue_declare(name, durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"})
        channel.basic_publish(amqp.Message(text, delivery_mode=2), routing_key=name)
    server.sync()


def _rabbit_read(server: RabbitMQ, name: str) -> str:
    with server.connect() as connection, connection.channel() as channel:
        message = channel.basic_get(name)
        channel.basic_reject(message.delivery_tag, requeue=True)
    return str(message.body)


def _rabbit_stranger(server: RabbitMQ) -> None:
    import amqp

    amqp.Connection(f"127.0.0.1:{server.port}", "unmask", "wrong", connect_timeout=5).connect()


KINDS = {
    "postgres": Kind(Postgres, _pg_write, _pg_read, _pg_stranger, "password authentication failed"),
    "valkey": Kind(
        Valkey, lambda s, name, text: s.connect().set(name, text), _valkey_read, _valkey_stranger, "invalid username"
    ),
    "seaweedfs": Kind(
        SeaweedFS,
        _weed_write,
        lambda s, name: s.client().get_object(name, "kept").data.decode(),
        _weed_stranger,
        "SignatureDoesNot",
    ),
    "rabbitmq": Kind(RabbitMQ, _rabbit_write, _rabbit_read, _rabbit_stranger, "ACCESS_REFUSED"),
}


def family(pid: int) -> set[int]:
    """The process and everything below it."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def gone(pid: int) -> bool:
    """Whether it has ended (one that nobody has asked about yet, a zombie, has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return True


def listening(pid: int) -> set[str]:
    """The addresses (as the kernel writes them) that the process listens on; none of one that has ended meanwhile."""
    links = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # closed meanwhile
                links.append(str(link.readlink()))
    own = {link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:")}
    rows = [row.split() for name in ("tcp", "tcp6") for row in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in own}


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_what_it_took_survives_kill_and_restart(name: str) -> None:
    kind, thing = KINDS[name], fresh_name()
    with open_folder() as folder, running(kind.server(folder / "server")) as server:
        url = server.url
        kind.write(server, thing, "kept")
        server.kill()
        assert not server.process.running and server.process.returncode == -signal.SIGKILL
        with pytest.raises(Exception, match=r"(?i)refused|connect"):
            kind.read(server, thing)
        server.start()
        assert kind.read(server, thing) == "kept"
        server.restart()
        assert (kind.read(server, thing), server.url) == ("kept", url)
        server.stop()
        assert not server.process.running


@pytest.mark.parametrize("name", KINDS)
def test_it_checks_passwords_and_is_heard_on_loopback_alone(name: str, request: pytest.FixtureRequest) -> None:
    kind, server = KINDS[name], request.getfixturevalue(name)
    with pytest.raises(Exception, match=kind.refusal):
        kind.stranger(server)
    found = set().union(*(listening(pid) for pid in family(server.process.pid)))
    assert found and found <= {"0100007F", "00000000000000000000000001000000"}


STARTS = """
import signal, sys
from pathlib import Path
from unmask_dev.{module} import {name}
server = {name}(Path(sys.argv[1]))
server.start()
print(server.process.pid, flush=True)
signal.pause()
"""


@contextmanager
def parent(*argv: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose life others depend on."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))}
    process = subprocess.Popen([sys.executable, *argv], cwd=ROOT, stdout=subprocess.PIPE, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("name", KINDS)
def test_it_dies_with_its_parent_and_so_do_its_children(name: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(name)  # skips where there is none
    program = STARTS.format(module=name, name=KINDS[name].server.__name__)
    with open_folder() as folder, parent("-c", program, folder / "server") as starter:
        pid = int(starter.stdout.readline())  # type: ignore[union-attr]
        everyone = family(starter.pid) - {starter.pid}
        assert pid in everyone and not any(map(gone, everyone))
        starter.kill()
        wait_until(lambda: all(map(gone, everyone)), 10, "the end of all of them")


PYTEST = """
import os, signal
def test_it(valkey):
    os.write(1, b"%d\\n" % valkey.process.pid)
    signal.pause()
"""


def test_it_dies_with_pytest(valkey: Valkey, tmp_path: Path) -> None:
    test = tmp_path / "test_it.py"
    test.write_text(PYTEST)
    argv: list[str | Path] = [
        "-m",
        "pytest",
        "-qs",
        "-p",
        "tests.system.backends",
        "-c",
        ROOT / "pyproject.toml",
        "--rootdir",
        ROOT,
        test,
    ]
    with parent(*argv) as runner:
        pid = int(runner.stdout.readline())  # type: ignore[union-attr]
        assert not gone(pid) and pid != valkey.process.pid
        runner.kill()
        wait_until(lambda: gone(pid), 10, "the server's end")


def test_it_outlives_the_thread_that_started_it(tmp_path: Path, valkey: Valkey) -> None:
    """The kernel ties a child to the thread that made it."""
    server, native = Valkey(tmp_path / "server"), list[int]()

    def start() -> None:
        native.append(threading.get_native_id())
        server.start()

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    wait_until(lambda: not Path(f"/proc/self/task/{native[0]}").exists(), 5, "the thread's end")
    with server.connect() as client:
        assert all(client.incr("n") == number for number in range(1, 100))
    server.stop()


class TestFailing:
    """A server that does not come up, or does not go down."""

    def test_the_reason_is_in_the_error(self, tmp_path: Path, valkey: Valkey) -> None:
        server = Valkey(tmp_path / "server")
        server.port = valkey.port
        with pytest.raises(ServerFailed, match=r"(?s)starting valkey.*Address already in use"):
            server.start()
        assert not server.process.running and valkey.connect().ping()

    def test_one_that_is_not_here_is_a_missing_backend(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("unmask_dev.rabbitmq._PROGRAM", tmp_path / "none")
        monkeypatch.setenv("PATH", str(tmp_path))
        for ci, outcome in ((False, pytest.skip.Exception), (True, pytest.fail.Exception)):
            monkeypatch.setattr(tests.conftest, "CI", ci)
            with pytest.raises(outcome, match="apt install rabbitmq-server"), running(RabbitMQ(tmp_path / "server")):
                raise AssertionError("it started")
        with pytest.raises(ServerMissing):
            RabbitMQ(tmp_path / "server").start()

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
    def test_postgres_says_which_folder_keeps_it_out(self, tmp_path: Path, postgres: Postgres) -> None:
        (tmp_path / "closed").mkdir(mode=0o700)
        with pytest.raises(ServerFailed, match=r"'nobody'.*lets nobody else through"):
            Postgres(tmp_path / "closed" / "server").start()

    def test_one_that_will_not_stop_is_killed_with_its_children(self, tmp_path: Path) -> None:
        program = "trap '' TERM; sleep 600 & echo started; wait; sleep 600"
        process = Process(["sh", "-c", program], folder=tmp_path, log=tmp_path / "log")
        process.start()
        wait_until(lambda: "started" in process.tail(), 10, "the shell")
        everyone = family(process.pid)
        assert len(everyone) == 2
        process.stop(0.1)
        wait_until(lambda: all(map(gone, everyone)), 5, "the end of both")
        process.stop()
        with pytest.raises(ServerFailed, match="not within"):
            wait_until(lambda: False, 0.01, "what never comes")

    def test_a_pause_ends_with_resume(self, tmp_path: Path, valkey: Valkey) -> None:
        with running(Valkey(tmp_path / "server")) as server:
            server.process.pause()
            with pytest.raises(Exception, match=r"(?i)time"), server.connect() as client:
                client.connection_pool.connection_kwargs["socket_timeout"] = 0.2
                client.ping()
            server.process.resume()
            assert server.connect().ping()


def test_ports_are_free_given_once_and_below_those_of_clients() -> None:
    first_of_clients = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    given = [free_port() for _ in range(50)] + [port for _ in range(10) for port in free_ports_apart(10_000)]
    assert len(set(given)) == len(given) == 70 and max(given) < first_of_clients


def test_what_is_set_aside_for_processes_that_start_later_is_given_to_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_FIRST", 31_000)
    monkeypatch.setattr(ports, "_LAST", 31_020)
    set_aside(range(31_000, 31_015))
    given = {free_port() for _ in range(4)}
    assert given and min(given) >= 31_015


def test_every_server_tells_where_it_is(tmp_path: Path) -> None:
    urls = {name: kind.server(tmp_path / name).url for name, kind in KINDS.items()}
    schemes = {"postgres": "postgresql+psycopg://", "valkey": "redis://", "seaweedfs": "http://", "rabbitmq": "amqp://"}
    assert all(urls[name].startswith(scheme) and "@127.0.0.1:" in urls[name] for name, scheme in schemes.items())

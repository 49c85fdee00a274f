"""The whole platform on this machine: real servers, and Unmask's own processes over them."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self
from urllib.request import urlopen

from unmask_dev.kept import Kept
from unmask_dev.ports import LOOPBACK, free_port
from unmask_dev.postgres import Postgres
from unmask_dev.process import Process, Server, ServerFailed, wait_until
from unmask_dev.rabbitmq import RabbitMQ
from unmask_dev.seaweedfs import SeaweedFS
from unmask_dev.triton import Triton
from unmask_dev.valkey import Valkey

Broker = Literal["rabbitmq", "valkey"]
WORKERS: Final = ("ingest", "align", "classify", "localize", "submit", "deliver", "sweep")
_DATABASE: Final = "unmask"
_DRAIN_SECONDS: Final = 30.0
_COMMAND: Final = (sys.executable, "-m", "unmask.cli.main")


class Stack:
    """Postgres, a broker, SeaweedFS and (with `triton`) Triton under `folder`, and the processes of Unmask spawned over them.

    `env` overrides or adds variables of the processes.  A context manager: everything stops with it,
    and dies with this process.  One made on a folder that was used before goes on with what is there.
    """

    def __init__(
        self,
        folder: Path,
        models: Path,
        *,
        broker: Broker = "valkey",
        triton: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.folder, self.models = folder.absolute(), models.absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.postgres = Postgres(self.folder / "postgres")
        self.broker: Server = RabbitMQ(self.folder / "rabbitmq") if broker == "rabbitmq" else Valkey(self.folder / "valkey")
        self.blobs = SeaweedFS(self.folder / "seaweedfs")
        self.triton = Triton(self.folder / "triton", self.models) if triton else None
        self.processes: dict[str, Process] = {}
        self.metrics: dict[str, str] = {}
        self._more = dict(env or {})
        self._database = ""
        self.kept = Kept(self.folder / "kept.json")
        self._webhook_key = self.kept.get("webhook_key", lambda: secrets.token_hex(32))

    @property
    def servers(self) -> dict[str, Server]:
        """By name, in the order in which they start."""
        found: dict[str, Server] = {"postgres": self.postgres, "broker": self.broker, "seaweedfs": self.blobs}
        return found if self.triton is None else {**found, "triton": self.triton}

    @property
    def environment(self) -> dict[str, str]:
        """What every process of Unmask is told."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("UNMASK_")}
        triton = {} if self.triton is None else {"UNMASK_TRITON": self.triton.url}
        return {
            **own,
            "UNMASK_DATABASE": self._database,
            "UNMASK_BROKER": self.broker.url,
            "UNMASK_S3": f"http://{self.blobs.endpoint}",
            "UNMASK_S3_ACCESS_KEY": self.blobs.access_key,
            "UNMASK_S3_SECRET_KEY": self.blobs.secret_key,
            "UNMASK_S3_BUCKET": "unmask",
            "UNMASK_S3_CREATE": "1",
            "UNMASK_MODELS": str(self.models),
            "UNMASK_WEBHOOK_KEYS": self._webhook_key,
            "UNMASK_EVENTS": "unmask.events",
            "UNMASK_ALLOW_PRIVATE": f"{LOOPBACK}/32",
            **triton,
            **self._more,
        }

    def start(self) -> None:
        """Starts the servers and brings the database to the newest schema; describes models to Triton that are not yet."""
        described = {path.parent for path in self.models.glob("*/config.pbtxt")}
        if {path.parent.parent for path in self.models.glob("*/*/card.json")} - described:
            self.command("models", "config")
        for server in self.servers.values():
            server.start()
        if not self.postgres.has_database(_DATABASE):
            self.postgres.create_database(_DATABASE)
        self._database = self.postgres.url_of(_DATABASE)
        self.command("db", "upgrade")

    def command(self, *arguments: str) -> str:
        """Runs `unmask …` to its end; what it printed.  Raises `ServerFailed` with what it said when it failed."""
        done = subprocess.run(
            [*_COMMAND, *arguments], env=self.environment, capture_output=True, text=True, timeout=120, check=False
        )
        if done.returncode != 0:
            raise ServerFailed(f"unmask {' '.join(arguments)}: exit code {done.returncode}\n{done.stderr}")
        return done.stdout

    def spawn(self, name: str, *arguments: str, metrics: bool = True, port: int = 0) -> Process:
        """Starts `unmask ARGUMENTS` under that name; its lines go to `<folder>/<name>.log`, its status page is on `port`."""
        env = self.environment
        if metrics:
            self.metrics[name] = env["UNMASK_METRICS"] = f"{LOOPBACK}:{port or free_port()}"
        process = Process([*_COMMAND, *arguments], folder=self.folder, log=self.folder / f"{name}.log", env=env)
        process.start()
        self.processes[name] = process
        return process

    def work(self, kind: str, *, number: int = 1, concurrency: int = 0, port: int = 0) -> Process:
        """Starts a worker of that kind, or of several stages (`ingest align`)."""
        told = ("--concurrency", str(concurrency)) if concurrency else ()
        return self.spawn(f"{kind.replace(' ', '-')}-{number}", "work", *kind.split(), *told, port=port)

    def wait_ready(self, seconds: float = 60) -> None:
        """Returns when every process with a status page says that it is ready; raises `ServerFailed` with a log's tail."""
        for name, address in self.metrics.items():
            process = self.processes[name]
            try:
                wait_until(lambda at=address: is_ready(at), seconds, f"starting {name}", lambda one=process: one.running)  # type: ignore[misc]
            except ServerFailed as error:
                raise ServerFailed(f"{error}\n{process.tail()}") from None

    def close(self) -> None:
        """Stops everything: the processes, which finish what they have in hand side by side, then the servers."""
        for process in self.processes.values():
            process.send(signal.SIGTERM)
        until = time.monotonic() + _DRAIN_SECONDS
        for process in self.processes.values():
            process.wait(max(0.0, until - time.monotonic()))
            process.kill()
        for server in reversed(self.servers.values()):
            server.stop()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def is_ready(address: str) -> bool:
    """Whether the status page there says so; raises what urllib raises otherwise."""
    with urlopen(f"http://{address}/readyz", timeout=5) as answer:
        return bool(answer.status == 200)

"""What deploy/compose.yaml runs, without Docker: its own commands, settings, secrets and configuration, on loopback.

Names of containers become addresses, 0.0.0.0 becomes 127.0.0.1, and fixed ports become free ones; nothing else is changed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.deploy.composed import FOLDER, compose, of_unmask
from tests.system.backends import running
from tests.system.triton_backend import triton_over
from unmask_dev.kept import Kept
from unmask_dev.ports import LOOPBACK, free_port
from unmask_dev.postgres import Postgres
from unmask_dev.process import Process
from unmask_dev.rabbitmq import RabbitMQ
from unmask_dev.seaweedfs import SeaweedFS, binary

_LASTING = ("serve", "stages", "shadow", "submit", "deliver", "sweep")


class ComposedRabbitMQ(RabbitMQ):
    """A node with the configuration, plugins and user of the compose file; only where it listens is ours."""

    def __init__(self, folder: Path, secrets: Path) -> None:
        super().__init__(folder)
        self._secrets = secrets
        self.password = re.findall(r"default_pass = (\w+)", (secrets / "rabbitmq_user").read_text(encoding="utf-8"))[0]
        self.metrics_port, self._page_port = free_port(), free_port()

    def _config(self) -> str:
        listening = {
            "listeners.tcp.1": f"{LOOPBACK}:{self.port}",
            "management.tcp.ip": LOOPBACK,
            "management.tcp.port": str(self._page_port),
            "prometheus.tcp.ip": LOOPBACK,
            "prometheus.tcp.port": str(self.metrics_port),
        }
        own = [FOLDER / "rabbitmq/rabbitmq.conf", self._secrets / "rabbitmq_user"]
        lines = [f"{name} = {value}\n" for name, value in listening.items()]
        return "".join(lines + [path.read_text(encoding="utf-8") for path in own])

    def _environment(self) -> dict[str, str]:
        plugins = self.folder / "composed_plugins"
        shutil.copy(FOLDER / "rabbitmq/enabled_plugins", plugins)
        return {**super()._environment(), "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins)}


class ComposedSeaweedFS(SeaweedFS):
    """`weed` with the compose file's own arguments and the script's keys."""

    def __init__(self, folder: Path, secrets: Path, command: list[str]) -> None:
        super().__init__(folder)
        self.access_key, self.secret_key = ((secrets / name).read_text().strip() for name in ("s3_access_key", "s3_secret_key"))
        self._secrets, self._command, self.metrics_port = secrets, command, free_port()

    def _process(self) -> Process:
        (data := self.folder / "data").mkdir(exist_ok=True)
        given = [word.replace("/run/secrets", str(self._secrets)).replace("0.0.0.0", LOOPBACK) for word in self._command]
        given = [f"-dir={data}" if word == "-dir=/data" else word for word in given]
        # Where a flag is said twice the last word counts.
        parts = {part: both for part, both in self.ports.items() if part in {"master", "volume", "filer", "s3"}}
        moved = [f"-{part}.port{kind}={n}" for part, both in parts.items() for kind, n in zip(("", ".grpc"), both, strict=True)]
        sockets = [f"-{part}.localSocket={data / part}.sock" for part in ("filer", "s3")]
        # Volumes are made of the room there is: on a machine of ours not a gigabyte each.
        more = [*moved, *sockets, f"-metricsPort={self.metrics_port}", "-volume.max=20", "-master.volumeSizeLimitMB=64"]
        environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(data), "GOMEMLIMIT": self.memory}
        return Process([binary(), *given, *more], folder=self.folder, log=self.folder / "seaweedfs.log", env=environment)


@dataclass
class Composed:
    """The running platform."""

    folder: Path
    image: Path
    made: Path  # what the script wrote
    secrets: Path  # what containers see of it as /run/secrets
    services: dict[str, Any]
    addresses: dict[str, str]
    rabbitmq: ComposedRabbitMQ
    seaweedfs: ComposedSeaweedFS
    processes: dict[str, Process] = field(default_factory=dict)
    metrics: dict[str, int] = field(default_factory=dict)

    def environment(self, name: str) -> dict[str, str]:
        """What the container of that name is told, in this place's addresses."""
        told = {key: str(value) for key, value in self.services[name]["environment"].items()}
        told = {key: value.replace("/run/secrets", str(self.secrets)) for key, value in told.items()}
        for container, address in self.addresses.items():
            told = {key: value.replace(container, address) for key, value in told.items()}
        if told.get("UNMASK_METRICS"):
            told["UNMASK_METRICS"] = f"{LOOPBACK}:{self.metrics.setdefault(name, free_port())}"
        return {"PATH": f"{self.image / 'bin'}:/usr/bin:/bin", "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1", **told}

    def run(self, name: str, *arguments: str) -> str:
        """`docker compose run --rm NAME ARGUMENTS` (the service's own command without any); what it printed."""
        argv = [self.image / "bin/unmask", *(arguments or self.services[name]["command"])]
        done = subprocess.run(argv, env=self.environment(name), capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def up(self, name: str) -> None:
        """Starts the container of that name."""
        command = [str(word).replace("0.0.0.0:50051", self.addresses["serve:50051"]) for word in self.services[name]["command"]]
        (cwd := self.folder / name).mkdir()
        argv = [self.image / "bin/unmask", *command]
        process = Process(argv, folder=cwd, log=self.folder / f"{name}.log", env=self.environment(name))
        process.start()
        self.processes[name] = process

    def is_healthy(self, name: str) -> bool:
        """The service's own health check."""
        _, *argv = [word.replace(":9464", f":{self.metrics[name]}") for word in self.services[name]["healthcheck"]["test"]]
        return subprocess.run(argv, env=self.environment(name), capture_output=True, timeout=30, check=False).returncode == 0


def make_secrets(folder: Path, *names: str) -> str:
    """Runs the script; what it said."""
    environment = {**os.environ, "UNMASK_SECRETS": str(folder)}
    command = ["bash", FOLDER / "compose-secrets.sh", *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def composed(folder: Path, image: Path, models: Path) -> Iterator[Composed]:
    """Servers and processes of the compose file, started in its order."""
    make_secrets(folder / "made")
    whole = compose(UNMASK_SECRETS=str(folder / "made"))
    services, secrets = whole["services"], folder / "secrets"
    secrets.mkdir()
    for name, told in whole["secrets"].items():
        shutil.copy(told["file"], secrets / name)
    with ExitStack() as stack:
        (folder / "postgres").mkdir()
        Kept(folder / "postgres/kept.json").put("password", (secrets / "postgres_password").read_text().strip())
        postgres = stack.enter_context(running(Postgres(folder / "postgres")))
        postgres.create_database("unmask")
        rabbitmq = stack.enter_context(running(ComposedRabbitMQ(folder / "rabbitmq", secrets)))
        blobs = stack.enter_context(running(ComposedSeaweedFS(folder / "seaweedfs", secrets, services["seaweedfs"]["command"])))
        loaded = [word.partition("=")[2] for word in services["triton"]["command"] if word.startswith("--load-model=")]
        triton = stack.enter_context(triton_over(folder / "triton", models, load=loaded))
        for name, host, address in (
            ("database", "@postgres/", f"@{LOOPBACK}:{postgres.port}/"),
            ("broker", "@rabbitmq:5672/", f"@{LOOPBACK}:{rabbitmq.port}/"),
        ):
            text = (secrets / name).read_text(encoding="utf-8")
            assert host in text
            (secrets / name).write_text(text.replace(host, address), encoding="utf-8")
        addresses = {
            "seaweedfs:8333": blobs.endpoint,
            "triton:8001": triton.url,
            "serve:50051": f"{LOOPBACK}:{free_port()}",
            "/models": str(models),
        }
        found = Composed(folder, image, folder / "made", secrets, of_unmask({"services": services}), addresses, rabbitmq, blobs)
        stack.callback(lambda: [process.kill() for process in found.processes.values()])
        found.run("migrate")
        for name in _LASTING:
            found.up(name)
        yield found

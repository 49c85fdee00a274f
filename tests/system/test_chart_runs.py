"""What the chart renders, run as it stands over real servers: its migration, its copy of the models, its processes, a picture.

Only addresses, secrets and places differ from the rendering; no variable of this machine comes along but what finds Python.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.conftest import ROOT, missing
from tests.system.backends import open_folder
from tests.system.tiny_models import face_picture, make_repository
from unmask.core.errors import UnmaskError
from unmask.rpc.client import Client
from unmask.rpc.tls import Tls

if TYPE_CHECKING:
    from unmask_dev.process import Process
    from unmask_dev.stack import Stack

COMMAND = (sys.executable, "-m", "unmask.cli.main")
# What a cluster gives otherwise: addresses and secrets of the servers.
_GIVEN = "DATABASE BROKER S3 S3_ACCESS_KEY S3_SECRET_KEY TRITON WEBHOOK_KEYS"
GIVEN = [f"UNMASK_{name}" for name in _GIVEN.split()]


def rendered() -> dict[str, dict[str, Any]]:
    """The default rendering's workloads by name."""
    documents = yaml.safe_load_all((ROOT / "tests/helm/golden/default.yaml").read_text(encoding="utf-8"))
    return {d["metadata"]["name"]: d["spec"]["template"]["spec"] for d in documents if d["kind"] in {"Deployment", "Job"}}


@dataclass
class Node:
    """Runs containers of Unmask as processes."""

    stack: Stack
    folder: Path
    processes: dict[str, Process] = field(default_factory=dict)
    metrics: dict[str, str] = field(default_factory=dict)
    grpc: dict[str, str] = field(default_factory=dict)

    def environment(self, container: dict[str, Any]) -> dict[str, str]:
        """The container's variables, with this machine's servers and places."""
        own = {entry["name"]: entry.get("value", "") for entry in container["env"]}
        own |= {name: self.stack.environment[name] for name in GIVEN if name in own and name in self.stack.environment}
        if self.stack.triton is None:
            own.pop("UNMASK_TRITON", None)
        own |= {name: self.placed(value) for name, value in own.items() if value.startswith(("/models", "/etc/unmask"))}
        python = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        return {**own, **python, "PYTHONPATH": str(ROOT / "services"), "TMPDIR": str(self.folder)}

    def placed(self, path: str) -> str:
        """A path of the container under this test's folder."""
        return str(self.folder / path.lstrip("/"))

    def run(self, container: dict[str, Any]) -> str:
        """To its end; what it printed."""
        command = [*COMMAND, *container["args"]]
        told = self.environment(container)
        done = subprocess.run(command, env=told, cwd="/", capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, name: str, container: dict[str, Any]) -> None:
        """In the background, with ports of its own."""
        from unmask_dev.ports import free_port
        from unmask_dev.process import Process

        told, arguments = self.environment(container), list(container["args"])
        metrics, grpc = free_port(), free_port()
        told["UNMASK_METRICS"] = told["UNMASK_METRICS"].replace(":9464", f":{metrics}")
        if "0.0.0.0:50051" in arguments:
            arguments[arguments.index("0.0.0.0:50051")] = f"0.0.0.0:{grpc}"
            self.grpc[name] = f"127.0.0.1:{grpc}"
        self.metrics[name] = f"127.0.0.1:{metrics}"
        process = Process([*COMMAND, *arguments], folder=Path("/"), log=self.folder / f"{name}.log", env=told)
        process.start()
        self.processes[name] = process

    def close(self) -> None:
        """Ends what runs."""
        for process in self.processes.values():
            process.kill()


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    from unmask_dev.certs import write_certificates
    from unmask_dev.process import ServerMissing
    from unmask_dev.stack import Stack

    with open_folder() as folder:
        stack = Stack(folder / "stack", make_repository(folder / "repository"), broker="rabbitmq")
        with closing(stack):
            try:
                stack.start()
            except ServerMissing as error:
                missing(str(error))
            tls = folder / "etc/unmask/tls"
            tls.mkdir(parents=True)
            write_certificates(tls)
            for pem, name in (("server.pem", "tls.crt"), ("server.key", "tls.key"), ("ca.pem", "ca.crt")):
                (tls / pem).rename(tls / name)
            with closing(Node(stack, folder)) as node:
                yield node


@pytest.mark.slow
def test_the_rendered_processes_judge_a_picture_and_drain_in_time(node: Node) -> None:
    from unmask_dev.process import wait_until
    from unmask_dev.stack import is_ready

    pods = rendered()
    assert "schema" in node.run(pods.pop("unmask-migration")["containers"][0])
    # As the installing reader does, and then the chart's own init container.
    node.stack.command("models", "push", "--to", "s3://unmask")
    (models,) = pods["unmask-classification-work"]["initContainers"]
    Path(node.placed("/models")).mkdir()
    assert "detector/1" in node.run(models)
    shutil.copy(node.stack.models / "release.json", node.placed("/models"))
    del pods["unmask-triton"]
    for name, pod in pods.items():
        node.start(name, pod["containers"][0])
    for name, address in node.metrics.items():
        process = node.processes[name]
        wait_until(lambda at=address: is_ready(at), 120, name, lambda one=process: one.running)  # type: ignore[misc]
    node.stack.command("tenant", "create", "acme")
    token = node.stack.command("token", "create", "acme", "--scope", "submit", "--scope", "read").strip()
    trust = Tls(ca=Path(node.placed("/etc/unmask/tls/ca.crt")))
    with closing(Client(node.grpc["unmask-ingestion-serve"], timeout=60, token=token, tls=trust)) as client:
        assert client.check(face_picture()).faces
    with closing(Client(node.grpc["unmask-ingestion-serve"], timeout=5, tls=trust)) as nobody, pytest.raises(UnmaskError):
        nobody.check(face_picture())
    for process in node.processes.values():
        process.send(signal.SIGTERM)
    for name, process in node.processes.items():
        assert process.wait(pods[name]["terminationGracePeriodSeconds"]) and process.returncode == 0, process.tail()

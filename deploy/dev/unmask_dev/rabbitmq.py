"""RabbitMQ of the machine (Debian: `apt install rabbitmq-server`), in a node of our own."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from unmask_dev.ports import LOOPBACK, free_port
from unmask_dev.process import Process, Server, ServerFailed, ServerMissing, wait_until

if TYPE_CHECKING:
    from amqp import Connection

_USER: Final = "unmask"
# Debian's command would become the user `rabbitmq` and write to its folders; this is the program behind it.
_PROGRAM: Final = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_LOOPBACK_ONLY: Final = ("-kernel", "inet_dist_use_interface", "{127,0,0,1}")
# No busy waiting: the machine is shared with what is tested.
_ERLANG: Final = (*_LOOPBACK_ONLY, "+sbwt none", "+sbwtdcpu none", "+sbwtdio none")


class RabbitMQ(Server):
    """A node with its own name, ports, cookie, data and logs in `folder`; the machine's service may run beside it.

    Erlang's port mapper (epmd) is a second process of ours: one that a node starts would outlive it and us.

    Kill -9 keeps what was confirmed in quorum queues, with one exception: Ra writes the list of the node's queues seconds
    after one was declared, and one that is not on it never answers again (seen with 3.10).  `sync` writes it now.
    """

    name = "rabbitmq"
    start_seconds = 120

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        # The port is in the node's name too, and that in the names of its files.
        self.port, self._distribution_port, self._epmd_port = (
            self.kept.get(name, free_port) for name in ("port", "distribution", "epmd")
        )
        self.password = self.kept.get("password", lambda: secrets.token_hex(12))
        self._epmd: Process | None = None

    @property
    def url(self) -> str:
        """Of the vhost `/`."""
        return self.url_of("/")

    def url_of(self, vhost: str) -> str:
        """Of that vhost."""
        return f"amqp://{_USER}:{self.password}@{LOOPBACK}:{self.port}/{quote(vhost, safe='')}"

    def create_vhost(self, name: str) -> str:
        """Makes an empty vhost and gives its URL (a second or so)."""
        self._ctl("add_vhost", name)
        self._ctl("set_permissions", "--vhost", name, _USER, ".*", ".*", ".*")
        return self.url_of(name)

    def drop_vhost(self, name: str) -> None:
        """Removes a vhost with its queues, and cuts its connections."""
        self._ctl("delete_vhost", name)

    def sync(self) -> None:
        """Writes the list of queues out, so that one that was just declared survives a kill."""
        self._ctl("eval", "[dets:sync(Table) || Table <- dets:all()].")

    def connect(self) -> Connection:
        """An open connection to `/` whose channels confirm what is published; no call waits longer than ten seconds."""
        try:
            from amqp import Connection
        except ImportError:
            raise ServerMissing("RabbitMQ needs its client: install unmask[service]") from None
        host = f"{LOOPBACK}:{self.port}"
        connection = Connection(
            host, _USER, self.password, connect_timeout=5, read_timeout=10, write_timeout=10, confirm_publish=True
        )
        connection.connect()
        return connection

    def start(self) -> None:
        """See `Server.start`; the port mapper first, and for as long as this server is used."""
        process = self.process
        if self._epmd is None:
            argv: list[str | Path] = [epmd(), "-port", str(self._epmd_port), "-address", LOOPBACK]
            self._epmd = Process(argv, folder=self.folder, log=self.folder / "epmd.log", env=process.env)
        if not self._epmd.running:
            self._epmd.start()
            wait_until(self._mapper_answers, 20, "starting epmd")
        super().start()

    def stop(self) -> None:
        """A clean shutdown of the node, then of its port mapper."""
        super().stop()
        if self._epmd is not None:
            self._epmd.kill()

    def _ctl(self, *arguments: str) -> None:
        argv: list[str | Path] = [binary().with_name("rabbitmqctl"), "--quiet", *arguments]
        done = subprocess.run(argv, cwd=self.folder, env=self.process.env, capture_output=True, timeout=60, check=False)
        if done.returncode != 0:
            raise ServerFailed(f"rabbitmqctl {arguments[0]}: {(done.stderr or done.stdout).decode(errors='replace')[-1000:]}")

    def _mapper_answers(self) -> bool:
        with socket.create_connection((LOOPBACK, self._epmd_port), timeout=5) as mapper:
            mapper.sendall(b"\x00\x01n")  # NAMES_REQ; the answer begins with its own port
            return int.from_bytes(mapper.recv(4), "big") == self._epmd_port

    def _process(self) -> Process:
        for name, text in {
            "rabbitmq.conf": self._config(),
            "plugins": "[].\n",
            "advanced.config": "[].\n",
            "env.conf": "",
        }.items():
            path = self.folder / name
            path.touch(mode=0o600)
            path.write_text(text, encoding="utf-8")
        return Process([binary()], folder=self.folder, log=self.folder / "rabbitmq.log", env=self._environment())

    def _config(self) -> str:
        settings = {
            "listeners.tcp.1": f"{LOOPBACK}:{self.port}",
            "default_user": _USER,
            "default_pass": self.password,
            "log.console": "true",
            "log.console.level": "warning",
            "log.file": "false",
            "raft.wal_max_size_bytes": str(64 * 1024 * 1024),
            "disk_free_limit.absolute": "50MB",
        }
        return "".join(f"{name} = {value}\n" for name, value in settings.items())

    def _environment(self) -> dict[str, str]:
        folder = str(self.folder)
        return {
            "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin",
            "LANG": "C.UTF-8",
            "HOME": folder,  # of the cookie
            "RUNNING_UNDER_SYSTEMD": "true",  # the script becomes the node, and is no shell that waits for it
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "RABBITMQ_NODENAME": f"unmask-{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": " ".join(_ERLANG),
            "RABBITMQ_CTL_ERL_ARGS": " ".join(_LOOPBACK_ONLY),
            "RABBITMQ_CONF_ENV_FILE": f"{folder}/env.conf",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{folder}/advanced.config",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/plugins",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{folder}/generated",
            "RABBITMQ_MNESIA_BASE": f"{folder}/data",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
        }

    def _use(self) -> object:
        """A message through a quorum queue."""
        import amqp

        with self.connect() as connection, connection.channel() as channel:
            queue = "unmask-dev-ready"
            channel.queue_declare(queue, durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"})
            channel.basic_publish(amqp.Message(b"ready"), routing_key=queue)
            found = channel.basic_get(queue, no_ack=True)
            channel.queue_delete(queue)
        return found is not None and found.body == b"ready"


def binary() -> Path:
    """The program that starts a node; raises `ServerMissing`."""
    if _PROGRAM.is_file():
        return _PROGRAM
    on_path = shutil.which("rabbitmq-server")
    if on_path is None:
        raise ServerMissing(
            "no RabbitMQ: install the system's rabbitmq-server (Debian and Ubuntu: apt install rabbitmq-server)"
        )
    return Path(on_path)


def epmd() -> Path:
    """Erlang's port mapper; raises `ServerMissing`."""
    on_path = shutil.which("epmd")
    if on_path is None:
        raise ServerMissing("no epmd on PATH: install the system's Erlang (it comes with rabbitmq-server)")
    return Path(on_path)

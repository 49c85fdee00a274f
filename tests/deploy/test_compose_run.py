"""What the compose file runs, run without Docker: secrets out of the script, real servers, the image's own root, a verdict."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.deploy.documents import Block, blocks
from tests.deploy.stand_in import Composed, composed, make_secrets
from tests.system.backends import open_folder
from tests.system.tiny_models import face_picture, make_repository
from tests.system.triton_backend import write_configs
from unmask.core.errors import Unauthenticated
from unmask.rpc.asking import Request
from unmask.rpc.client import Client
from unmask.rpc.tls import Tls
from unmask_dev.process import wait_until

pytestmark = pytest.mark.slow
TRIED = [block for block in blocks() if block.tried == "platform"]


@pytest.fixture(scope="module")
def platform(assembled: Path) -> Iterator[Composed]:
    with open_folder() as folder:
        models = make_repository(folder / "models")
        write_configs(models)
        with composed(folder, assembled / "root", models) as running:
            yield running


@pytest.fixture(scope="module")
def token(platform: Composed) -> str:
    """Of a tenant made by `docker compose run --rm admin …`."""
    platform.run("admin", "tenant", "create", "acme")
    return platform.run("admin", "token", "create", "acme", "--scope", "submit", "--scope", "read")


def client(platform: Composed, token: str) -> Client:
    return Client(platform.addresses["serve:50051"], token=token, tls=Tls(ca=platform.made / "tls_ca.pem"))


def test_every_container_becomes_healthy_by_its_own_check(platform: Composed) -> None:
    for name, process in platform.processes.items():
        wait_until(lambda one=name: platform.is_healthy(one), 90, name, lambda one=process: one.running)  # type: ignore[misc]


def test_a_picture_gets_its_verdict_over_tls_and_the_broker(platform: Composed, token: str) -> None:
    with client(platform, token) as unmask:
        verdict = unmask.check(face_picture(red=255, blue=0))
    assert verdict.label == "synthetic" and verdict.action == "review"


def test_the_event_of_it_is_on_the_exchange(platform: Composed, token: str) -> None:
    with client(platform, token) as unmask:
        case = unmask.check(face_picture(red=255, blue=0, seed=7)).id
    found: list[str] = []

    def taken() -> bool:
        with platform.rabbitmq.connect() as connection, connection.channel() as channel:
            message = channel.basic_get("unmask.events", no_ack=True)
        if message is not None:
            found.append(json.loads(message.body)["data"]["case_id"])
        return case in found

    wait_until(taken, 30, "the event")


def test_nobody_is_served_without_a_token_or_with_another_authority(platform: Composed) -> None:
    with client(platform, "") as unmask, pytest.raises(Unauthenticated):
        unmask.check(face_picture())


def test_every_container_shows_its_figures(platform: Composed) -> None:
    for name in platform.processes:
        with urlopen(f"http://127.0.0.1:{platform.metrics[name]}/metrics", timeout=10) as answer:
            # One that forks its workers has nothing to show before the first case, and shadow has no case.
            assert b"# HELP" in answer.read() or name == "shadow", name


@pytest.mark.parametrize(("server", "figure"), [("rabbitmq", "rabbitmq_queue_messages_ready"), ("seaweedfs", "SeaweedFS_")])
def test_servers_show_theirs_where_prometheus_looks(platform: Composed, server: str, figure: str) -> None:
    with urlopen(f"http://127.0.0.1:{getattr(platform, server).metrics_port}/metrics", timeout=10) as answer:
        page = answer.read().decode()
    assert figure in page
    if server == "rabbitmq":
        assert 'queue="unmask.ingest"' in page  # each queue by its name


def test_the_store_asks_who_calls(platform: Composed) -> None:
    """With the script's keys it takes a bucket, with others it refuses."""
    from minio.error import S3Error

    assert platform.seaweedfs.client().bucket_exists("unmask")
    platform.seaweedfs.secret_key, right = "x" * 40, platform.seaweedfs.secret_key
    with pytest.raises(S3Error):
        platform.seaweedfs.client().list_buckets()
    platform.seaweedfs.secret_key = right


def test_the_administrator_is_told_the_secret_of_webhooks(platform: Composed, token: str) -> None:
    assert platform.run("admin", "tenant", "secret", "acme").startswith("whsec_")


@pytest.mark.parametrize("block", TRIED, ids=lambda block: f"{block.page}: {block.lines[0]}")
def test_what_the_documents_mark_as_tried_on_the_platform_works(
    platform: Composed, token: str, tmp_path: Path, block: Block
) -> None:
    """As an administrator, with a case of the user whom one of them erases."""
    with client(platform, token) as unmask:
        unmask.check(Request(face_picture(seed=4711), labels={"user": "4711"}))
    command = ["bash", "-euo", "pipefail", "-c", block.text]
    env = {**platform.environment("admin"), "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr + done.stdout


def test_nothing_is_written_where_a_container_could_not(platform: Composed) -> None:
    """The working folder of each: in the image it is empty, and read-only."""
    assert [list((platform.folder / name).iterdir()) for name in platform.processes] == [[]] * len(platform.processes)


def test_each_stops_when_it_is_told_to(platform: Composed) -> None:
    for process in platform.processes.values():
        process.send(signal.SIGTERM)
    for name, process in platform.processes.items():
        assert process.wait(60) and process.returncode == 0, (name, process.returncode, process.tail())


def test_secrets_are_made_once_and_one_that_was_removed_anew(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    assert "12 made" in make_secrets(folder, "unmask.example.org", "192.0.2.7")
    first = {path.name: path.read_text() for path in folder.iterdir()}
    assert "0 made" in make_secrets(folder)
    (folder / "webhook_keys").unlink()
    assert "1 made (webhook_keys)" in make_secrets(folder)
    second = {path.name: path.read_text() for path in folder.iterdir()}
    assert {name for name in first if first[name] != second[name]} == {"webhook_keys"}
    shown = subprocess.run(
        ["openssl", "x509", "-noout", "-ext", "subjectAltName"],
        input=first["tls_certificate.pem"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "DNS:unmask.example.org, IP Address:192.0.2.7" in shown.stdout


def test_secrets_are_for_containers_and_for_nobody_else_on_the_machine(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    make_secrets(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o644}
    values = [path.read_text().strip() for path in folder.iterdir()]
    assert len(values) == len(set(values)) and all(len(value) >= 20 for value in values)

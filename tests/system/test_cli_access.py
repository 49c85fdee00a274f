"""`unmask tenant`, `token` and `audit` as a shell runs them, and a server that takes what they made."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.system.command import COMMAND, environment, run
from tests.system.tiny_models import dark_picture
from unmask.adapters.database import Database
from unmask.adapters.migrate import upgrade
from unmask.adapters.sink_webhook import webhook_secret
from unmask.cli.main import main
from unmask.core.errors import Forbidden, Unauthenticated
from unmask.core.tokens import token_id
from unmask.rpc.client import Client

ME = f"cli:{pwd.getpwuid(os.getuid()).pw_name}"


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The environment that says which database."""
    if request.param == "sqlite":
        return {"UNMASK_STATE": str(tmp_path / "state")}
    url: str = request.getfixturevalue("database")
    with closing(Database(url, check=False)) as empty:
        upgrade(empty)
    return {"UNMASK_DATABASE": url}


def test_from_a_tenant_to_its_audit_log(
    where: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("UNMASK_STATE", "UNMASK_DATABASE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in where.items():
        monkeypatch.setenv(name, value)

    def ok(*words: str) -> str:
        assert main(words) == 0
        return capsys.readouterr().out

    def lines(*words: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in ok(*words, "--json").splitlines()]

    ok("tenant", "create", "acme", "--per-minute", "60", "--keep-days", "none")
    ok("tenant", "set", "acme", "--per-day", "1000", "--per-minute", "none")
    (listed,) = lines("tenant", "list")
    assert (listed["name"], listed["per_minute"], listed["per_day"], listed["disabled"]) == ("acme", None, 1000, False)
    first = ok("token", "create", "acme", "--name", "uploader", "--scope", "submit", "--days", "30").strip()
    (second,) = lines("token", "create", "acme")
    assert token_id(first) and token_id(second["token"]) == second["id"] and second["scopes"] == "read submit"
    ok("token", "revoke", second["id"])
    tokens = lines("token", "list", "acme")
    assert [(token["id"], bool(token["revoked_at"])) for token in tokens] == [(token_id(first), False), (second["id"], True)]
    table = ok("token", "list", "acme") + ok("audit", "list")
    for text in (first, second["token"]):
        assert text.split("_", 2)[1] in table and text.split("_", 2)[2] not in table
    ok("tenant", "disable", "acme")
    assert "disabled" in ok("tenant", "list")
    acts = lines("audit", "list", "--tenant", "acme")
    assert " ".join(act["act"] for act in acts) == (
        "tenant.disable token.revoke token.create token.create tenant.set tenant.create"
    )
    assert {act["actor"] for act in acts} == {ME}
    assert acts[4]["detail"] == {"per_day": "1000", "per_minute": "none"}
    assert not lines("audit", "list", "--tenant", "other")


@pytest.fixture
def server(tiny: Path, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """`unmask serve` that asks for tokens, over a state folder with the tenant `acme`."""
    state = tmp_path / "state"
    assert run("tenant", "create", "acme", "--state", state).code == 0
    command = [*COMMAND, "serve", "ingestion", "--listen", "127.0.0.1:0", "--models", str(tiny), "--state", str(state)]
    told = environment(UNMASK_AUTH="tokens")
    with subprocess.Popen(command, env=told, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().rpartition(" on ")[2].strip(), state
        finally:
            process.terminate()


def test_a_server_takes_the_tokens_that_the_command_made(server: tuple[str, Path]) -> None:
    address, state = server
    token = run("token", "create", "acme", "--scope", "submit", "--state", state).out.decode().strip()
    with Client(address, token=token, timeout=20) as client:
        case = client.submit(dark_picture())
        with pytest.raises(Forbidden, match="scope read"):
            client.get_verdict(case.id)
    with Client(address) as nobody, pytest.raises(Unauthenticated):
        nobody.submit(dark_picture())


def test_the_secret_of_webhooks_is_the_newest_keys_and_the_look_is_on_record(tmp_path: Path) -> None:
    where = {"UNMASK_STATE": str(tmp_path / "state")}
    assert run("tenant", "create", "acme", **where).code == 0
    assert "UNMASK_WEBHOOK_KEYS is not set" in run("tenant", "secret", "acme", **where).complaint
    keys = {"UNMASK_WEBHOOK_KEYS": f"{'n' * 32} {'o' * 32}", **where}
    said = run("tenant", "secret", "acme", **keys).out.decode().strip()
    assert said == webhook_secret(b"n" * 32, "acme") != webhook_secret(b"n" * 32, "other")
    assert run("tenant", "secret", "nobody", **keys).code == 1
    (newest, *_) = run("audit", "list", "--json", **where).lines
    assert newest["act"] == "tenant.secret" and said not in json.dumps(newest)

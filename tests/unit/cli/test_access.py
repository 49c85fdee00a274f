"""What `unmask tenant`, `token` and `audit` refuse."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from unmask.adapters.database import Database
from unmask.adapters.store_access import SqlAccess
from unmask.cli.main import USAGE, main
from unmask.core.access import Tenant


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["tenant", "create", "a/b"], 1, "letters, digits"),
        (["tenant", "create", "é"], 1, "letters, digits"),
        (["tenant", "create", "a" * 64], 1, "letters, digits"),
        (["tenant", "create", "acme"], 1, "is there already"),
        (["tenant", "set", "acme"], 1, "say what"),
        (["tenant", "set", "nobody", "--per-day", "1"], 1, "no tenant 'nobody'"),
        (["tenant", "disable", "nobody"], 1, "no tenant 'nobody'"),
        (["token", "create", "nobody"], 1, "no tenant 'nobody'"),
        (["token", "create", "acme", "--name", "a\x1b[31m"], 1, "printable"),
        (["token", "list", "nobody"], 1, "no tenant 'nobody'"),
        (["token", "revoke", "0123456789abcdef"], 1, "none of this id"),
    ],
)
def test_what_is_refused_is_said_in_a_line_and_not_logged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, says: str
) -> None:
    with closing(Database(f"sqlite:///{tmp_path / 'unmask.sqlite3'}")) as database:
        SqlAccess(database).put_tenant(Tenant("acme", datetime.now(UTC)))
        assert main([*words, "--state", str(tmp_path)]) == code
        said = capsys.readouterr()
        assert said.out == "" and says in said.err and said.err.count("\n") == 1
        assert not SqlAccess(database).audited(None, 10)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["tenant", "list"], "say where tenants are kept"),
        (["tenant", "list", "--state", "/nonexistent"], "no store is there"),
        (["tenant", "set", "a", "--per-minute", "0"], "at least 1"),
        (["tenant", "set", "a", "--per-minute", "4294967296"], "at least 1"),
        (["token", "create", "a", "--scope", "everything"], "invalid choice"),
        (["token", "create", "a", "--days", "-1"], "more than 0"),
        (["token", "create", "a", "--days", "nan"], "more than 0"),
        (["audit", "list", "--limit", "0"], "from 1 to"),
    ],
)
def test_a_wrong_word_is_usage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    for name in ("UNMASK_STATE", "UNMASK_DATABASE"):
        monkeypatch.delenv(name, raising=False)
    try:
        code = main(words)
    except SystemExit as end:
        code = end.code  # type: ignore[assignment]
    assert code == USAGE and says in capsys.readouterr().err

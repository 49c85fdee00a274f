"""`unmask erase` as a shell runs it, on pictures that `unmask check` judged, and over Postgres."""

from __future__ import annotations

import hashlib
import os
import pwd
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.contract.databases import a_database
from tests.contract.samples import SHA, a_case, decided
from tests.system.command import Ran, run
from tests.system.tiny_models import face_picture
from unmask.adapters.blobs_files import FileBlobs
from unmask.adapters.database import Database
from unmask.adapters.store_access import SqlAccess
from unmask.adapters.store_sql import SqlStore
from unmask.core.domain import Failure, State

ME = f"cli:{pwd.getpwuid(os.getuid()).pw_name}"


def asked(where: dict[str, str], *words: str | Path) -> Ran:
    """What the command says in that environment."""
    return run(*words, **where)  # type: ignore[arg-type]


def test_a_judged_picture_goes_and_is_judged_anew(tiny: Path, tmp_path: Path) -> None:
    picture, state = tmp_path / "a.png", tmp_path / "state"
    picture.write_bytes(face_picture(red=10, blue=210))
    sha256 = hashlib.sha256(picture.read_bytes()).hexdigest()

    def judge() -> str:
        (line,) = run("check", "--json", "--state", state, "--models", tiny, picture).lines
        return str(line["id"])

    first, second = judge(), judge()
    words = ("erase", "--tenant", "default", "--state", state, "--json")
    (would,) = run(*words, "--case", first, "--dry-run").lines
    assert (would["cases"], would["pictures"], would["verdicts"], would["blobs"], would["dry_run"]) == (2, 1, 1, 1, True)
    assert (state / "blobs/default/pictures" / sha256).is_file()
    (went,) = run(*words, "--case", first, "--reason", "uploader_asked").lines
    assert went == would | {"dry_run": False}
    assert not (state / "blobs/default/pictures" / sha256).exists()
    with closing(sqlite3.connect(state / "unmask.sqlite3")) as raw:
        assert sha256 not in "\n".join(raw.iterdump())
    with closing(Database(f"sqlite:///{state / 'unmask.sqlite3'}")) as database:
        for case_id in (first, second):
            case = SqlStore(database).case("default", case_id)
            assert (case.state, case.failure) == (State.ERASED, Failure("erased", f"uploader_asked by {ME}"))
        acts = [(entry.act, entry.actor) for entry in SqlAccess(database).audited("default", 9)]
    assert acts == [("erase.done", ME), ("erase", ME)]
    assert run(*words[:-1], "--sha256", sha256.upper()).out == b"erased: nothing\n"
    third = judge()
    with closing(sqlite3.connect(state / "unmask.sqlite3")) as raw:
        ((timings,),) = raw.execute("SELECT timings_ms FROM cases WHERE id = ?", (third,)).fetchall()
    assert "classify" in timings, "no kept verdict was taken for it"


def test_by_label_over_postgres_and_only_the_tenants_own(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path / "blobs")
    with closing(a_database("postgres", tmp_path, request)) as database:
        store, url = SqlStore(database), database.engine.url.render_as_string(hide_password=False)
        cases = [store.accept(a_case(tenant)) for tenant in ("default", "default", "other")]
        for case in cases:
            assert store.commit(case, decided(case))
            blobs.put(case.source_ref, b"x")
        where = {"UNMASK_DATABASE": url, "UNMASK_STATE": str(tmp_path)}
        ran = asked(where, "erase", "--tenant", "default", "--label", "uploader=Zoë 🦊")
        assert ran.out == b"erased: 2 cases, 1 picture, 1 verdict, 2 decisions, 2 events, 1 blob\n", ran.err
        states = [store.case(case.tenant, case.id).state for case in cases]
        assert states == [State.ERASED, State.ERASED, State.DECIDED]
        assert list(blobs.keys("")) == [f"other/pictures/{SHA}"] and store.picture("other", SHA) is not None
        foreign = asked(where, "erase", "--tenant", "default", "--case", cases[2].id)
        assert foreign.code == 1 and "no case" in foreign.complaint


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--case", "x"), "say where cases are kept"),
        (("--case", "x", "--state", "nowhere"), "no store is there"),
        (("--sha256", "abc", "--state", "STATE"), "64 hexadecimal digits"),
        (("--case", "x", "--reason", "Because!", "--state", "STATE"), "a code is needed"),
        (("--case", "x", "--state", "STATE"), "no case 'x'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(words: tuple[str, ...], why: str, tmp_path: Path) -> None:
    Database(f"sqlite:///{tmp_path / 'unmask.sqlite3'}").close()
    ran = run("erase", "--tenant", "default", *(str(tmp_path) if word == "STATE" else word for word in words))
    assert ran.code in {1, 2} and why in ran.complaint and not ran.out


def test_a_shared_database_without_a_store_of_pictures_is_refused() -> None:
    ran = run("erase", "--tenant", "default", "--case", "x", UNMASK_DATABASE="postgresql://nobody@127.0.0.1:1/none")
    assert ran.code == 2 and "UNMASK_S3" in ran.complaint

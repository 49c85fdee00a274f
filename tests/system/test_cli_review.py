"""The real command on a real folder: review, and the export that training reads."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.system.command import Ran, run
from tests.system.inside import inside
from tests.system.tiny_models import dark_picture, face_picture
from unmask.bootstrap import Parts, inline_world
from unmask.core.domain import BytesSource, CaseUpdate, Media, State, Submission
from unmask.core.submit import accept
from unmask.settings import Settings
from unmask_training.data.chips import Chips, face_detector
from unmask_training.data.corpora import read_all
from unmask_training.data.corpora_choice import choose
from unmask_training.data.preparing import prepare

SYNTHETIC = ("--action", "block", "--reason", "confirmed", "--truth", "synthetic")
REAL = ("--action", "allow", "--reason", "false_positive", "--truth", "real")


@dataclass
class Desk:
    """A folder of cases, and the command on it."""

    models: Path
    state: Path

    def case(self, seed: int = 0, tenant: str = "default", **fields: Any) -> str:
        """A case that waits for a person."""
        picture = face_picture(red=255, blue=60, seed=seed)
        return self._accepted(Submission(tenant, BytesSource(picture), **fields))

    def allowed(self) -> str:
        """A case that nobody has to look at."""
        return self._accepted(Submission("default", BytesSource(dark_picture())))

    def _accepted(self, submission: Submission) -> str:
        parts = self.parts()
        case_id = accept(inline_world(parts), submission).id
        parts.database.close()
        return case_id

    def parts(self) -> Parts:
        return Parts(Settings(models=self.models, state=self.state))

    def __call__(self, *arguments: str | Path) -> Ran:
        return inside("review", *arguments, "--state", self.state)

    def ids(self, *arguments: str) -> list[str]:
        """Ids of a list."""
        return [line["id"] for line in self("list", "--json", *arguments).lines]

    def decide(self, case: str, *arguments: str) -> Ran:
        """A decision that has to succeed."""
        ran = self("decide", case, *(arguments or SYNTHETIC))
        assert ran.code == 0, ran.err
        return ran

    def export(self, out: Path, *arguments: str, code: int = 0) -> Ran:
        """An export."""
        ran = self("export", "--out", out, *arguments)
        assert ran.code == code, ran.err
        return ran


@pytest.fixture
def desk(tiny: Path, tmp_path: Path) -> Desk:
    return Desk(tiny, tmp_path / "state")


def manifest(out: Path) -> list[dict[str, str]]:
    with (out / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def test_list_show_decide_and_appeal(desk: Desk) -> None:
    one, passed, two = desk.case(1, batch="monday", labels={"post": "7\x1b1"}), desk.allowed(), desk.case(2)
    assert desk.ids() == [one, two] and desk.ids("--newest") == [two, one] and desk.ids("--limit", "1") == [one]
    assert desk.ids("--standing", "all", "--action", "allow") == [passed] and desk.ids("--batch", "monday") == [one]
    assert desk.ids("--label", "real") == [] and desk.ids("--tenant", "other") == []
    table = desk("list").out.decode().splitlines()
    assert table[0].split() == ["CASE", "SUBMITTED", "LABEL", "ACTION", "TRUTH", "BATCH"]
    assert table[1].split()[0] == one and table[1].split()[2:] == ["synthetic", "review", "-", "monday"]
    assert table[1].split()[1].endswith("Z")

    given = ("--generator", "stylegan2", "--note", "third ear\x1b[2J", "--revision", "5", "--state", desk.state)
    ran = run("review", "decide", one, *SYNTHETIC, *given)
    assert ran.out.decode() == f"{one}: block, revision 6\n"
    assert desk.ids() == [two] and desk.ids("--standing", "decided") == [one]
    shown = desk("show", one).out.decode()
    assert (
        "reviewer:cli:" in shown
        and "block (confirmed; synthetic stylegan2): third ear\\x1b[2J" in shown
        and "\x1b" not in shown
    )
    assert "post=7\\x1b1" in shown and "because reviewer decided block (confirmed)" in shown
    (whole,) = desk("show", one, "--json").lines
    assert whole["verdict"]["action"] == "block" and whole["case"]["truth"] == "synthetic"
    assert [said["actor"].partition(":")[0] for said in whole["decisions"]] == ["policy", "reviewer"]

    assert desk("appeal", one, "--reason", "says_real").code == 0
    assert desk.ids() == [one, two]
    acts = [line["act"] for line in inside("audit", "list", "--json", "--state", desk.state).lines]
    assert acts == ["review.appeal", "review.decide"]


def test_what_is_refused(desk: Desk, tmp_path: Path) -> None:
    case = desk.case()
    cases: Sequence[tuple[tuple[str, ...], int, str]] = [
        (("decide", case, *SYNTHETIC, "--revision", "1"), 1, "is at revision 5, not 1"),
        (("decide", "no-such", *SYNTHETIC), 1, "no case 'no-such'"),
        (("decide", case, *SYNTHETIC, "--tenant", "other"), 1, "no case"),
        (("show", case, "--tenant", "other"), 1, "no case"),
        (("appeal", case, "--reason", "says_real", "--tenant", "other"), 1, "no case"),
        (("appeal", case, "--reason", "other"), 1, "needs a note"),
        (("decide", case, *REAL, "--generator", "flux"), 1, "only a synthetic or manipulated"),
    ]
    for arguments, code, says in cases:
        ran = desk(*arguments)
        assert ran.code == code and says in ran.complaint, arguments
    assert desk("decide", case, *SYNTHETIC[:-1], "nonsense").code == 2
    assert desk("export", "--out", tmp_path / "x", "--since", "yesterday").code == 2
    elsewhere = inside("review", "list", "--state", tmp_path / "nothing")
    assert elsewhere.code == 2 and "--state DIR" in elsewhere.complaint and not (tmp_path / "nothing").exists()
    assert len(desk("show", case, "--json").lines[0]["decisions"]) == 1


def test_export_writes_confirmed_pictures_and_a_manifest(desk: Desk, tmp_path: Path) -> None:
    fake, real, part, odd = (desk.case(n, media=Media(parent="post-7") if n < 2 else Media()) for n in range(4))
    waits, theirs = desk.case(8), desk.case(9, tenant="other")
    desk.decide(fake, *SYNTHETIC, "--generator", "stylegan2")
    desk.decide(real, *REAL)
    desk.decide(part, "--action", "block", "--reason", "wrong_kind", "--truth", "manipulated")
    desk.decide(odd, "--action", "allow", "--reason", "unclear", "--truth", "unknown")
    desk.decide(theirs, *SYNTHETIC, "--tenant", "other")
    out = tmp_path / "samples"
    assert desk.export(out).out.decode() == f"{out}: 3 pictures written, 0 were there\n"
    rows = manifest(out)
    assert [(row["case"], row["label"], row["generator"]) for row in rows] == [
        (fake, "synthetic", "stylegan2"),
        (real, "real", ""),
        (part, "manipulated", "unknown"),
    ]
    assert waits not in {row["case"] for row in rows}
    assert (rows[0]["group"], rows[1]["group"]) == ("default:post-7", "default:post-7") and rows[2]["group"] != rows[0]["group"]
    assert {(row["source"], row["split"]) for row in rows} == {("review-default", "train")}
    for n, row in enumerate(rows):
        data = face_picture(red=255, blue=60, seed=n)
        assert (out / row["path"]).read_bytes() == data and row["path"] == f"{hashlib.sha256(data).hexdigest()}.png"
    assert len(contents(out)) == 4
    one = tmp_path / "one"
    desk.export(one, "--generator", "stylegan2", "--truth", "synthetic", "--since", "2026-01-01")
    assert [row["case"] for row in manifest(one)] == [fake]
    assert desk.export(tmp_path / "none", "--since", "2999-01-01T00:00:00+01:00").out.decode().count("0 pictures written")
    assert inside("audit", "list", "--json", "--state", desk.state).lines[0]["act"] == "review.export"


def test_training_prepares_what_was_exported(desk: Desk, tiny: Path, tmp_path: Path) -> None:
    fake, real = desk.case(1), desk.case(2)
    desk.decide(fake, *SYNTHETIC, "--generator", "stylegan2")
    desk.decide(real, *REAL)
    desk.export(tmp_path / "samples")
    infer = face_detector(tiny / "face_detector" / "1" / "model.onnx")
    report = prepare(choose(read_all([tmp_path / "samples"]), 0.1, "", []), tmp_path / "prepared", infer)
    assert (report.added, list(report.left_out)) == (2, [])
    rows = Chips(tmp_path / "prepared").rows
    assert [(row.label, row.kind) for row in rows] == [("synthetic", "stylegan2"), ("real", "review-default")]


def test_export_again_adds_and_changes_nothing(desk: Desk, tmp_path: Path) -> None:
    first, out = desk.case(1), tmp_path / "samples"
    desk.decide(first)
    desk.export(out)
    before = contents(out)
    assert desk.export(out).out.decode() == f"{out}: 0 pictures written, 1 were there\n"
    assert contents(out) == before
    second = desk.case(2)
    desk.decide(second)
    (out / manifest(out)[0]["path"]).chmod(0o444)
    ran = desk.export(out)
    assert ran.err == "" and [row["case"] for row in manifest(out)] == [first, second]
    assert before.items() - contents(out).items() == {("manifest.csv", before["manifest.csv"])}
    # A run that was cut off before its manifest is taken up where it was.
    (out / "manifest.csv").unlink()
    assert desk.export(out).out.decode().count("2 pictures written")
    assert len(manifest(out)) == 2


def test_erased_and_appealed_cases_never_appear_and_are_said(desk: Desk, tmp_path: Path) -> None:
    erased, appealed, changed, stays = (desk.case(n) for n in range(4))
    for case in (erased, appealed, changed, stays):
        desk.decide(case)
    old, new = tmp_path / "old", tmp_path / "new"
    desk.export(old)
    parts = desk.parts()
    row = parts.store.case("default", erased)
    assert parts.store.commit(row, CaseUpdate(replace(row, revision=row.revision + 1, state=State.ERASED)))
    parts.database.close()
    desk("appeal", appealed, "--reason", "says_real")
    desk.decide(changed, *REAL)
    later, before = desk.case(7), manifest(old)
    desk.decide(later)
    ran = desk.export(old)
    assert manifest(old)[:4] == before and manifest(old)[4]["case"] == later  # what is there is never changed
    told = ran.err.splitlines()
    names = [next(row["path"] for row in manifest(old) if row["case"] == case) for case in (erased, appealed, changed)]
    assert len(told) == 3 and all(name in line for name, line in zip(names, told, strict=True))
    assert "now real" in told[2] and "nothing that is confirmed" in told[0]
    desk.export(new)
    assert [(row["case"], row["label"]) for row in manifest(new)] == [
        (stays, "synthetic"),
        (changed, "real"),
        (later, "synthetic"),
    ]
    assert len(contents(new)) == 4


def test_export_refuses_what_it_must(desk: Desk, tmp_path: Path) -> None:
    case, out = desk.case(), tmp_path / "samples"
    desk.decide(case)
    other = tmp_path / "corpus"
    other.mkdir()
    (other / "manifest.csv").write_text("path,label\na.png,real\n")
    assert "no manifest of `unmask review export`" in desk.export(other, code=2).complaint
    assert (other / "manifest.csv").read_text() == "path,label\na.png,real\n"
    (blob,) = (path for path in (desk.state / "blobs").rglob("*") if path.is_file() and path.stat().st_size > 1000)
    good = blob.read_bytes()
    blob.write_bytes(b"rotten")
    assert "not those of its sha256" in desk.export(out, code=3).complaint
    blob.unlink()
    ran = desk.export(out)
    assert "its picture is gone" in ran.complaint and not (out / "manifest.csv").exists()
    blob.write_bytes(good)
    file = tmp_path / "file"
    file.write_text("x")
    assert str(file) in desk.export(file, code=2).complaint


def test_json_of_a_case_without_a_verdict(desk: Desk) -> None:
    parts = desk.parts()
    case = accept(inline_world(parts), Submission("default", BytesSource(b"words")))
    parts.database.close()
    (whole,) = desk("show", case.id, "--json").lines
    assert (whole["verdict"], whole["case"]["state"], whole["decisions"]) == (None, "failed", [])
    assert "failed: bad_image" in desk("show", case.id).out.decode()
    assert json.dumps(whole)

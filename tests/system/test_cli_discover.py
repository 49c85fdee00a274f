"""`unmask discover` on real stores: planted clusters are found, and nobody's pictures are looked at who did not agree."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import sqlalchemy as sa
from PIL import Image

from tests.pictures import Pixels, png
from tests.system import tiny_models
from tests.system.command import Ran
from tests.system.inside import inside
from unmask.adapters.clock import SystemClock
from unmask.adapters.database import Database
from unmask.adapters.migrate import upgrade
from unmask.bootstrap import Parts, inline_world
from unmask.core.access import Tenant
from unmask.core.discover import MEMORY
from unmask.core.domain import BytesSource, Submission
from unmask.core.erasing import expire
from unmask.core.submit import accept
from unmask.distributed import parts_of
from unmask.settings import Settings

_SIDE, _FACE, _REACH = 480, 256, 60
# Cells of the embedding's grid that are bright in blue: what a "generator" of these tests always does.
_STRIPES = np.indices((8, 8))


def texture(kind: str, seed: int) -> Pixels:
    """(8, 8) of -1 or 1: stripes of either direction, or nothing in particular."""
    if kind == "noise":
        return np.random.default_rng(seed).permutation(np.repeat([-1, 1], 32)).reshape(8, 8)
    return _STRIPES[0 if kind == "rows" else 1] % 2 * 2 - 1


def face_pixels(kind: str, seed: int, red: int = 128) -> Pixels:
    """A "face" of tiny_models with that texture, before a background of its own: neither plainly synthetic nor real."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((_SIDE, _SIDE, 3), np.uint8)
    picture[..., 0] = cv2.resize(rng.integers(0, 256, (6, 6)).astype(np.uint8), (_SIDE, _SIDE), interpolation=cv2.INTER_NEAREST)
    # The detector's view reaches a little beyond the face.
    reach, corner = slice(_REACH, _SIDE - _REACH), slice((_SIDE - _FACE) // 2, (_SIDE + _FACE) // 2)
    blue = (60 + 45 * texture(kind, seed) + rng.integers(-10, 11, (8, 8))).astype(np.uint8)
    side = _SIDE - 2 * _REACH
    picture[reach, reach, 0] = red
    picture[reach, reach, 2] = cv2.resize(blue, (side, side), interpolation=cv2.INTER_NEAREST)
    picture[corner, corner, 1] = 255
    return picture


def picture(kind: str, seed: int, **told: int) -> bytes:
    return png(face_pixels(kind, seed, **told), compress_level=1)


def saved_again(kind: str, seed: int, quality: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(face_pixels(kind, seed)).save(out, "JPEG", quality=quality)
    return out.getvalue()


def with_embedding(tiny: Path, root: Path, memory: bytes = b"") -> Path:
    """The tiny models with a detector that also gives an embedding: how bright in blue each cell of its view is."""
    shutil.copytree(tiny, root)
    g = tiny_models._Graph()
    g.add("Identity", tiny_models._channel(g, 0, 8.0), out="synthetic")
    g.add("MatMul", g.add("Unsqueeze", "synthetic", g.const([1], np.int64)), g.const([[1.0, -1.0]]), out="family")
    cells = g.add(
        "AveragePool", g.add("Gather", g.image(), g.const([2], np.int64), axis=1), kernel_shape=[8, 8], strides=[8, 8]
    )
    g.add("LpNormalization", g.add("Flatten", cells), axis=1, out="embedding")
    model = g.save(tiny_models.VIEW, {"synthetic": ["N"], "family": ["N", 2], "embedding": ["N", 64]})
    folder = root / "detector" / "1"
    (folder / "model.onnx").write_bytes(model)
    card = json.loads((folder / "card.json").read_text())
    card["files"] = {"model.onnx": {"sha256": hashlib.sha256(model).hexdigest(), "bytes": len(model)}}
    if memory:
        (folder / MEMORY).write_bytes(memory)
        card["files"][MEMORY] = {"sha256": hashlib.sha256(memory).hexdigest(), "bytes": len(memory)}
    card["outputs"].append({"name": "embedding", "dtype": "float32", "shape": [-1, 64]})
    text = json.dumps(card).encode()
    (folder / "card.json").write_bytes(text)
    release = json.loads((root / "release.json").read_text())
    release["models"]["detector"]["sha256"] = hashlib.sha256(text).hexdigest()
    (root / "release.json").write_text(json.dumps(release))
    return root


def even_memory() -> bytes:
    """Replay memory (a safetensors file by its format) of a detector that knows faces without any texture."""
    features, kinds = np.ones((4, 65), "<f2").tobytes(), np.zeros(4, "<i2").tobytes()
    header = {
        "plain": {"dtype": "F16", "shape": [4, 65], "data_offsets": [0, len(features)]},
        "kind": {"dtype": "I16", "shape": [4], "data_offsets": [len(features), len(features) + len(kinds)]},
    }
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + features + kinds


@pytest.fixture(scope="module")
def models(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_embedding(tiny, tmp_path_factory.mktemp("embedding") / "models", even_memory())


class Office:
    """A deployment, and the command on it as the environment names it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @contextmanager
    def parts(self) -> Iterator[Parts]:
        parts = parts_of(self.settings)
        with closing(parts.database):
            yield parts

    def agree(self, *tenants: str, **told: Any) -> None:
        with self.parts() as parts:
            for name in tenants:
                parts.access.put_tenant(Tenant(name, parts.desk.clock.now(), **{"discover": True, **told}))

    def judge(self, tenant: str, pictures: Sequence[bytes]) -> list[str]:
        """Ids of their cases, decided."""
        with self.parts() as parts:
            world = inline_world(parts)
            return [accept(world, Submission(tenant, BytesSource(data))).id for data in pictures]

    def __call__(self, *arguments: str | Path, code: int = 0) -> Ran:
        ran = inside("discover", *arguments)
        assert ran.code == code, ran.err
        return ran

    def clusters(self, *arguments: str | Path) -> list[dict[str, Any]]:
        return self("--json", *arguments).lines

    def audited(self) -> list[tuple[str, str]]:
        with self.parts() as parts:
            return [(entry.tenant, entry.act) for entry in parts.access.audited(None, 100)]


@pytest.fixture(params=["embedded", "platform"])
def office(request: pytest.FixtureRequest, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Office:
    """SQLite and a folder, or Postgres and a folder that its processes share (the bucket has a test of its own)."""
    for name in [name for name in os.environ if name.startswith("UNMASK_")]:
        monkeypatch.delenv(name)
    told = {"UNMASK_MODELS": str(models), "UNMASK_STATE": str(tmp_path / "state")}
    if request.param == "platform":
        told["UNMASK_DATABASE"] = request.getfixturevalue("database")
        with closing(Database(told["UNMASK_DATABASE"], check=False)) as empty:
            upgrade(empty)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    return Office(Settings.from_environment())


_EMBEDDED = pytest.mark.parametrize("office", ["embedded"], indirect=True)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "cases.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_planted_clusters_come_out_as_folders_for_adapt(office: Office, models: Path, tmp_path: Path) -> None:
    office.agree("acme", "beta")
    rows = office.judge("acme", [picture("rows", n) for n in range(6)]) + office.judge("beta", [picture("rows", 6)])
    columns = office.judge("acme", [picture("columns", n) for n in range(10, 15)])
    office.judge("beta", [picture("noise", n) for n in range(20, 28)])
    # Known for what they are.
    office.judge("acme", [picture("rows", n, red=255) for n in range(30, 36)])
    office.judge("acme", [tiny_models.face_picture(red=0, blue=0, seed=n) for n in range(6)])
    out = tmp_path / "out with spaces"
    ran = office("--out", out)
    head, one, two, _, look, command = ran.out.decode().splitlines()
    assert head.split() == ["CLUSTER", "PICTURES", "COPIES", "TENANTS", "FIRST", "LAST", "SCORE", "DOUBT", "CASES"]
    assert one.split()[:4] == ["1", "7", "0", "acme,beta"] and two.split()[:4] == ["2", "5", "0", "acme"]
    assert one.split()[7] == "-" and set(one.split()[8:]) <= set(rows) and len(one.split()) == 10
    assert str(out / "index.html") in look
    assert command.endswith(f"unmask-train adapt {models}/detector/1 --generator NAME --samples '{out}/cluster-1'")
    assert "20 pictures since" in ran.err and "12 in 2 clusters of 5 or more, 8 in none" in ran.err
    for number, cases, kind, seeds in ((1, rows, "rows", range(7)), (2, columns, "columns", range(10, 15))):
        table = rows_of(out / f"cluster-{number}")
        assert {row["case"] for row in table} == set(cases) and {row["label"] for row in table} == {"unsure"}
        files = {path.name: path.read_bytes() for path in (out / f"cluster-{number}").iterdir() if path.name != "cases.csv"}
        assert set(files) == {row["file"] for row in table}
        assert set(files.values()) == {picture(kind, seed) for seed in seeds}
        with Image.open(out / f"cluster-{number}.png") as sheet:
            assert sheet.size[0] == 144 * len(cases)
    page = (out / "index.html").read_text()
    assert page.count("<section") == 2 and page.count('src="data:image/jpeg;base64,') == 2
    assert set(re.findall(r'(?:src|href)="([^"]{0,20})', page)) == {"data:image/jpeg;base", "cluster-1/", "cluster-2/"}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o700 for path in (out, out / "cluster-1"))
    assert office.audited() == [
        ("beta", "discover.done"),
        ("acme", "discover.done"),
        ("beta", "discover"),
        ("acme", "discover"),
    ]


def test_who_has_not_agreed_is_never_looked_at(office: Office) -> None:
    theirs = office.judge("other", [picture("rows", n) for n in range(6)])
    assert "no tenant has agreed" in office(code=2).complaint
    office.agree("other", discover=False)
    assert "no tenant has agreed" in office(code=2).complaint
    assert "unmask tenant set other --discover on" in office("--tenant", "other", code=2).complaint
    assert "no tenant 'nobody'" in office("--tenant", "nobody", code=1).complaint
    office.agree("acme")
    mine = office.judge("acme", [picture("rows", n) for n in (7, 8, 9, 10, 11, 0)])  # one of the pictures is theirs too
    assert "other has not agreed" in office("--tenant", "acme", "other", code=2).complaint
    (found,) = office.clusters()
    assert (found["tenants"], set(found["cases"]), found["copies"]) == (["acme"], set(mine), 0)
    assert not set(theirs) & set(found["cases"]) and ("other", "discover") not in office.audited()
    assert inside("tenant", "set", "other", "--discover", "on").code == 0
    (found,) = office.clusters()
    assert (found["tenants"], found["pictures"], found["copies"]) == (["acme", "other"], 11, 1)
    assert office.clusters("--tenant", "other")[0]["tenants"] == ["other"]
    assert inside("tenant", "set", "other", "--discover", "off").code == 0
    assert office.clusters()[0]["tenants"] == ["acme"]
    assert "other has not agreed" in office("--tenant", "other", code=2).complaint


def test_erased_pictures_are_gone_and_missing_ones_are_said(office: Office, tmp_path: Path) -> None:
    office.agree("acme")
    cases = office.judge("acme", [picture("rows", n) for n in range(7)])
    assert inside("erase", "--tenant", "acme", "--case", cases[0]).code == 0
    assert set(office.clusters()[0]["cases"]) == set(cases[1:])
    key = hashlib.sha256(picture("rows", 1)).hexdigest()
    (tmp_path / "state/blobs/acme/pictures" / key).unlink()
    ran = office("--json")
    assert cases[1] in ran.complaint and "cannot be read" in ran.complaint
    assert set(ran.lines[0]["cases"]) == set(cases[2:])
    (tmp_path / "state/blobs/acme/pictures" / hashlib.sha256(picture("rows", 2)).hexdigest()).write_bytes(b"rotten")
    assert "not those of its sha256" in office("--json", "--min-size", "4").err


@_EMBEDDED
def test_what_people_explained_is_left_out_in_every_case_of_it(office: Office) -> None:
    office.agree("acme")
    cases = office.judge("acme", [picture("rows", n) for n in range(7)])
    words = ("--tenant", "acme", "--reason")
    real = ("--action", "allow", *words, "false_positive", "--truth", "real")
    fake = ("--action", "block", *words, "confirmed", "--truth", "synthetic")
    assert inside("review", "decide", cases[0], *real).code == inside("review", "decide", cases[1], *fake).code == 0
    again = office.judge("acme", [picture("rows", 0), picture("rows", 2)])
    (found,) = office.clusters()
    assert set(found["cases"]) == {*cases[3:], again[1]} and (found["pictures"], found["copies"]) == (5, 1)


@_EMBEDDED
def test_one_flooded_picture_is_no_cluster(office: Office, tmp_path: Path) -> None:
    office.agree("acme")
    office.judge("acme", [picture("rows", 0)] + [saved_again("rows", 0, quality) for quality in range(50, 90, 5)])
    office.judge("acme", [picture("rows", 0)])
    ran = office()
    assert ran.out.decode() == "no cluster\n" and "1 pictures since" in ran.err
    office.judge("acme", [picture("rows", n) for n in range(1, 5)])
    (found,) = office.clusters("--out", tmp_path / "out")
    assert (found["pictures"], found["copies"]) == (5, 9)
    table = rows_of(tmp_path / "out/cluster-1")
    assert sum(bool(row["file"]) for row in table) == 5 and len(table) == 14
    (flooded,) = {row["copy_of"] for row in table} - {""}
    assert [row["case"] for row in table if row["file"] and row["case"] == flooded]


@_EMBEDDED
def test_age_limit_and_size(office: Office) -> None:
    office.agree("acme")
    office.judge("acme", [picture("noise", 40 + n) for n in range(3)])
    newest = office.judge("acme", [picture("rows", n) for n in range(5)])
    assert set(office.clusters("--limit", "5")[0]["cases"]) == set(newest)
    assert office.clusters("--limit", "4") == [] == office.clusters("--min-size", "6")
    assert set(office.clusters("--limit", "4", "--min-size", "4")[0]["cases"]) == set(newest[1:])
    assert "no face to explain since 2999-01-01" in office("--since", "2999-01-01", code=1).complaint
    assert office.clusters("--since", "1h") == office.clusters("--since", "0001-01-01")
    assert len(office.clusters("--distance", "2", "--min-size", "8")) == 1


class Tomorrow(SystemClock):
    """When what is to go today has gone."""

    def now(self) -> datetime:
        return super().now() + timedelta(days=1)


def test_landmarks_that_are_gone_are_found_again(office: Office) -> None:
    office.agree("acme", keep_landmarks_days=0)
    cases = office.judge("acme", [picture("columns", n) for n in range(5)])
    with office.parts() as parts:
        expire(replace(parts.erasing, clock=Tomorrow()))
        verdict = parts.store.verdict_of("acme", cases[0])
        assert verdict is not None and verdict.faces[0].landmarks == ()
    assert set(office.clusters()[0]["cases"]) == set(cases)


def everything(office: Office) -> tuple[dict[str, list[str]], dict[str, bytes]]:
    """All rows but the audit log, and all objects."""
    with office.parts() as parts:
        with parts.database.transaction() as connection:
            names = set(sa.inspect(connection).get_table_names()) - {"audit"}
            rows = {name: sorted(map(repr, connection.exec_driver_sql(f"SELECT * FROM {name}").all())) for name in names}
        return rows, {key: parts.blobs.get(key) for key in parts.blobs.keys("")}


@_EMBEDDED
def test_nothing_is_kept_of_what_was_computed(office: Office) -> None:
    office.agree("acme")
    office.judge("acme", [picture("rows", n) for n in range(5)])
    with office.parts() as parts:
        parts.catalogue.active_release()
    before = everything(office)
    assert len(office.clusters()) == 1
    assert everything(office) == before


@_EMBEDDED
def test_what_is_refused(office: Office, tiny: Path, tmp_path: Path) -> None:
    office.agree("acme")
    assert "no face to explain" in office(code=1).complaint
    office.judge("acme", [picture("rows", n) for n in range(5)])
    (tmp_path / "full").mkdir()
    (tmp_path / "full/note").write_text("mine")
    assert "not empty" in office("--out", tmp_path / "full", code=2).complaint
    assert "File exists" in office("--out", tmp_path / "full/note", code=2).complaint
    assert sorted(path.name for path in (tmp_path / "full").iterdir()) == ["note"]
    assert ("acme", "discover.done") not in office.audited()
    said = office("--models", tiny, code=3).complaint
    assert "detector 1 gives no embedding" in said
    for words in (
        ("--since", "yesterday"),
        ("--since", "0d"),
        ("--limit", "0"),
        ("--min-size", "1"),
        ("--distance", "0"),
        ("--distance", "nan"),
    ):
        office(*words, code=2)


def test_without_a_deployment_it_says_which_to_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UNMASK_STATE", "UNMASK_DATABASE"):
        monkeypatch.delenv(name, raising=False)
    for words in ((), ("--state", tmp_path / "nothing")):
        ran = inside("discover", *words)
        assert ran.code == 2 and "discover: " in ran.complaint and not (tmp_path / "nothing").exists()


@_EMBEDDED
def test_the_centre_comes_from_the_versions_memory(tiny: Path, tmp_path: Path, office: Office) -> None:
    """Where all that is strange is of one maker, its own mean would hide it."""
    office.agree("acme")
    cases = office.judge("acme", [picture("rows", n) for n in range(6)])
    with_memory = office.clusters()
    assert [set(found["cases"]) for found in with_memory] == [set(cases)]
    without = with_embedding(tiny, tmp_path / "without")
    ran = office("--json", "--models", without)
    assert ran.lines == [] and "detector 1 carries no replay memory" in ran.complaint
    broken = with_embedding(tiny, tmp_path / "broken", b"nonsense")
    assert "memory.safetensors: not a detector's replay memory" in office("--models", broken, code=3).complaint

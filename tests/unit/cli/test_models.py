"""`unmask models …` on repositories of small models: what is printed, and the exit code."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from tests.unit.adapters.small_models import add_version, card_of, summing_model
from unmask.cli.models import add_parser
from unmask.core.cards import Thresholds
from unmask.core.errors import BadRequest

MODEL = summing_model()
TASKS = {"detector": "synthetic", "face_detector": "faces", "localizer": "regions"}


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(["models", *words])
    return int(args.run(args))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three versions that are right, a release of them, a lock without a product, no config.pbtxt."""
    refs = {name: add_version(tmp_path, card_of(MODEL, name, task=task), MODEL) for name, task in TASKS.items()}
    release = {
        "schema": "unmask.release/1",
        "name": "test",
        "models": {name: {"version": 1, "sha256": ref.sha256} for name, ref in refs.items()},
        "fusion": {"slope": 1.0, "bias": 0.0},
        "thresholds": dict.fromkeys(Thresholds.__slots__, 0.5),
    }
    (tmp_path / "release.json").write_text(json.dumps(release))
    (tmp_path / "weights.lock").write_text("")
    return tmp_path


def test_config_writes_what_verify_wants(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--models", str(root))
    assert run("verify", *where) == 3
    assert capsys.readouterr().err.count("config.pbtxt: missing; run `unmask models config`") == 3
    assert run("config", *where) == 0
    assert capsys.readouterr().out.count("config.pbtxt: written") == 3
    assert run("config", *where) == 0
    assert capsys.readouterr().out.count("config.pbtxt: as it should be") == 3
    assert run("verify", *where) == 0
    assert "3 model versions" in capsys.readouterr().out
    (root / "localizer/1/model.onnx").write_bytes(b"")
    assert run("verify", *where) == 3
    assert "localizer/1/model.onnx: sha256 is" in capsys.readouterr().err


def test_list_shows_every_version_and_the_release_s(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_version(root, card_of(MODEL, "detector", 2, task="synthetic"), MODEL)
    assert run("list", "--models", str(root), "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["model"], row["version"], row["in_release"]) for row in rows] == [
        ("detector", 1, True),
        ("detector", 2, False),
        ("face_detector", 1, True),
        ("localizer", 1, True),
    ]
    assert rows[0]["bytes"] == len(MODEL)
    assert run("list", "--models", str(root)) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["MODEL", "VERSION", "TASK", "MB", "CARD", "RELEASE", "LICENCE"]
    assert table[2].split()[:3] == ["detector", "2", "synthetic"]


def test_list_goes_on_past_a_broken_card(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "face_detector/1/card.json").write_text("{")
    assert run("list", "--models", str(root), "--json") == 3
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 2
    assert "face_detector/1/card.json: not JSON" in printed.err


def test_the_repository_is_found_by_the_environment(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNMASK_MODELS", str(root))
    assert run("list", "--json") == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.parametrize("words", [("mobilenet_v2",), ("--out", "x"), ("nothing", "--out", "x")])
def test_fetch_refuses_half_a_request(root: Path, words: tuple[str, ...]) -> None:
    with pytest.raises(BadRequest):
        run("fetch", *words, "--models", str(root))


def test_fetch_of_a_repository_that_needs_nothing_does_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fetch", "--models", str(root)) == 0
    assert capsys.readouterr().out == ""

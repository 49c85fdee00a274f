"""Methods of adaptation compared, and the demonstration, on a version in miniature."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.training import adapt_world
from unmask_training.adaptation import bench, demo
from unmask_training.adaptation.methods import METHODS
from unmask_training.adaptation.parent import Parent


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with detector/2."""
    folder = tmp_path_factory.mktemp("bench")
    adapt_world.version(folder / "models", each=60)
    return folder


@pytest.fixture(scope="module")
def parent(made: Path) -> Parent:
    """Its version."""
    return Parent.open(made / "models/detector/2")


def run(module: Any, *options: object) -> int:
    """A command as a user gives it."""
    parser = ArgumentParser()
    module.add_parser(parser.add_subparsers())
    args = parser.parse_args([str(option) for option in options])
    code: int = args.run(args)
    return code


def test_a_setting_knows_nothing_of_what_was_left_out(parent: Parent) -> None:
    setting = bench.Setting.of("gan", ["gan"], parent.memory, parent.readout.prototypes)
    assert "gan" not in setting.known.names and set(setting.left_out.names) == {"gan"}
    assert "gan" not in setting.replay.kind and "gan" not in setting.regression.kind
    with pytest.raises(ValueError, match="no generated rows of vqgan"):
        bench.Setting.of("x", ["vqgan"], parent.memory, parent.readout.prototypes)


def test_samples_and_tests_share_no_group_and_follow_the_seed(parent: Parent) -> None:
    left = bench.Setting.of("gan", ["gan"], parent.memory, parent.readout.prototypes).left_out
    chosen, tested = bench.drawn(left, 10, 3)
    assert len(chosen) == 10 and len(tested) == 40 and not set(left.group[chosen]) & set(left.group[tested])
    np.testing.assert_array_equal(bench.drawn(left, 10, 3)[0], chosen)
    assert not np.array_equal(bench.drawn(left, 10, 4)[0], chosen)
    with pytest.raises(ValueError, match="only 20 groups"):
        bench.drawn(left, 50, 3)


def test_the_command_compares_every_method_and_chooses(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--counts", 5, "--draws", 2, "--leave-out", "green=diffusion")
    assert run(bench, "adapt-bench", made / "models/detector/2", *options, "--json", tmp_path / "bench.json") == 0
    told = json.loads((tmp_path / "bench.json").read_bytes())
    assert [row["method"] for row in told["rows"]] == list(METHODS) and told["best"] in METHODS
    assert all(0.0 <= row["before"] <= 1.0 and row["draws"] == 2 and row["left_out"] == "green" for row in told["rows"])
    assert "best: " in capsys.readouterr().out


def test_what_is_left_out_is_named_alone_or_as_a_list(made: Path) -> None:
    assert bench.left_out_of(["gan", "two=a,b"], ["c"]) == {"gan": ["gan"], "two": ["a", "b"]}
    assert bench.left_out_of((), ["c", "d"]) == {"c": ["c"], "d": ["d"]}
    for wrong in ("=a", "gan=", "gan=a,"):
        with pytest.raises(ValueError, match="expected NAME or NAME=KIND,KIND"):
            bench.left_out_of([wrong], ["c"])
    with pytest.raises(ValueError, match="no generated rows of film"):
        run(bench, "adapt-bench", made / "models/detector/2", "--leave-out", "film")


def row(method: str, after: float, broken: int) -> dict[str, Any]:
    return {"method": method, "after": after, "gate_broken": broken, "draws": 5}


def test_the_choice_is_the_best_of_those_that_hardly_break_the_gate() -> None:
    rows = [row("head", 0.9, 1), row("prototype", 0.8, 0), row("adapter", 0.99, 5)]
    assert bench.choose(rows) == "head"
    assert bench.choose(rows, slack=0.0) == "prototype"
    with pytest.raises(ValueError, match="nothing to choose"):
        bench.choose([])


def test_the_demonstration_shows_before_and_after(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With heads that forgot the generator whose look the faces have."""
    faces = adapt_world.folder_of(tmp_path / "faces", range(80, 95), adapt_world.TINTS["diffusion"])
    options = ("--faces", faces, "--out", tmp_path / "out", "--generator", "greennet", "--forget", "diffusion")
    assert run(demo, "adapt-demo", made / "models/detector/2", *options) == 0
    said = capsys.readouterr().out
    assert "greennet, 5 faces that were not among the 10 learned from" in said and "| new greennet | 10 |" in said
    assert Image.open(tmp_path / "out/sheet.png").size[0] > 1000
    page = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    assert page.count("<figure>") == 5 and "known fakes" in page and (tmp_path / "out/views/0094.png").is_file()
    before, after = Parent.open(tmp_path / "out/forgetful/detector/1"), Parent.open(tmp_path / "out/models/detector/2")
    assert before.card.classes == ("gan",) and after.card.classes == ("gan", "greennet")
    assert "diffusion" not in before.memory.names


def test_a_demonstration_needs_faces_to_test_on(made: Path, tmp_path: Path) -> None:
    faces = adapt_world.folder_of(tmp_path / "faces", range(3))
    with pytest.raises(ValueError, match="must leave some of the 3 pictures"):
        run(demo, "adapt-demo", made / "models/detector/2", "--faces", faces, "--out", tmp_path / "out")

"""`unmask-train`: every command is there, and what is wrong is one line and exit code 2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.training.drawn_faces import manifest, prepared, recipe
from unmask_training.cli import main, parser
from unmask_training.registry import EVALUATORS, RECIPES, find

COMMANDS = (
    "prepare",
    "prepare-regions",
    "manipulate",
    "fit",
    "recipes",
    "evaluate",
    "attack",
    "matrix",
    "leave-one-out",
    "curves",
    "adapt",
    "adapt-bench",
    "adapt-demo",
    "export",
    "export-localizer",
    "release",
)


def test_every_command_is_there_with_help(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        with pytest.raises(SystemExit) as ended:
            parser().parse_args([command, "--help"])
        assert ended.value.code == 0 and "usage: unmask-train" in capsys.readouterr().out


def test_it_starts_as_a_program(root: Path) -> None:
    program = f"import sys; sys.path[:0] = [{str(root / 'services')!r}, {str(root / 'training')!r}]\n"
    program += "from unmask_training.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-W", "ignore", "-c", program, "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert shown.returncode == 0 and all(name in shown.stdout for name in COMMANDS), shown.stderr


def test_wrong_usage_is_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["paint"], ["fit"], ["evaluate", "x"], ["evaluate", "x", "y", "--part", "fit"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line of a command that must fail."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    # A progress bar may have begun before it.
    line = error.splitlines()[-1]
    assert line.startswith("unmask-train: ") and error.endswith("\n") and "Traceback" not in error, error
    return line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipe: [", "not YAML"),
        ("- a list", "needs a `recipe:`"),
        ("recipe: resnet", "recipe 'resnet' is unknown; there are: clip_vit_b16, clip_vit_b16-seg, cnn, efficientnet_lite0"),
        ("recipe: mobilenet_v2", "real, synthetic missing"),
        ("recipe: mobilenet_v2\nreal: {a: 1}\nsynthetic: {b: 1}\naugment: [1]", "augment"),
        ("recipe: mobilenet_v2\n3: 4", "unknown 3"),
    ],
)
def test_wrong_configurations_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    data = prepared(tmp_path / "data", each=3)
    assert message in refused(capsys, "fit", "--config", tmp_path / "c.yaml", "--data", data, "--out", tmp_path / "out")


def test_missing_and_broken_files_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(recipe()), encoding="utf-8")
    assert "not prepared data" in refused(capsys, "fit", "--config", config, "--data", tmp_path, "--out", tmp_path / "out")
    assert "nowhere.yaml" in refused(capsys, "fit", "--config", "nowhere.yaml", "--data", tmp_path, "--out", tmp_path)
    assert "card.json" in refused(capsys, "evaluate", tmp_path, tmp_path)
    (tmp_path / "card.json").write_text("{}", encoding="utf-8")
    assert "schema" in refused(capsys, "evaluate", tmp_path, tmp_path)
    assert "face_detector" in refused(capsys, "release", "--name", "x", "--repository", tmp_path)
    (tmp_path / "x.pt").write_bytes(b"text")
    told = ("--repository", tmp_path, "--data", tmp_path, "--config", config)
    assert "not a file of weights" in refused(capsys, "export", tmp_path / "x.pt", *told)
    assert "x2.pt" in refused(capsys, "export", tmp_path / "x2.pt", *told)


def test_a_manifest_of_other_columns_is_one_line(tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    detector = models / "face_detector/1/model.onnx"
    rows = [{"path": "a.png", "label": "real", "source": "s", "group": "g", "split": "train", "licence": "CC0"}]
    manifest(tmp_path, rows, {})
    told = (tmp_path, "--out", tmp_path / "out", "--face-detector", detector)
    assert "nothing prepared" in refused(capsys, "prepare", *told)
    (tmp_path / "manifest.csv").write_text("path,label\na.png,real\n", encoding="utf-8")
    assert "group" in refused(capsys, "prepare", *told)


@pytest.mark.parametrize("table", [RECIPES, EVALUATORS])
def test_the_registry_finds_what_it_names(table: dict[str, str]) -> None:
    assert all(callable(find(table, name, "entry")) for name in table)
    with pytest.raises(ValueError, match="entry 'other' is unknown"):
        find(table, "other", "entry")

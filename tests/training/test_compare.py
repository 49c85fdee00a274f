"""`unmask-train recipes`: one table of trunks, that goes on where it stopped and refuses what would not compare."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from tests.training.drawn_faces import prepared, recipe
from unmask_training.detector import compare
from unmask_training.detector.plain_graph import write_plain
from unmask_training.detector.recipe import Recipe
from unmask_training.trunks import SPECS, build

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Settings that a test can run."""
    path = tmp_path / "recipes.yaml"
    path.write_text(yaml.safe_dump({name: value for name, value in recipe(steps=3).items() if name != "recipe"}))
    return path


def run(*told: object) -> int:
    """The command, as the command line calls it."""
    top = argparse.ArgumentParser()
    compare.add_parser(top.add_subparsers())
    args = top.parse_args(["recipes", *map(str, told)])
    code: int = args.run(args)
    return code


def imagenet(path: Path) -> Path:
    """A file as torchvision's, drawn at random."""
    state = {f"features.{name}": value for name, value in build("mobilenet_v2").state_dict().items()}
    torch.save(state | {"classifier.1.weight": torch.zeros(1000, 1280), "classifier.1.bias": torch.zeros(1000)}, path)
    return path


def test_the_table_and_its_figures(data: Path, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, weights = tmp_path / "out", imagenet(tmp_path / "start.pth")
    told = ("--data", data, "--out", out, "--config", config, "--weights", f"mobilenet_v2={weights}")
    assert run(*told, "--only", "mlp", "mobilenet_v2") == 0
    shown = capsys.readouterr().out
    results = json.loads((out / compare.RESULTS).read_text())
    assert list(results["recipes"]) == ["mlp", "mobilenet_v2"]
    assert [results["recipes"][name]["start"]["kind"] for name in ("mlp", "mobilenet_v2")] == ["scratch", "imagenet"]
    row = results["recipes"]["mlp"]
    assert row["steps"] == 3 and row["parameters"] == 3072 * 512 + 512 * 256 + 3 * (512 + 256)
    assert abs(row["megabytes"] - 4e-6 * row["parameters"]) < 0.1 and row["milliseconds"] > 0 and row["onnx_gap"] <= 1e-3
    # On nothing but colours a perceptron is right at once, and a thresholded figure can be no better than the AUC allows.
    assert row["figures"]["auc"]["value"] > 0.9 and row["figures"]["balanced_accuracy"]["n"] == 16
    for figure in row["figures"].values():
        assert 0.0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1.0
    lines = {line.split("`")[1]: line for line in shown.splitlines() if line.startswith("| `")}
    assert lines.keys() == {*SPECS, "resnext101:frozen"}
    assert "| from scratch |" in lines["mlp"] and "| ImageNet |" in lines["mobilenet_v2"] and "| not run |" in lines["swin_t"]
    assert "3 steps of 8 views of 32 pixels" in shown and "16 pictures" in shown
    assert all(line.count("|") == 11 for line in lines.values())


def test_a_finished_row_is_not_run_again(data: Path, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = ("--data", data, "--out", tmp_path / "out", "--config", config, "--only")
    run(*told, "mlp")
    checkpoint = tmp_path / "out/mlp/detector.pt"
    table = capsys.readouterr().out
    checkpoint.write_bytes(b"no longer looked at")
    run(*told, "mlp")
    assert capsys.readouterr().out == table and checkpoint.read_bytes() == b"no longer looked at"
    run(*told, "cnn")
    assert list(json.loads((tmp_path / "out/recipes.json").read_text())["recipes"]) == ["mlp", "cnn"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--steps", 4), r"recipes\.json: begun with another config; take another --out"),
        (("--size", 64), r"recipes\.json: begun with another config"),
    ],
)
def test_other_settings_do_not_go_into_one_table(
    more: tuple[object, ...], words: str, data: Path, config: Path, tmp_path: Path
) -> None:
    told = ("--data", data, "--out", tmp_path / "out", "--config", config, "--only", "mlp")
    run(*told)
    with pytest.raises(ValueError, match=words):
        run(*told, *more)


def test_a_comparison_that_was_cut_off_does_not_go_on_under_other_settings(data: Path, config: Path, tmp_path: Path) -> None:
    told = ("--data", data, "--out", tmp_path / "out", "--config", config, "--only", "mlp")
    with pytest.raises(ValueError, match="mlp: needs a size that is a multiple of 32, not 48"):
        run(*told, "--size", 48)
    with pytest.raises(ValueError, match=r"recipes\.json: begun with another config"):
        run(*told)


def test_a_fit_that_was_cut_off_does_not_go_on_from_another_start(data: Path, config: Path, tmp_path: Path) -> None:
    told = ("--data", data, "--out", tmp_path / "out", "--config", config, "--only", "mobilenet_v2")
    weights = ("--weights", f"mobilenet_v2={imagenet(tmp_path / 'start.pth')}")
    run(*told, *weights)
    results = tmp_path / "out/recipes.json"
    results.write_text(json.dumps(json.loads(results.read_text()) | {"recipes": {}}))  # as if its row were not written yet
    with pytest.raises(ValueError, match="recipe mobilenet_v2: was begun with other weights"):
        run(*told)
    run(*told, *weights)
    assert list(json.loads(results.read_text())["recipes"]) == ["mobilenet_v2"]


def test_a_part_that_learns_is_named_in_the_table(data: Path, config: Path, tmp_path: Path) -> None:
    weights = imagenet(tmp_path / "start.pth")
    options = ("--only", "mobilenet_v2:frozen", "--weights", f"mobilenet_v2={weights}")
    run("--data", data, "--out", tmp_path / "out", "--config", config, *options)
    results = json.loads((tmp_path / "out/recipes.json").read_text())
    assert results["recipes"]["mobilenet_v2:frozen"]["learns"] == "frozen"
    assert "| `mobilenet_v2:frozen` | ImageNet, heads learn |" in compare.markdown(results)


def test_other_data_or_another_start_do_not_go_into_one_table(data: Path, config: Path, tmp_path: Path) -> None:
    told = ("--out", tmp_path / "out", "--config", config, "--only", "mobilenet_v2")
    run(*told, "--data", data)
    with pytest.raises(ValueError, match="recipe mobilenet_v2: was begun with other weights than --weights tells"):
        run(*told, "--data", data, "--weights", f"mobilenet_v2={imagenet(tmp_path / 'start.pth')}")
    with pytest.raises(ValueError, match="begun with another data"):
        run(*told, "--data", prepared(tmp_path / "more", each=15))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--only", "resnet51"), "trunk 'resnet51' is unknown; there are: cnn"),
        (("--only", "mlp", "resnext101"), "recipe resnext101: learns only layer4, so it needs --weights resnext101=FILE"),
        (("--weights", "resnet18"), "--weights resnet18: expected NAME=FILE"),
        (("--weights", "resnet51=x.pth"), "trunk 'resnet51' is unknown"),
        (("--weights", "mlp=x.pth"), "mlp has no published weights"),
        (("--weights", "resnet18=none.pth"), "--weights resnet18=none.pth: no file there"),
        (("--weights", "resnet18:frozen=none.pth"), "weights are for resnet18, whatever part of it learns"),
        (("--steps", "0"), "steps"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_fitted(
    more: tuple[str, ...], words: str, data: Path, config: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=words):
        run("--data", data, "--out", tmp_path / "out", "--config", config, *more)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["[]", "{", "trunk: mlp", "recipe: mlp\nreal: {photos: 1}", "real: {photos: 1}"])
def test_a_wrong_configuration_is_refused(text: str, data: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"wrong\.yaml|recipe: synthetic missing"):
        run("--data", data, "--out", tmp_path / "out", "--config", tmp_path / "wrong.yaml", "--only", "mlp")


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_foreign_file_is_not_taken_for_results(text: str, data: Path, config: Path, tmp_path: Path) -> None:
    (tmp_path / "recipes.json").write_text(text)
    with pytest.raises(ValueError, match="not the results of `unmask-train recipes`"):
        run("--data", data, "--out", tmp_path, "--config", config, "--only", "mlp")


def test_the_shipped_configuration_is_one_of_a_fit() -> None:
    path = Path(__file__).resolve().parents[2] / "training/configs/recipes.yaml"
    told = Recipe.of(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert (
        (told.size, told.minutes, told.trunk) == (192, 0, "mobilenet_v2") and len(told.real) == 11 and len(told.synthetic) == 8
    )


def test_all_are_run_but_those_that_need_weights(tmp_path: Path) -> None:
    assert compare.chosen(None, {}) == [name for name in compare.ROWS if not name.startswith("resnext101")]
    assert compare.chosen(None, {"resnext101": tmp_path}) == list(compare.ROWS)
    assert compare.chosen(["cnn", "cnn"], {}) == ["cnn"]


def test_the_equal_error_lies_between_scores() -> None:
    score, fake = np.array([0.0, 1.0, 2.0, 5.0, 6.0]), np.array([False, False, False, True, True])
    assert compare.equal_error(score, fake) == 3.5
    assert compare.equal_error(np.array([0.0, 2.0, 1.0, 3.0]), np.array([False, False, True, True])) == 1.5
    assert compare.equal_error(np.array([1.0, 1.0]), np.array([False, True])) == 1.0


def test_a_graph_that_differs_is_refused(tmp_path: Path) -> None:
    class Wavering(torch.nn.Module):
        calls = 0

        def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor]:
            self.calls += 1
            return (pixels.mean((1, 2, 3)) + self.calls,)

    with pytest.raises(ValueError, match="the ONNX graph differs from torch by"):
        write_plain(Wavering(), 32, tmp_path / "plain.onnx")

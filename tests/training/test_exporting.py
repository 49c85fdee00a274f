"""Exporting: a checkpoint becomes a version folder that serving loads, and that says how it came about."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from tests.training.drawn_faces import GENERATORS, prepared, recipe
from unmask.adapters.model_repository import ModelRepository
from unmask.adapters.models_local import LocalModels
from unmask.core.cards import Card, ModelRef
from unmask.core.images import cut
from unmask_training.data.chips import Chips
from unmask_training.detector import export as exporting
from unmask_training.detector import fit as detector
from unmask_training.detector.evaluate import detection_rows, logits
from unmask_training.detector.export import export, load_network, training_of
from unmask_training.measuring.evaluating import read_card


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data, a recipe's file, its checkpoint and the repository that was exported from it."""
    folder = tmp_path_factory.mktemp("world")
    config = folder / "tiny.yaml"
    config.write_text(yaml.safe_dump(recipe(size=64, steps=3), sort_keys=False), encoding="utf-8")
    detector.fit(yaml.safe_load(config.read_text(encoding="utf-8")), prepared(folder / "data"), folder, None, False)
    export(folder / "detector.pt", folder / "models/detector/3", folder / "data", config, ["a note"])
    return folder


def card_of(world: Path) -> dict[str, Any]:
    """The exported card as it stands in its file."""
    told: dict[str, Any] = json.loads((world / "models/detector/3/card.json").read_text(encoding="utf-8"))
    return told


def test_the_card_names_its_files_data_and_settings(world: Path) -> None:
    told, folder = card_of(world), world / "models/detector/3"
    parsed = Card.parse((folder / "card.json").read_bytes(), "")
    assert (parsed.name, parsed.version, parsed.task, parsed.classes) == ("detector", 3, "synthetic", GENERATORS)
    for name, entry in told["files"].items():
        data = (folder / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    assert set(told["files"]) == {"model.onnx", "weights.safetensors"}
    training = told["training"]
    assert (training["seed"], training["recipe"], training["steps"]) == (7, "training/configs/tiny.yaml", 3)
    assert training["start"] == {"kind": "scratch"} and "a note" in told["notes"]
    assert {(entry["source"], entry["licence"]) for entry in training["data"]} == {
        (kind, "CC0") for kind in ("photos", "portraits", "gan", "diffusion")
    }
    # A third of each kind's twelve pictures is for fitting: only those are data of training.
    assert [entry["pictures"] for entry in training["data"]] == [4, 4, 4, 4]


def test_the_card_has_figures_of_pictures_that_were_not_trained_on(world: Path) -> None:
    told = card_of(world)
    kinds = told["metrics"]["by_kind"]
    assert {name: row["accuracy"]["n"] for name, row in kinds.items()} == dict.fromkeys((*GENERATORS, "photos", "portraits"), 4)
    assert all("auc" in kinds[name] for name in GENERATORS) and "auc" in kinds["photos"]
    assert told["thresholds"]["real_below"] <= told["thresholds"]["synthetic_above"]
    assert told["calibration"]["temperature"] > 0


def test_serving_loads_it_and_answers_as_torch_does(world: Path) -> None:
    models, ref = LocalModels(ModelRepository(world / "models")), ModelRef("detector", 3)
    card = models.card(ref)
    assert card.view is not None
    chips = Chips(world / "data")
    views = np.stack([cut(chips.chip(row), card.view) for row in chips.rows[:5]])
    served = models.infer(ref, {"image": views})
    network, _ = load_network(world / "detector.pt")
    with torch.no_grad():
        expected = network(torch.from_numpy(views).permute(0, 3, 1, 2).float())
    for name, values in zip(("synthetic", "family", "embedding"), expected, strict=True):
        np.testing.assert_allclose(served[name], values.numpy(), atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(served["embedding"], axis=1), 1.0, atol=1e-4)
    alone = models.infer(ref, {"image": views[2:3]})["synthetic"]
    np.testing.assert_allclose(alone, served["synthetic"][2:3], atol=1e-4)


def test_measuring_reads_the_file_that_serving_runs(world: Path) -> None:
    folder, chips = world / "models/detector/3", Chips(world / "data")
    rows = detection_rows(chips, "val")
    card = read_card(folder)
    found = logits(folder, card, chips, rows)
    assert found.shape == (16,) and np.isfinite(found).all() and {row.part for row in rows} == {"val"}


def test_a_checkpoint_of_other_settings_is_refused(world: Path, tmp_path: Path) -> None:
    state = torch.load(world / "detector.pt", weights_only=True)
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(recipe(size=64, steps=3, seed=8, dropout=0.5), sort_keys=False), encoding="utf-8")
    with pytest.raises(ValueError, match="fitted with another dropout, seed"):
        training_of(state, other)
    with pytest.raises(ValueError, match="2 of 3 steps done"):
        training_of({**state, "step": 2}, world / "tiny.yaml")
    with pytest.raises(ValueError, match="does not say by which settings"):
        training_of({key: value for key, value in state.items() if key != "recipe"}, world / "tiny.yaml")


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save({"features.0.0.weight": torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="not a detector's checkpoint"):
        load_network(tmp_path / "weights.pth")
    (tmp_path / "empty.pt").touch()
    with pytest.raises(ValueError, match="not a file of weights"):
        load_network(tmp_path / "empty.pt")


def test_files_that_are_too_large_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("model.onnx", "weights.safetensors"):
        (tmp_path / name).write_bytes(b"12345")
    assert exporting.files_of(tmp_path)["model.onnx"]["bytes"] == 5
    monkeypatch.setattr(exporting, "_LARGEST", 4)
    with pytest.raises(ValueError, match="5 bytes, more than the 4 that may be committed"):
        exporting.files_of(tmp_path)

"""The detector in model_repository/: its weights are its graph's, and it can be measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

from tests.training.drawn_faces import drawn_face, prepared
from unmask.core.images import Pixels
from unmask_training.cli import main
from unmask_training.data.chips import Chips
from unmask_training.detector.evaluate import evaluate
from unmask_training.detector.network import Detector, Served
from unmask_training.measuring.evaluating import read_card
from unmask_training.tower.attacked import load_version
from unmask_training.tower.export import parity


@pytest.fixture(scope="module")
def folder(root: Path) -> Path:
    """The small version's folder; committed, so it is always there."""
    return root / "model_repository/detector/1"


def views(size: int) -> Pixels:
    """A drawn face, its mirror, noise, black and white."""
    face = drawn_face(size, 4)
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return np.stack([face, face[:, ::-1], noise, np.zeros_like(face), np.full_like(face, 255)])


def test_the_graph_is_its_weights(folder: Path) -> None:
    card = read_card(folder)
    network = Detector(card.classes)
    network.load_state_dict(load_file(folder / "weights.safetensors"))
    assert card.view is not None
    pictures = views(card.view.size)
    with torch.no_grad():
        expected = Served(network).eval()(torch.from_numpy(pictures))
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    found = session.run(["synthetic", "family", "embedding"], {"image": pictures})
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other.numpy(), atol=1e-3)
    # Were the weights another graph's, agreement on one constant would prove nothing.
    assert np.ptp(found[0]) > 0.1


def test_the_tower_versions_graph_is_its_weights(models: Path) -> None:
    folder = models / "detector/3"
    card = read_card(folder)
    assert card.view is not None and card.golden is not None
    assert parity(load_version(folder, card), (folder / "model.onnx").read_bytes()) < 1e-3
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(["synthetic"], {"image": views(card.view.size)})
    assert np.ptp(found) > 0.1


def test_it_is_measured_on_any_prepared_data(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = prepared(tmp_path / "data", each=6)
    figures = evaluate(folder, read_card(folder), data)
    assert set(figures["by_kind"]) == {"photos", "portraits", "gan", "diffusion"} and len(Chips(data)) == 24
    assert main(["evaluate", str(folder), str(data), "--json", str(tmp_path / "figures.json")]) == 0
    told = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))["tiers"]["clean"]
    assert {key: told[key] for key in figures} == figures
    assert "| generator `gan` | 2 |" in capsys.readouterr().out


def test_data_without_a_picture_to_measure_on_are_refused(folder: Path, tmp_path: Path) -> None:
    index = prepared(tmp_path, each=3) / "index.jsonl"
    index.write_text(index.read_text(encoding="utf-8").replace('"val"', '"fit"'), encoding="utf-8")
    with pytest.raises(ValueError, match="no real or synthetic pictures in part 'val'"):
        evaluate(folder, read_card(folder), tmp_path)

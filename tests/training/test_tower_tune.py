"""The tower as a torch module is the published one; its norms are tuned, kept, gone on with, and put into the served graph."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from numpy.typing import NDArray
from onnx import numpy_helper
from safetensors.torch import load_file, save_file

from tests.training.drawn_faces import GENERATORS, prepared
from tests.training.test_tower import told
from tests.training.tiny_tower import SIZE, raw_tower
from unmask.core.errors import BadModel
from unmask.core.images import cut
from unmask.core.vit_trunk import FEATURES, PIXELS, norms_of, tower
from unmask_training.cli import main
from unmask_training.data.chips import Chips
from unmask_training.detector.network import Detector
from unmask_training.measuring.adversarial import fgsm
from unmask_training.measuring.evaluating import read_card
from unmask_training.tower import fit as fitting
from unmask_training.tower import tune
from unmask_training.tower.attacked import AttackedTower
from unmask_training.tower.export import export
from unmask_training.tower.features import Viewer, contract
from unmask_training.tower.fit import learnt_rows
from unmask_training.tower.parts import positions_at
from unmask_training.tower.recipe import TowerRecipe, Tuning
from unmask_training.tower.tune import Scene, tuned_norms
from unmask_training.tower.vision import VisionTower

Floats = NDArray[np.float32]


def served(raw: bytes, norms: Floats, pixels: Floats) -> Floats:
    """Features by the float graph."""
    session = onnxruntime.InferenceSession(tower(raw, positions_at(raw, SIZE), norms), providers=["CPUExecutionProvider"])
    return np.asarray(session.run([FEATURES], {PIXELS: pixels})[0])


def test_the_module_is_the_published_tower_with_its_norms_and_with_others(clip: Path) -> None:
    raw = clip.read_bytes()
    vision, own = VisionTower(raw, positions_at(raw, SIZE)).eval(), norms_of(raw)
    pixels = np.random.default_rng(0).normal(size=(2, 3, SIZE, SIZE)).astype(np.float32)
    assert own.shape == (38_400,) and sum(p.requires_grad for p in vision.parameters()) == len(vision.norms()) == 50
    other = own * np.random.default_rng(1).uniform(0.9, 1.1, len(own)).astype(np.float32)
    found = []
    for norms in (own, other):
        vision.set_norms(torch.from_numpy(norms))
        with torch.no_grad():
            found.append(vision(torch.from_numpy(pixels)).numpy())
        np.testing.assert_allclose(found[-1], served(raw, norms, pixels), atol=1e-3)
    assert np.abs(found[0] - found[1]).max() > 0.1


def test_norms_of_another_length_are_refused(clip: Path) -> None:
    raw = clip.read_bytes()
    with pytest.raises(BadModel, match=r"norms of shape \(5,\), it takes \(38400,\)"):
        tower(raw, positions_at(raw, SIZE), np.zeros(5, dtype=np.float32))
    assert norms_of(raw_tower()).shape == (0,)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Drawn faces to tune on."""
    chips = Chips(prepared(tmp_path_factory.mktemp("tune") / "data", each=12))
    recipe = TowerRecipe.of(told(Path("unused")))
    tuning = Tuning(steps=6, batch=8, warmup=1, learning_rate=1e-3)
    return Scene(Viewer(chips, SIZE, recipe.augment, 5), learnt_rows(chips, recipe), tuning)


def frozen(raw: bytes, scene: Scene) -> Floats:
    """Features of the clean views."""
    views = np.stack([scene.viewer(row, number, 0) for number, row in scene.rows])
    pixels = (views.astype(np.float32) / 127.5 - 1.0).transpose(0, 3, 1, 2)
    return served(raw, norms_of(raw), np.ascontiguousarray(pixels))


def test_tuning_goes_on_where_it_was_and_ends_at_the_same_norms(
    clip: Path, scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune, "SAVED_EVERY", 3)
    raw = clip.read_bytes()
    positions, features = positions_at(raw, SIZE), frozen(raw, scene)
    whole = tuned_norms(VisionTower(raw, positions), scene, features, tmp_path / "whole.pt")
    assert whole.shape == norms_of(raw).shape and 1e-4 < np.abs(whole - norms_of(raw)).max() < 0.1
    cut = tmp_path / "cut.pt"
    with pytest.raises(KeyboardInterrupt):
        tuned_norms(VisionTower(raw, positions), Interrupted(scene.viewer, scene.rows, scene.tuning), features, cut)
    assert torch.load(cut)["step"] == 3
    np.testing.assert_allclose(tuned_norms(VisionTower(raw, positions), scene, features, cut), whole, atol=1e-5)


@pytest.fixture(scope="module")
def tuned(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, and a detector on the tuned tower, fitted and exported as detector/3."""
    folder = tmp_path_factory.mktemp("tuned")
    torch.manual_seed(1)
    beside = folder / "beside"
    beside.mkdir()
    save_file({n: v.contiguous() for n, v in Detector(GENERATORS).state_dict().items()}, beside / "weights.safetensors")
    (beside / "card.json").write_text(json.dumps({"classes": list(GENERATORS), "input": {"size": SIZE}}))
    recipe = told(beside, copies=0, tune={"steps": 2, "batch": 4, "warmup": 0, "learning_rate": 1e-3, "copies": 0})
    config, data = folder / "tuned.yaml", prepared(folder / "data", each=12)
    config.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    export(fitting.fit(recipe, data, folder / "run", clip, False), folder / "models/detector/3", data, config, clip)
    return folder


def test_a_tuned_tower_is_fitted_and_exported_with_its_norms(clip: Path, tuned: Path) -> None:
    version = tuned / "models/detector/3"
    graph = onnx.load(str(version / "model.onnx")).graph
    [norm] = [numpy_helper.to_array(t) for t in graph.initializer if t.name == "vision_model.pre_layrnorm.weight"]
    assert 1e-4 < np.abs(norm - norms_of(clip.read_bytes())[:768]).max() < 0.1
    np.testing.assert_array_equal(load_file(version / "weights.safetensors")["norms"][:768], norm)
    names = {tensor.name for tensor in graph.initializer}
    assert {"network.project.weight/half", "network.beside.trunk.conv1.weight/half"} & names, sorted(names)[:50]


def test_an_attack_has_the_towers_gradient_and_is_measured_on_the_served_graph(
    clip: Path, tuned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    version, found = tuned / "models/detector/3", tuned / "attack.json"
    command = ["attack", str(version), str(tuned / "data"), "--limit", "4", "--json", str(found)]
    assert main(command) == 2 and "needs --weights FILE, the tower's" in capsys.readouterr().err
    assert main([*command, "--weights", str(clip)]) == 0
    attacks = json.loads(found.read_text())["attacks"]
    assert set(attacks["FGSM 0.05"]) == {"plain", "blurred", "combined"} and len(attacks) == 6
    card = read_card(version)
    model = AttackedTower(version, card, clip.read_bytes())
    chips = Chips(tuned / "data")
    rows = [row for row in chips.rows if row.part == "val"]
    views = np.stack([cut(chips.chip(row), contract(SIZE)) for row in rows])
    pixels, fake = torch.from_numpy(views).permute(0, 3, 1, 2).float(), torch.tensor([float(r.label != "real") for r in rows])
    for way, logits in (("plain", model.plain), ("combined", model.combined)):
        assert np.corrcoef(logits(pixels).numpy(), model.ways()[way](pixels).numpy())[0, 1] > 0.9
    [noisy] = fgsm(model.plain, pixels, fake, [0.02])
    change = model.ways()["plain"](noisy) - model.ways()["plain"](pixels)
    assert ((change > 0) == (fake == 0)).float().mean() > 0.9, "pictures are moved away from their truth"


@pytest.mark.parametrize(
    ("section", "says"),
    [({"stepps": 3}, "tune: unknown stepps"), ({"batch": 1}, "tune: batch: 1"), ({"learning_rate": 2.0}, "learning_rate: 2.0")],
)
def test_a_wrong_section_is_refused_by_name(section: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        TowerRecipe.of(told(Path("unused"), tune=section))


class Interrupted(Scene):
    """Ends at the fourth step."""

    def batch(self, step: int) -> Any:
        """As the other, until somebody presses a key."""
        if step == 3:
            raise KeyboardInterrupt
        return super().batch(step)

"""Fitting: it learns, goes on from where it was cut off as if nothing had happened, and refuses what is wrong by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.training.drawn_faces import GENERATORS, recipe
from unmask_training.data.chips import Chips
from unmask_training.detector import fit as detector
from unmask_training.detector import network
from unmask_training.detector.batches import Batches
from unmask_training.detector.recipe import Recipe
from unmask_training.detector.trainer import Trainer

Fitted = dict[str, Any]


pytestmark = pytest.mark.usefixtures("one_thread")


def fit(out: Path, data: Path, resume: bool = False, weights: Path | None = None, **changes: object) -> Fitted:
    """The checkpoint of a fit."""
    path = detector.fit(recipe(**changes), data, out, weights, resume)
    state: Fitted = torch.load(path, weights_only=True)
    return state


def test_a_few_steps_lower_the_loss(data: Path) -> None:
    told = Recipe.of(recipe(steps=100, learning_rate=1e-3, size=64))
    trainer, batch = Trainer(told, GENERATORS), Batches(Chips(data), told).draw(0)
    losses = [trainer.fit_step(*batch) for _ in range(10)]
    assert max(losses[-3:]) < 0.8 * losses[0], losses
    assert trainer.step == 10 and all(value.isfinite().all() for value in trainer.average.values())


def test_a_resumed_fit_equals_an_uninterrupted_one(data: Path, tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole", data, dropout=0.0)
    told = Recipe.of(recipe())
    batches, first = Batches(Chips(data), told), Trainer(told, GENERATORS)
    for step in range(2):
        first.fit_step(*batches.draw(step))
    (tmp_path / "parts").mkdir()
    torch.save(first.state(), tmp_path / "parts/detector.pt")
    parts = fit(tmp_path / "parts", data, resume=True)
    assert whole["step"] == parts["step"] == 4 and whole["families"] == list(GENERATORS)
    for what in ("network", "average"):
        for name, value in whole[what].items():
            torch.testing.assert_close(parts[what][name], value, rtol=0, atol=0, msg=f"{what} {name}")


def test_a_finished_fit_resumes_to_itself(data: Path, tmp_path: Path) -> None:
    first, second = fit(tmp_path, data, steps=2), fit(tmp_path, data, resume=True, steps=2)
    assert second["step"] == 2 and first["average"]["synthetic.weight"].equal(second["average"]["synthetic.weight"])
    assert not (tmp_path / "detector.writing").exists()


def test_a_fit_can_end_by_the_clock(data: Path, tmp_path: Path) -> None:
    state = fit(tmp_path, data, steps=100_000, minutes=0.02)
    assert 1 <= state["step"] < 100 and state["seconds"] >= 1.2


def test_another_recipes_checkpoint_is_refused(data: Path, tmp_path: Path) -> None:
    fit(tmp_path, data, steps=1)
    with pytest.raises(ValueError, match="other families, another size"):
        fit(tmp_path, data, resume=True, steps=1, size=48)


def test_a_fit_starts_from_imagenet_weights_or_a_checkpoint(data: Path, tmp_path: Path) -> None:
    # Weights in torchvision's form, of another seed than the network's own.
    torch.manual_seed(5)
    donor = network.Detector(GENERATORS)
    torch.save({f"features.{name}": value for name, value in donor.trunk.state_dict().items()}, tmp_path / "imagenet.pth")
    fresh = Trainer(Recipe.of(recipe()), GENERATORS)
    assert not fresh.network.trunk[0][0].weight.equal(donor.trunk[0][0].weight)
    fresh.begin(tmp_path / "imagenet.pth")
    assert fresh.network.trunk[0][0].weight.equal(donor.trunk[0][0].weight)
    # What is exported is the average, so that must start from the weights too.
    assert fresh.average["trunk.0.0.weight"].equal(donor.trunk[0][0].weight)
    assert fresh.start["kind"] == "imagenet" and len(fresh.start["sha256"]) == 64
    state = fit(tmp_path / "one", data, steps=1)
    again = Trainer(Recipe.of(recipe(seed=99)), GENERATORS)
    again.begin(tmp_path / "one/detector.pt")
    assert again.network.synthetic.weight.equal(state["average"]["synthetic.weight"]) and again.start["kind"] == "checkpoint"


def test_wrong_weights_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unmask models fetch mobilenet_v2"):
        fit(tmp_path, data, weights=tmp_path / "none.pth")
    torch.save({"features.0.0.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth: not the weights of this trunk"):
        fit(tmp_path, data, weights=tmp_path / "other.pth")
    fit(tmp_path / "one", data, steps=1)
    trainer = Trainer(Recipe.of(recipe(synthetic={"gan": 1.0})), ("gan",))
    with pytest.raises(ValueError, match="other families"):
        trainer.begin(tmp_path / "one/detector.pt")
    (tmp_path / "text.pth").write_text("no weights", encoding="utf-8")
    with pytest.raises(ValueError, match=r"text\.pth: not"):
        fit(tmp_path, data, weights=tmp_path / "text.pth")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stpes": 3}, "unknown stpes"),
        ({"augment": {"jpg": [1, 2]}}, "augment: unknown jpg"),
        ({"real": {}}, "every share must be positive"),
        ({"real": {"photos": 0.0}}, "every share must be positive"),
        ({"real": {"nobody": 1.0}}, "no prepared training pictures of nobody"),
        # A generator among the reals: the manifest's label decides, not the recipe.
        ({"real": {"gan": 1.0}, "synthetic": {"diffusion": 1.0}}, "no prepared training pictures of gan"),
        ({"real": ["photos"]}, "real"),
        ({"steps": 0}, "steps"),
        ({"steps": 2.5}, "steps"),
        ({"batch": "many"}, "batch"),
        ({"size": -1}, "size"),
        ({"learning_rate": float("nan")}, "learning_rate"),
    ],
)
def test_wrong_recipes_are_refused_by_name(data: Path, tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, data, **changes)
    assert not (tmp_path / "detector.pt").exists()


def test_a_recipe_needs_both_halves() -> None:
    with pytest.raises(ValueError, match="real, synthetic missing"):
        Recipe.of({"recipe": "mobilenet_v2"})


@pytest.mark.parametrize("name", ["detector.yaml", "detector_continue.yaml"])
def test_the_shipped_recipes_are_valid(root: Path, name: str) -> None:
    path = root / "training/configs" / name
    told = Recipe.of(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert len(told.synthetic) == 8 and told.size == 192


def test_the_network_normalises_inside() -> None:
    net = network.Detector(GENERATORS).eval()
    pixels = torch.randint(0, 256, (2, 3, 64, 64)).float()
    synthetic, family, embedding = net(pixels)
    assert (synthetic.shape, family.shape, embedding.shape) == ((2,), (2, 2), (2, 1280))
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(2))
    served = network.Served(net)(pixels.permute(0, 2, 3, 1).to(torch.uint8))
    torch.testing.assert_close(served[0], synthetic)

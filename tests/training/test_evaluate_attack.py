"""Attacks on a detector's weights: they stay in their ball, they hurt, and the table says where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from tests.training.drawn_faces import drawn_face, prepared, recipe
from unmask_training.cli import main
from unmask_training.data.chips import Chips
from unmask_training.detector import fit as detector
from unmask_training.detector.evaluate import detection_rows
from unmask_training.detector.export import export
from unmask_training.measuring.adversarial import Defended, as_file, attacked, chosen, defended, fgsm, pgd
from unmask_training.measuring.evaluating import read_card


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data and a detector that was really trained on them and exported."""
    folder = tmp_path_factory.mktemp("world")
    config = folder / "tiny.yaml"
    config.write_text(yaml.safe_dump(recipe(steps=3), sort_keys=False), encoding="utf-8")
    detector.fit(yaml.safe_load(config.read_text(encoding="utf-8")), prepared(folder / "data"), folder, None, False)
    export(folder / "detector.pt", folder / "models/detector/3", folder / "data", config)
    return folder


def run(world: Path, *options: str) -> dict[str, Any]:
    """What the command writes as JSON."""
    path = world / "attack.json"
    words = ["attack", str(world / "models/detector/3"), str(world / "data"), "--json", str(path), *options]
    assert main(words) == 0
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return told


@pytest.fixture(scope="module")
def shipped(root: Path) -> Defended:
    """The small committed detector behind a blur: one that says different things of different pictures."""
    folder = root / "model_repository/detector/1"
    return defended(folder, read_card(folder), 1.5)


def views() -> tuple[Tensor, Tensor]:
    """Two drawn faces (2, 3, 96, 96), one taken for real, one for generated."""
    faces = np.stack([drawn_face(96, 0), drawn_face(96, 1)[:, ::-1]])
    return torch.from_numpy(faces).permute(0, 3, 1, 2).float(), torch.tensor([0.0, 1.0])


def loss(logits: Tensor, fake: Tensor) -> float:
    return float(nn.functional.binary_cross_entropy_with_logits(logits, fake))


def test_attacks_stay_in_their_ball_and_hurt(shipped: Defended) -> None:
    pixels, fake = views()
    attacked = [*fgsm(shipped.plain, pixels, fake, [0.01, 0.03]), pgd(shipped.combined, pixels, fake, 0.03, 4)]
    for found, epsilon in zip(attacked, (0.01, 0.03, 0.03), strict=True):
        assert (found == found.round()).all() and found.min() >= 0 and found.max() <= 255
        # Rounded to whole grey levels: half a level at most beyond the ball.
        assert 0 < (found - pixels).abs().max() <= epsilon * 255 + 0.5
    assert loss(shipped.plain(attacked[0]), fake) > loss(shipped.plain(pixels), fake) + 0.1
    assert loss(shipped.combined(attacked[2]), fake) > loss(shipped.combined(pixels), fake) + 0.1
    torch.testing.assert_close(pgd(shipped.combined, pixels, fake, 0.03, 4), attacked[2])


def test_the_combined_reading_is_that_of_plain_and_blurred(shipped: Defended) -> None:
    pixels, _ = views()
    pair = torch.stack([shipped.plain(pixels), shipped.blurred(pixels)])
    assert not torch.allclose(pair[0], pair[1])
    torch.testing.assert_close(shipped.combined(pixels), pair.mean(0))
    torch.testing.assert_close(Defended(shipped.network, 1.5, "max").combined(pixels), pair.amax(0))
    assert list(Defended(shipped.network, None, "mean").ways()) == ["plain"]
    assert as_file(torch.tensor([-3.0, 1.5001, 270.0])).tolist() == [0.0, 2.0, 255.0]


def test_the_command_without_and_with_a_defence(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = run(world, "--limit", "6")
    assert list(bare["attacks"]) == ["none", *(f"FGSM {e}" for e in (0.01, 0.02, 0.03, 0.05)), "PGD 0.03 through the model"]
    assert all(set(ways) == {"plain"} for ways in bare["attacks"].values()) and bare["sigma"] is None
    assert bare["pictures"] == 6 and bare["attacks"]["none"]["plain"]["balanced_accuracy"]["n"] == 6
    blurred = run(world, "--limit", "6", "--sigma", "1.5")
    assert all(set(ways) == {"plain", "blurred", "combined"} for ways in blurred["attacks"].values())
    assert blurred["attacks"]["FGSM 0.03"]["plain"] == bare["attacks"]["FGSM 0.03"]["plain"]
    assert "| FGSM 0.05 | combined | " in capsys.readouterr().out


def test_half_of_the_pictures_are_real(world: Path) -> None:
    rows = detection_rows(Chips(world / "data"), "val")
    some = chosen(rows, 6)
    assert [row.label for row in some].count("real") == 3 and some == chosen(rows, 6) and len(chosen(rows, 500)) == 16
    with pytest.raises(ValueError, match="no real pictures to attack"):
        chosen([row for row in rows if row.label != "real"], 6)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--limit", "1"], "--limit 1: at least 2"),
        (["--sigma", "0"], "sigma 0: it must be above 0"),
        (["--sigma", "9"], "sixth"),
    ],
)
def test_wrong_options_are_refused(world: Path, capsys: pytest.CaptureFixture[str], options: list[str], says: str) -> None:
    assert main(["attack", str(world / "models/detector/3"), str(world / "data"), *options]) == 2
    assert says in capsys.readouterr().err


def test_only_detectors_can_be_attacked(root: Path) -> None:
    folder = root / "model_repository/localizer/1"
    with pytest.raises(ValueError, match="only detectors can be attacked"):
        attacked(folder, read_card(folder))

"""What classification reads out of a detector's outputs, and that what a card does not name stays unset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import convolve1d

from tests.pictures import Pixels
from tests.system.tiny_models import VIEW
from tests.unit.classification.tiny_detector import OUTPUTS, face, kernel, knowing_repository, model
from unmask.adapters.model_repository import ModelRepository
from unmask.adapters.models_local import LocalModels
from unmask.adapters.verify_models import problems
from unmask.classification.handler import classify_chips
from unmask.core.cards import Calibration
from unmask.core.domain import Classified, Label
from unmask.core.errors import BadModel
from unmask.core.geometry import scaling
from unmask.core.golden import golden_pictures
from unmask.core.images import Chip
from unmask.embedded import Unmask

PROBABILITY = Calibration(1.25, 0.1).probability


def chip(pixels: Pixels) -> Chip:
    """A chip whose view are its own pixels."""
    return Chip(pixels, scaling(1.0), scaling(1.0 / VIEW, (0.5 / VIEW, 0.5 / VIEW)))


def noise(seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (VIEW, VIEW, 3), dtype=np.uint8)


def classified(root: Path, *pixels: Pixels) -> tuple[Classified, ...]:
    repository = ModelRepository(root)
    return classify_chips([chip(one) for one in pixels], repository.release(), LocalModels(repository))


def by_hand(pixels: Pixels) -> tuple[float, float]:
    """The logits of the plain and the blurred view."""
    red = pixels[..., 0].astype(np.float64)
    soft = convolve1d(convolve1d(red, kernel(), axis=0, mode="mirror"), kernel(), axis=1, mode="mirror")
    plain, blurred = (float((np.maximum(one - 128, 0).mean() - 32) / 8) for one in (red, soft))
    return plain, blurred


def test_every_output_is_read_for_every_face(tmp_path: Path) -> None:
    pictures = [noise(seed) for seed in range(11)]
    pictures[3][..., 2] = 36  # at .6: a third of the way from doubt .5 to 1
    found = classified(knowing_repository(tmp_path), *pictures)
    assert len(found) == 11  # more than the model's batch
    for one, pixels in zip(found, pictures, strict=True):
        plain, blurred = by_hand(pixels)
        assert one.synthetic == pytest.approx(PROBABILITY((plain + blurred) / 2), abs=1e-5)
        assert one.defence is not None
        assert (one.defence.plain, one.defence.blurred) == pytest.approx((PROBABILITY(plain), PROBABILITY(blurred)), abs=1e-5)
        exponents = np.exp([(plain + blurred) / 4, -(plain + blurred) / 4, 0.5])
        shares = dict(zip(("family_a", "family_b", "unknown"), exponents / exponents.sum(), strict=True))
        assert one.generator == pytest.approx(shares, abs=1e-4)
    assert found[3].doubt == pytest.approx(0.5 + 0.5 / 3, abs=1e-5)
    assert found[0].doubt == 1.0


def test_what_the_card_does_not_say_how_to_read_is_unset(tmp_path: Path) -> None:
    root = knowing_repository(tmp_path, defence=None, open_set=None, doubt=None)
    (one,) = classified(root, noise(0))
    assert one.synthetic is not None and set(one.generator or ()) == {"family_a", "family_b"}
    assert one.defence is None and one.doubt is None


@pytest.mark.parametrize("name", ["synthetic", "plain", "blurred", "family", "distance"])
def test_what_is_no_number_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadModel, match=f"detector 2: output '{name}' is not finite"):
        classified(knowing_repository(tmp_path, model(broken=name)), noise(0))


@pytest.mark.parametrize("name", ["embedding", "cam"])
def test_what_no_verdict_is_made_of_is_not_asked_for(tmp_path: Path, name: str) -> None:
    (right,) = classified(knowing_repository(tmp_path / "right"), noise(0))
    assert classified(knowing_repository(tmp_path / "broken", model(broken=name)), noise(0)) == (right,)


def test_room_for_families_to_come_is_no_family(tmp_path: Path) -> None:
    (one,) = classified(knowing_repository(tmp_path, classes=["family_a"]), noise(0))
    assert set(one.generator or ()) == {"family_a", "unknown"}


def test_golden_pictures_must_be_answered_as_when_exported(tmp_path: Path) -> None:
    answers = [sum(by_hand(pixels)) / 2 for pixels in golden_pictures(VIEW)]
    right = knowing_repository(tmp_path / "right", golden={"answers": answers, "tolerance": 0.01})
    assert not [line for line in problems(right) if "golden pictures" in line]
    answers[2] += 0.5
    wrong = knowing_repository(tmp_path / "wrong", golden={"answers": answers, "tolerance": 0.01})
    [line] = [line for line in problems(wrong) if "golden pictures" in line]
    assert line.startswith("model detector/2: answers the golden pictures by 0.5 otherwise than when it was exported")
    with pytest.raises(BadModel, match="golden: needs 'answers' and a positive 'tolerance'"):
        classified(knowing_repository(tmp_path / "none", golden={"answers": [], "tolerance": 0.01}), noise(0))


def test_a_card_that_does_not_fit_its_outputs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match=r"output 'family' has shape \(1, 2\), the card names 3 classes"):
        classified(knowing_repository(tmp_path / "classes", classes=["a", "b", "c"]), noise(0))
    fewer = [{"name": name, "dtype": "float32", "shape": shape} for name, shape in OUTPUTS.items() if name != "synthetic"]
    with pytest.raises(BadModel, match="a detector's card must name the output 'synthetic'"):
        classified(knowing_repository(tmp_path / "outputs", outputs=fewer), noise(0))


def told(root: Path, picture: bytes) -> tuple[Label, str, str]:
    """The label of the only face, the code and the text of its reason."""
    verdict = Unmask(models=root).check(picture)
    assert verdict.label is verdict.faces[0].label
    return verdict.label, verdict.reasons[0].code, verdict.reasons[0].text


def test_a_verdict_heeds_defence_and_doubt(tmp_path: Path) -> None:
    root = knowing_repository(tmp_path)
    label, _, text = told(root, face(red=255))
    assert label is Label.SYNTHETIC and "family_a" in text
    assert told(root, face(red=0))[0] is Label.REAL
    label, code, text = told(root, face(red=255, striped=True))
    assert (label, code) == (Label.UNSURE, "face_falls_apart") and "possibly adversarial noise" in text
    label, code, text = told(root, face(red=0, blue=60))
    assert (label, code) == (Label.UNSURE, "face_unlike_known")
    assert text == "unlike anything this detector was shown: doubt over 99 %, so its score is not relied on"
    assert told(root, face(red=255, blue=60))[:2] == (Label.UNSURE, "face_unlike_known")


def test_a_release_that_states_nothing_of_them_judges_as_before(tmp_path: Path) -> None:
    root = knowing_repository(tmp_path)
    release: dict[str, Any] = json.loads((root / "release.json").read_bytes())
    for name in ("doubt", "defence_gap"):
        del release["thresholds"][name]
    (root / "release.json").write_text(json.dumps(release))
    assert told(root, face(red=0, blue=60))[0] is Label.REAL
    assert told(root, face(red=255, blue=60))[0] is Label.SYNTHETIC
    verdict = Unmask(models=root).check(face(red=0, blue=60))
    assert verdict.doubt == 1.0 and verdict.faces[0].defence is not None

"""What an evaluation says beside accuracy, against answers worked out by hand, and the command on a whole version folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tests.training.drawn_faces import prepared
from tests.training.tiny_detector import version2
from unmask.core import geometry
from unmask.core.readouts import OpenSet
from unmask_training.cli import main
from unmask_training.data.chips import Chips, Row
from unmask_training.detector.evaluate import detection_rows, evaluate, point_of
from unmask_training.detector.outputs import outputs
from unmask_training.measuring import curves, doubts, openset, shortcut, strata
from unmask_training.measuring.evaluating import read_card
from unmask_training.measuring.measures import Point, Scored, auc, calibration_error
from unmask_training.measuring.tiers import PREPROCESS


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data with a column of their own, and a detector with every output."""
    folder = tmp_path_factory.mktemp("world")
    index = prepared(folder / "data", each=12) / "index.jsonl"
    entries = [json.loads(line) for line in index.read_text(encoding="utf-8").splitlines()]
    told = [{**e, "extra": {"yaw": str(7 * i - 60), "place": "in" if i % 2 else "out"}} for i, e in enumerate(entries[:24])]
    index.write_text("".join(json.dumps(entry) + "\n" for entry in [*told, *entries[24:]]), encoding="utf-8")
    version2(folder / "models/detector/2")
    return folder


def row(**changes: Any) -> Row:
    """A row that is told apart by what changes."""
    same: dict[str, Any] = {
        "path": "a",
        "label": "real",
        "kind": "k",
        "group": "g",
        "part": "val",
        "face": 90,
        "licence": "CC0",
    }
    return Row(**same | {"offset": 0, "shape": (8, 8, 3), "to_chip": np.eye(2, 3), "to_unit": np.eye(2, 3)} | changes)


def sizes(rows: list[Row], column: str) -> dict[str, int]:
    """How many rows each bin has."""
    return {name: int(mask.sum()) for name, mask in strata.bins(rows, column).items()}


def test_numbers_fall_into_quartiles_and_words_stand_for_themselves() -> None:
    ages = [row(extra={"age": str(age)}) for age in range(100)]
    assert sizes(ages, "age") == {"<= 24.75": 25, "24.75 to 49.5": 25, "49.5 to 74.25": 25, ">74.25": 25}
    few = [row(extra={"faces": n}) for n in ("2", "1", "1", "3")] + [row()]
    assert list(sizes(few, "faces").items()) == [("1", 2), ("2", 1), ("3", 1), ("(unset)", 1)]
    words = [row(extra={"place": word}) for word in ("out", "in", "5", "")]
    assert list(sizes(words, "place").items()) == [("5", 1), ("in", 1), ("out", 1), ("(unset)", 1)]
    assert sizes([row(face=80), row(face=90)], "face") == {"80": 1, "90": 1}


def test_yaw_is_binned_by_its_absolute_value() -> None:
    rows = [row(extra={"yaw": str(yaw)}) for yaw in (-60, -15, 0, 15, 15.1, -30, 31, 45, 46)]
    assert list(sizes(rows, "yaw").items()) == [("0 to 15", 3), ("15 to 30", 2), ("30 to 45", 2), (">45", 2)]


def test_an_unknown_column_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="column 'size' is in none of these pictures; there are age, face, licence"):
        strata.bins([row(extra={"age": "3"})], "size")


def test_families_are_read_as_serving_reads_them() -> None:
    family = np.array([[2.0, 0.0], [0.0, 2.0], [0.1, 0.0]])
    assert openset.families(family, ("a", "b"), None).tolist() == ["a", "b", "a"]
    assert openset.families(family, ("a", "b"), OpenSet(1.0, 0.5)).tolist() == ["a", "b", "unknown"]
    # Divided by the temperature both logits are below the constant.
    assert openset.families(family, ("a", "b"), OpenSet(8.0, 0.5)).tolist() == ["unknown"] * 3


def test_attribution_counts_known_unknown_and_confused() -> None:
    family = np.array([[3.0, 0.0], [0.0, 3.0], [0.0, 3.0], [0.0, 0.0], [0.0, 0.1]])
    kind, group = np.array(["a", "a", "b", "b", "new"]), np.array(list("vwxyz"))
    found = openset.attribution(family, kind, group, ("a", "b"), OpenSet(1.0, 1.0))
    assert found["accuracy_among_known"]["value"] == 0.5 and found["accuracy_among_known"]["n"] == 4
    assert (found["unknown_on_known"]["value"], found["unknown_on_others"]["value"]) == (0.25, 1.0)
    assert found["confusion"] == {
        "rows": ["a", "b", "new"], "columns": ["a", "b", "unknown"], "pictures": [[1, 1, 0], [0, 1, 1], [0, 0, 1]],
    }  # fmt: skip
    closed = openset.attribution(family, kind, group, ("a", "b"), None)
    assert set(closed) == {"accuracy_among_known", "confusion"}


def test_verification_is_the_auc_over_pairs_of_two_groups() -> None:
    rng = np.random.default_rng(0)
    kind = np.repeat(["a", "b", "c"], 8)
    group = np.array([f"g{i // 2}" for i in range(24)])
    embedding = rng.normal(size=(24, 5)) + 1.5 * np.eye(3, 5)[np.repeat([0, 1, 2], 8)]
    unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    pairs = [(i, j) for i in range(24) for j in range(i) if group[i] != group[j]]
    truth, cosine = [kind[i] == kind[j] for i, j in pairs], [float(unit[i] @ unit[j]) for i, j in pairs]
    found = openset.verification(embedding, kind, group)
    assert found is not None and found["pairs"] == len(pairs)
    assert found["value"] == pytest.approx(roc_auc_score(truth, cosine), abs=1e-4)
    assert found["low"] < found["value"] < found["high"]
    ties = openset.verification(np.ones((24, 5)), kind, group)
    assert ties is not None and ties["value"] == ties["low"] == ties["high"] == 0.5
    assert openset.verification(embedding[:8], kind[:8], group[:8]) is None


def test_risk_and_coverage_by_hand() -> None:
    wrong = np.array([False, True, False, True])
    coverage, risk = doubts.risk_coverage(np.array([0.1, 0.2, 0.3, 0.9]), wrong)
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1.0] and risk == pytest.approx([0.0, 0.5, 1 / 3, 0.5])
    assert doubts.area_under(coverage, risk) == pytest.approx((0.0 + 0.5 + 1 / 3 + 0.5) / 4)
    # All alike: nothing can be told apart, the only cut is all of them.
    coverage, risk = doubts.risk_coverage(np.ones(4), wrong)
    assert (coverage.tolist(), risk.tolist()) == ([1.0], [0.5])


def test_doubt_is_judged_by_forced_calls() -> None:
    score, fake = np.array([0.1, 0.2, 0.45, 0.9, 0.55]), np.array([False, False, True, True, True])
    names = np.array(list("vwxyz"))
    rows = Scored(score, fake, names, names, np.array([0.0, 0.1, 0.99, 0.2, 0.3]))
    found = doubts.table(rows, Point(0.4, 0.6, 0.95))
    # At .5 only the third is called wrongly, and the doubt of that is the highest.
    assert found["forced_error"] == 0.2 and found["auroc_of_errors"]["doubt"]["value"] == 1.0
    assert found["risk_coverage"]["doubt"]["risk"] == [0.0, 0.0, 0.0, 0.0, 0.2]
    assert set(doubts.table(Scored(score, fake, names, names), Point(0.4, 0.6))["risk_coverage"]) == {"score"}


def test_the_face_is_the_ellipse_of_the_median_box() -> None:
    view = geometry.scaling(192.0, (-0.5, -0.5))
    cells = shortcut.face_share(view, 192, (6, 6))
    assert cells.shape == (6, 6) and cells.mean() == pytest.approx(np.pi * 0.36 * 0.48, abs=0.01)
    assert cells[0, 0] == cells[0, -1] == cells[-1, 0] == 0.0 and cells[3, 2] == cells[3, 3] == 1.0
    # A view of twice the margin has the face on a quarter of the area.
    wide = shortcut.face_share(geometry.scaling(96.0, (47.5, 47.5)), 192, (6, 6))
    assert wide.mean() == pytest.approx(cells.mean() / 4, abs=0.01)


def test_evidence_beside_the_face_raises_the_alarm() -> None:
    on_face = np.zeros((4, 2, 2))
    on_face[:, 1] = 1.0
    cam = np.zeros((4, 2, 2))
    cam[:2, 0], cam[:2, 1] = 3.0, 1.0  # fakes: three quarters of what speaks for them lies beside the face
    cam[2:, 0], cam[2:, 1] = 5.0, -1.0  # reals: what speaks for a fake is not their evidence
    fake = np.array([True, True, False, False])
    found = shortcut.table(cam, on_face, fake, np.array(["gan", "gan", "photos", "photos"]), np.array(list("abcd")))
    fakes, reals = found["by_class"]["fakes"], found["by_class"]["reals"]
    assert (fakes["evidence_outside"], fakes["area_outside"], fakes["ratio"]["value"], fakes["alarm"]) == (0.75, 0.5, 1.5, True)
    assert (reals["evidence_outside"], reals["alarm"]) == (0.0, False)
    assert found["by_kind"]["gan"]["alarm"] and not found["by_kind"]["photos"]["alarm"]
    # No evidence at all is no alarm, and no figure.
    assert shortcut.table(-cam[:2], on_face[:2], fake[:2], np.array(["gan"] * 2), np.array(["a", "b"]))["by_class"] == {}


def test_curves_say_what_the_figures_say() -> None:
    rng = np.random.default_rng(2)
    fake = np.arange(150) >= 90
    score = np.clip(rng.normal(0.35 + 0.3 * fake, 0.2), 0, 1)
    names = np.array([f"g{i}" for i in range(150)])
    rows = Scored(score, fake, names, names)
    roc, bins = curves.roc(rows), curves.reliability(rows)
    assert (roc["fpr"][0], roc["tpr"][0], roc["fpr"][-1], roc["tpr"][-1]) == (0, 0, 1, 1)
    assert np.trapezoid(roc["tpr"], roc["fpr"]) == pytest.approx(auc(rows), abs=1e-3)
    gaps = np.abs(np.array(bins["score"]) - bins["fakes"]) * bins["weight"]
    assert gaps.sum() == pytest.approx(calibration_error(score, fake), abs=1e-3)
    shares = curves.histogram(rows)
    assert sum(shares["real"]) == pytest.approx(1, abs=1e-3) and sum(shares["fake"]) == pytest.approx(1, abs=1e-3)


def told(world: Path, *options: str, folder: str = "models/detector/2") -> dict[str, Any]:
    """What the command writes as JSON."""
    path = world / "told.json"
    assert main(["evaluate", str(world / folder), str(world / "data"), "--json", str(path), *options]) == 0
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def test_the_command_measures_every_output_in_every_tier(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(world, "--tiers", "--by", "yaw", "--by", "place", "--html", str(world / "page.html"))
    assert list(found["tiers"]) == ["clean", "web", "hard"] and found["data"]["pictures"] == 16
    for tier in found["tiers"].values():
        assert {"pooled", "by_kind", "curves", "doubt", "attribution", "verification", "blur_gap", "shortcut"} <= set(tier)
    clean = found["tiers"]["clean"]
    # It looks for green, and fakes are green.
    assert clean["pooled"]["balanced_accuracy"]["value"] == 1.0 and clean["pooled"]["auc"]["value"] == 1.0
    assert clean["operating_point"] == {"real_below": 0.4, "synthetic_above": 0.6, "doubt": 0.95}
    assert set(clean["attribution"]["confusion"]["columns"]) == {"gan", "diffusion", "unknown"}
    assert not clean["shortcut"]["by_class"]["fakes"]["alarm"]
    assert sum(row["reals"] for row in found["by"]["place"].values()) == 8 and "(unset)" in found["by"]["place"]
    assert found["command"] == "unmask-train evaluate detector/2 DATA --part val --tiers --by yaw --by place --preprocess crop"
    assert len(found["model"]["sha256"]) == len(found["data"]["sha256"]) == 64
    out = capsys.readouterr().out
    assert "| generator `gan` | 4 | 100.0 (" in out and "|  | clean | web | hard |" in out and "| yaw | reals |" in out
    assert (world / "page.html").read_text(encoding="utf-8").count("<svg") == 8


def test_it_repeats_and_the_card_gets_the_same_figures(world: Path) -> None:
    one, folder = told(world), world / "models/detector/2"
    assert one == told(world)
    figures = evaluate(folder, read_card(folder), world / "data")
    assert figures == {key: one["tiers"]["clean"][key] for key in figures}


def test_a_model_that_looks_at_the_corners_raises_the_alarm(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    version2(world / "models/detector/3", edge=True)
    found = told(world, folder="models/detector/3")
    assert found["tiers"]["clean"]["shortcut"]["by_class"]["fakes"]["alarm"]
    assert "shortcut alarm: fakes: " in capsys.readouterr().out


def test_a_threshold_of_doubt_makes_unsure(world: Path) -> None:
    version2(world / "models/detector/4", thresholds={"real_below": 0.4, "synthetic_above": 0.6, "doubt": 0.0})
    pooled = told(world, folder="models/detector/4")["tiers"]["clean"]["pooled"]
    assert pooled["unsure_on_fakes"]["value"] == pooled["unsure_on_reals"]["value"] == 1.0
    assert pooled["balanced_accuracy"]["value"] == 0.0 and pooled["auc"]["value"] == 1.0


def test_other_ways_to_cut_give_other_scores(world: Path) -> None:
    folder, chips = world / "models/detector/2", Chips(world / "data")
    card, rows = read_card(folder), detection_rows(chips, "val")
    crop, resize, pad = (outputs(folder, card, chips, rows, preprocess=way).synthetic for way in PREPROCESS)
    # Square chips: there is nothing to pad, so both show the whole chip.
    assert np.abs(crop - resize).max() > 0.01 and np.abs(resize - pad).max() < 0.01
    assert told(world, "--preprocess", "pad")["preprocess"] == "pad"


def test_outputs_that_are_no_numbers_are_refused(world: Path) -> None:
    folder, chips = version2(world / "models/detector/6", broken=True), Chips(world / "data")
    with pytest.raises(ValueError, match="output 'distance' is not finite"):
        outputs(folder, read_card(folder), chips, detection_rows(chips, "val"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--by", "age"], "column 'age' is in none of these pictures; there are face, licence, place, yaw"),
        (["--html", "nowhere/page.html"], "nowhere/page.html: there is no folder nowhere"),
    ],
)
def test_wrong_options_are_refused(world: Path, capsys: pytest.CaptureFixture[str], options: list[str], says: str) -> None:
    assert main(["evaluate", str(world / "models/detector/2"), str(world / "data"), *options]) == 2
    assert says in capsys.readouterr().err


def test_a_localizer_takes_no_options_of_detectors(world: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = root / "model_repository/localizer/1"
    assert main(["evaluate", str(folder), str(world / "data"), "--tiers", "--preprocess", "pad"]) == 2
    assert "--tiers, --preprocess: for detectors only; this model's task is 'regions'" in capsys.readouterr().err


def test_a_card_without_an_operating_point_is_refused(world: Path) -> None:
    folder = version2(world / "models/detector/5", thresholds={"real_below": 0.4})
    with pytest.raises(ValueError, match="the card states no threshold synthetic_above"):
        point_of(read_card(folder))


def test_data_without_the_part_are_refused(world: Path, tmp_path: Path) -> None:
    index = prepared(tmp_path, each=3) / "index.jsonl"
    index.write_text(index.read_text(encoding="utf-8").replace('"calibrate"', '"fit"'), encoding="utf-8")
    assert {row.part for row in Chips(tmp_path)} == {"fit", "val"}
    folder = world / "models/detector/2"
    with pytest.raises(ValueError, match="no real or synthetic pictures in part 'calibrate'"):
        evaluate(folder, read_card(folder), tmp_path, "calibrate")

"""Releases: exact versions by their cards, fusion from judged pictures of the calibration part only, wrong input refused."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unmask.core.cards import CARD_SCHEMA, Fusion, Release, logit_of
from unmask_training.cli import main
from unmask_training.data.chips import part_of
from unmask_training.release import (
    Judged,
    calibration_truth,
    compose,
    fit_fusion,
    newest_cards,
    read_judged,
    reference_of,
    report,
)

POINTS = {
    "detector": {"real_below": 0.4, "synthetic_above": 0.6},
    "localizer": {"real_below": 0.3, "manipulated_above": 0.7},
}
TASKS = {"face_detector": "faces", "detector": "synthetic", "localizer": "regions"}


def card(name: str, version: int) -> bytes:
    """A card as short as the format allows."""
    told: dict[str, Any] = {"schema": CARD_SCHEMA, "name": name, "version": version, "task": TASKS[name], "max_batch_size": 1}
    told["files"] = {"model.onnx": {"sha256": "0" * 64}}
    told["input"] = {"name": "image", "dtype": "uint8", "layout": "NHWC", "colour": "RGB", "view": "canvas"}
    return json.dumps(told | {"outputs": [], "thresholds": POINTS.get(name, {})}).encode()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Cards of every role; of the detector versions 2 and 10."""
    for name, version in (("face_detector", 1), ("detector", 2), ("detector", 10), ("localizer", 1)):
        folder = tmp_path / "models" / name / str(version)
        folder.mkdir(parents=True)
        (folder / "card.json").write_bytes(card(name, version))
    return tmp_path / "models"


def test_a_release_names_the_newest_cards_by_their_sha256(repository: Path) -> None:
    told = compose("first", newest_cards(repository), Fusion(1.23456, -0.5), {"pictures": 3})
    release = Release.parse(json.dumps(told).encode(), "")
    assert {role: release.model(role).version for role in TASKS} == {"face_detector": 1, "detector": 10, "localizer": 1}
    assert release.model("detector").sha256 == hashlib.sha256(card("detector", 10)).hexdigest()
    limits = release.thresholds
    assert (limits.synthetic_real, limits.synthetic, limits.manipulated_real, limits.manipulated) == (0.4, 0.6, 0.3, 0.7)
    assert release.fusion == Fusion(1.2346, -0.5) and told["report"] == {"pictures": 3}


def test_a_role_without_a_card_is_named(repository: Path) -> None:
    (repository / "localizer/1/card.json").unlink()
    with pytest.raises(FileNotFoundError, match="localizer: no <version>/card"):
        newest_cards(repository)


def test_the_command_writes_a_release(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["release", "--name", "r1", "--repository", str(repository)]) == 0
    text = (repository / "release.json").read_bytes()
    assert Release.parse(text, "").name == "r1" and json.loads(capsys.readouterr().out) == json.loads(text)


def judged(slope: float, bias: float, count: int = 8000) -> list[Judged]:
    """Pictures whose truth is drawn so that sigmoid(slope * logit(p) + bias) is right at prior .5."""
    rng = np.random.default_rng(2)
    fake = np.arange(count) % 2 == 1
    ratio = rng.normal(np.where(fake, 1.5, -1.5), np.sqrt(3.0))
    either = 1.0 / (1.0 + np.exp(-(ratio - bias) / slope))
    part = rng.uniform(0, 1, count) * either
    # Two parts whose noisy or is `either`.
    return [
        Judged(float(1 - (1 - e) / (1 - m)), float(m), bool(f), "synthetic" if f else "real")
        for e, m, f in zip(either, part, fake, strict=True)
    ]


@pytest.mark.parametrize(("slope", "bias"), [(1.0, 0.0), (0.7, -0.6)])
def test_fusion_comes_back_from_what_it_made(slope: float, bias: float) -> None:
    rows = judged(slope, bias)
    fusion = fit_fusion(rows)
    assert fusion.slope == pytest.approx(slope, rel=0.08) and fusion.bias == pytest.approx(bias, abs=0.08)
    told = report(rows, fusion)
    assert told == told | {"pictures": 8000, "fake_called_fake": 1.0, "real_called_real": 1.0} and told["ece"] < 0.03


def test_a_face_without_the_localizer_counts_by_its_detector() -> None:
    rows = [Judged(p, None, p > 0.5, "unsure") for p in (0.1, 0.4, 0.35, 0.6, 0.9, 0.45)]
    rows += [Judged(0.6, None, False, "unsure"), Judged(0.4, None, True, "unsure")]
    fusion = fit_fusion(rows)
    assert fusion.score(0.9, None) == pytest.approx(1 / (1 + np.exp(-(fusion.slope * logit_of(0.9) + fusion.bias))))
    assert report(rows, fusion)["fake_called_fake"] == 0.0


def test_scores_are_stated_for_watching_where_both_truths_are_known() -> None:
    rows = [Judged(0.15, None, False, "real", "real"), Judged(0.95, None, True, "synthetic", "synthetic")]
    told = reference_of([*rows, Judged(0.5, None, True, "real", "manipulated")])
    assert told is not None and (told["real"][1], told["synthetic"][-1]) == (1.0, 1.0)
    assert reference_of(rows[:1]) is None and reference_of([]) is None


def test_fusion_needs_both_kinds() -> None:
    for rows in ([], judged(1.0, 0.0)[::2], judged(1.0, 0.0)[1::2]):
        with pytest.raises(ValueError, match="both kinds, real and fake"):
            fit_fusion(rows)


def verdict(path: str, synthetic: float | None, faces: int = 1) -> str:
    """A line of `unmask check --json`, its largest face last."""
    face = {"manipulated": 0.2, "score": 0.5}
    small = [{**face, "synthetic": 0.01, "box": [0, 0, 9, 9]}] * (faces - 1)
    large = [{**face, "synthetic": synthetic, "box": [0, 0, 90, 90]}] if faces else []
    return json.dumps({"path": path, "label": "unsure", "faces": [*small, *large]})


def groups(part: str, count: int) -> list[str]:
    """Names of groups that the split puts into a part."""
    return [name for i in range(400) if part_of("train", name := f"g{i}") == part][:count]


def write_manifest(path: Path, rows: list[dict[str, str]]) -> Path:
    """A manifest with a donor's group."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ("path", "label", "split", "group", "donor_group"), restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_only_the_calibration_part_counts(tmp_path: Path) -> None:
    held, fitted = groups("calibrate", 2), groups("fit", 1)[0]
    rows = [{"path": "train/a.jpg", "label": "real", "split": "train", "group": held[0]}]
    rows += [{"path": "train/b.jpg", "label": "synthetic", "split": "train", "group": fitted}]
    rows += [{"path": "val/c.jpg", "label": "real", "split": "val", "group": held[0]}]
    rows += [{"path": "d.jpg", "label": "manipulated", "split": "train", "group": held[0], "donor_group": fitted}]
    rows += [{"path": "e.jpg", "label": "manipulated", "split": "train", "group": held[0], "donor_group": held[1]}]
    truth = calibration_truth([write_manifest(tmp_path / "manifest.csv", rows)])
    assert truth == {"train/a.jpg": "real", "e.jpg": "manipulated"}


def test_verdicts_are_paired_by_the_end_of_their_path(tmp_path: Path) -> None:
    lines = [verdict("/data/faces/train/a.jpg", 0.3, faces=3), verdict("elsewhere/train/b.jpg", 0.9), verdict("x/c.jpg", 0.9)]
    lines += [verdict("train/none.jpg", None, faces=0), verdict("train/tiny.jpg", None)]
    path = tmp_path / "verdicts.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    truth = {"train/a.jpg": "real", "train/b.jpg": "synthetic", "train/none.jpg": "real", "train/tiny.jpg": "real"}
    rows = read_judged(path, truth)
    # The largest face of a, b's only one; c is nobody's, and two have no judged face.
    assert [(row.synthetic, row.fake) for row in rows] == [(0.3, False), (0.9, True)]


def test_lines_of_refused_pictures_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    refused = json.dumps({"path": "train/a.jpg", "error": {"code": "BAD_PICTURE", "detail": "truncated"}})
    path.write_text(f"{refused}\n\n{verdict('train/a.jpg', 0.3)}\n", encoding="utf-8")
    assert len(read_judged(path, {"train/a.jpg": "real"})) == 1
    path.write_text("no JSON\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"verdicts\.jsonl"):
        read_judged(path, {"train/a.jpg": "real"})


def test_the_command_fits_fusion_and_says_what_is_missing(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = groups("calibrate", 20)
    rows = [
        {"path": f"{i}.jpg", "label": "real" if i % 2 else "synthetic", "split": "train", "group": group}
        for i, group in enumerate(held)
    ]
    manifest = write_manifest(tmp_path / "manifest.csv", rows)
    verdicts = tmp_path / "verdicts.jsonl"
    lines = [verdict(f"/x/{i}.jpg", (0.2 if i % 2 else 0.8) + (0.5 - i % 2) * (i % 3 == 0)) for i in range(20)]
    verdicts.write_text("\n".join(lines), encoding="utf-8")
    command = ["release", "--name", "r", "--repository", str(repository), "--verdicts", str(verdicts)]
    assert main([*command, "--truth", str(manifest)]) == 0
    told = json.loads((repository / "release.json").read_text(encoding="utf-8"))
    assert told["reference"]["real"][1] > 0.5 and sum(told["reference"]["synthetic"]) == pytest.approx(1.0)
    assert Release.parse(json.dumps(told).encode(), "").reference is not None
    assert told["report"]["pictures"] == 20 and told["fusion"] != {"slope": 1.0, "bias": 0.0}
    before = (repository / "release.json").read_bytes()
    capsys.readouterr()
    assert main(command) == 2
    assert "both kinds" in capsys.readouterr().err and (repository / "release.json").read_bytes() == before

"""`unmask-train release`: composes release.json from the cards of the repository, and fits fusion on judged pictures."""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from unmask.core.cards import RELEASE_SCHEMA, ROLES, Card, Fusion, Release, logit_of
from unmask_training.data.chips import part_of
from unmask_training.measuring.calibration import fit_calibration, reference_shares
from unmask_training.measuring.measures import Scored, calibration_error

# Below this side of a face box, in picture pixels, a view is mostly interpolation: training saw faces from about 70 px on.
MIN_FACE: Final = 40.0
# From here on a face is called wholly synthetic without asking where it was changed.
PLAINLY_SYNTHETIC: Final = 0.99


@dataclass(frozen=True, slots=True)
class Judged:
    """One picture's largest face as the models saw it, its verdict's label, and the truth in the manifest's word."""

    synthetic: float
    manipulated: float | None
    fake: bool
    label: str
    truth: str = ""


def newest_cards(repository: Path) -> dict[str, Card]:
    """The highest version of every role's model; raises `FileNotFoundError` naming the folder that has none."""
    cards = {}
    for role in ROLES:
        versions = sorted((p for p in (repository / role).glob("*/card.json")), key=lambda p: int(p.parent.name))
        if not versions:
            raise FileNotFoundError(f"{repository / role}: no <version>/card.json")
        text = versions[-1].read_bytes()
        cards[role] = Card.parse(text, hashlib.sha256(text).hexdigest(), str(versions[-1]))
    return cards


def compose(
    name: str,
    cards: Mapping[str, Card],
    fusion: Fusion,
    report: Mapping[str, Any],
    reference: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The release as JSON: exact versions, fusion, operating point from the cards, regression report, reference of scores."""
    detector, localizer = cards["detector"].thresholds, cards["localizer"].thresholds
    return {
        "schema": RELEASE_SCHEMA,
        "name": name,
        "models": {role: {"version": card.version, "sha256": card.sha256} for role, card in cards.items()},
        "fusion": {key: round(value, 4) for key, value in asdict(fusion).items()},
        "thresholds": {
            "synthetic_real": detector["real_below"],
            "synthetic": detector["synthetic_above"],
            # Its false alarms and doubts come on top of the detector's: a per cent of the one and of the other is its share.
            "manipulated_real": localizer["real_below"],
            "manipulated": localizer["manipulated_above"],
            "plainly_synthetic": PLAINLY_SYNTHETIC,
            "min_face": MIN_FACE,
            **{key: detector[key] for key in ("doubt", "synthetic_despite_doubt", "defence_gap") if key in detector},
        },
        "report": dict(report),
        **({"reference": dict(reference)} if reference else {}),
    }


def read_judged(verdicts: Path, truth: Mapping[str, str]) -> list[Judged]:
    """Pairs `unmask check --json` lines with the manifest's labels by the end of their path; others are left out."""
    rows = []
    for number, line in enumerate(verdicts.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            verdict = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{verdicts}: line {number} is not JSON ({error})") from error
        label = next((truth[key] for key in _tails(verdict["path"]) if key in truth), None)
        if label is None or not verdict.get("faces"):
            continue
        face = max(verdict["faces"], key=lambda f: (f["box"][2] - f["box"][0]) * (f["box"][3] - f["box"][1]))
        if face["synthetic"] is not None:
            rows.append(Judged(face["synthetic"], face["manipulated"], label != "real", verdict["label"], label))
    return rows


def calibration_truth(manifests: Iterable[Path]) -> dict[str, str]:
    """Label by path of the pictures that no model was fitted on, and that no figure is measured on either."""
    truth = {}
    for manifest in manifests:
        with manifest.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                groups = [row["group"], row.get("donor_group") or row["group"]]
                if all(part_of(row["split"], group) == "calibrate" for group in groups):
                    truth[row["path"]] = row["label"]
    return truth


def _tails(path: str) -> Iterable[str]:
    parts = Path(path).parts
    return ("/".join(parts[i:]) for i in range(len(parts)))


def fit_fusion(rows: list[Judged]) -> Fusion:
    """Slope and bias of the noisy or, by logistic regression at prior .5 (classes weighted alike)."""
    x = np.array([logit_of(_either(row)) for row in rows])
    y = np.array([row.fake for row in rows])
    if y.size == 0 or y.all() or not y.any():
        raise ValueError("fusion: needs judged pictures of both kinds, real and fake")
    fitted = fit_calibration(x, y)
    return Fusion(1.0 / fitted.temperature, fitted.bias)


def _either(row: Judged) -> float:
    return 1.0 - (1.0 - row.synthetic) * (1.0 - (row.manipulated or 0.0))


def report(rows: list[Judged], fusion: Fusion) -> dict[str, Any]:
    """What the fitted release says on the pictures that it was fitted on: a regression baseline, not a claim."""
    scores = np.array([fusion.score(row.synthetic, row.manipulated) for row in rows], dtype=np.float64)
    fake = np.array([row.fake for row in rows])
    called = np.array([row.label in {"synthetic", "manipulated"} for row in rows])
    real = np.array([row.label == "real" for row in rows])
    return {
        "pictures": len(rows),
        "fake_called_fake": round(float(called[fake].mean()), 4),
        "real_called_real": round(float(real[~fake].mean()), 4),
        "ece": round(calibration_error(scores, fake), 4),
    }


def reference_of(rows: list[Judged]) -> dict[str, Any] | None:
    """How the detector's scores lie on real and wholly generated faces, for serving to watch; None without both kinds."""
    known = [row for row in rows if row.truth in {"real", "synthetic"}]
    truth = np.array([row.truth for row in known])
    if set(truth) != {"real", "synthetic"}:
        return None
    return reference_shares(Scored(np.array([row.synthetic for row in known]), truth == "synthetic", truth, truth))


def run(args: argparse.Namespace) -> int:
    """Writes release.json and prints what it holds."""
    cards, fusion, figures, reference = newest_cards(args.repository), Fusion(), {}, None
    if args.verdicts is not None:
        rows = read_judged(args.verdicts, calibration_truth(args.truth))
        fusion = fit_fusion(rows)
        figures, reference = report(rows, fusion), reference_of(rows)
    text = (json.dumps(compose(args.name, cards, fusion, figures, reference), indent=2) + "\n").encode()
    Release.parse(text, "")
    (args.repository / "release.json").write_bytes(text)
    print(text.decode())
    return 0


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    parser = subparsers.add_parser("release", help="compose release.json from the newest cards; fit fusion on judged pictures")
    parser.add_argument("--name", required=True, help="the release's name")
    parser.add_argument("--repository", type=Path, required=True, help="model repository to read and write")
    parser.add_argument("--verdicts", type=Path, help="lines of `unmask check --json` over calibration pictures")
    parser.add_argument(
        "--truth",
        type=Path,
        nargs="+",
        default=[],
        help="their manifest.csv files; only pictures of the calibration part count, whatever else was judged",
    )
    parser.set_defaults(run=run)

"""The page: made of the figures alone, complete in itself, of the page's own ink."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.training.drawn_faces import prepared
from tests.training.tiny_detector import version2
from unmask_training.detector.evaluate import report
from unmask_training.measuring import plots
from unmask_training.measuring.evaluating import read_card
from unmask_training.measuring.report import alarms, page, text


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What an evaluation of a model that looks at the corners found."""
    folder = tmp_path_factory.mktemp("world")
    model = version2(folder / "models/detector/2", edge=True)
    data = prepared(folder / "data", each=6)
    found = report(model, read_card(model), data, "val", tiers=True, by=["licence"], preprocess="crop")
    return {**found, "command": "unmask-train evaluate detector/2 DATA"}


def test_the_page_is_complete_in_itself(figures: dict[str, Any]) -> None:
    html = page(figures)
    # Six plots of the figures, one of the column.
    assert html.count("<svg") == html.count("</svg>") == 7
    assert "currentColor" in html and plots.INK not in html
    # Nothing is loaded: no script, no link, no address but the names of XML's own spaces.
    assert not re.search(r"<(script|link|img|iframe)\b|url\((?!#)|@import", html)
    assert set(re.findall(r"https?://[^\"'\s<>]+", html)) <= {
        "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink", "http://purl.org/dc/elements/1.1/",
        "http://creativecommons.org/ns#", "http://www.w3.org/1999/02/22-rdf-syntax-ns#", "http://purl.org/dc/dcmitype/StillImage",
    }  # fmt: skip
    ids = re.findall(r'\bid="([^"]+)"', "".join(re.findall(r"<(?:clipPath|path|marker|linearGradient)\b[^>]*>", html)))
    assert ids and len(ids) == len(set(ids))


def test_the_page_says_what_was_found(figures: dict[str, Any]) -> None:
    html = page(figures)
    assert "Shortcut alarm" in html and "fakes: " in alarms(figures)[0]
    assert "balanced accuracy" in html and "recall at FPR 1 %" in html and "unsure from a doubt of 0.95" in html
    assert figures["model"]["sha256"] in html and figures["command"] in html
    assert "resized by 0.35 to 0.6, JPEG 30 to 50" in html


def test_names_from_data_are_escaped(figures: dict[str, Any]) -> None:
    clean = figures["tiers"]["clean"]
    evil = {**clean["by_kind"], "<b>gan</b>": clean["by_kind"]["gan"]}
    html = page({**figures, "tiers": {"clean": {**clean, "by_kind": evil}}})
    assert "<b>gan</b>" not in html and "&lt;b&gt;gan&lt;/b&gt;" in html


def test_a_model_of_one_output_has_a_page_too(figures: dict[str, Any]) -> None:
    clean = {key: figures["tiers"]["clean"][key] for key in ("delivery", "operating_point", "pooled", "by_kind", "curves")}
    doubt = {"risk_coverage": {"score": figures["tiers"]["clean"]["doubt"]["risk_coverage"]["score"]}}
    plain = {**figures, "tiers": {"clean": {**clean, "doubt": doubt}}, "by": {}}
    html = page(plain)
    assert html.count("<svg") == 5 and "Shortcut alarm" not in html and "evidence beside" not in html
    assert "| generator `gan` | 2 |" in text(plain)


def test_the_terminal_has_tiers_side_by_side(figures: dict[str, Any]) -> None:
    out = text(figures)
    assert "|  | clean | web | hard |" in out and "| same generator or not, AUC % |" in out and "| CC0 | 4 | 4 |" in out
    assert out.count("shortcut alarm: ") == len(alarms(figures)) > 0

"""Figures against answers worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from unmask_training.measuring.measures import (
    REAL,
    SYNTHETIC,
    UNSURE,
    Point,
    Scored,
    accuracy,
    auc,
    balanced,
    balanced_at,
    calibration_error,
    called,
    figure,
    figures,
    interval,
    joined,
    markdown,
    percentiles,
    pooled,
    recall_at,
    share_called,
    table,
    threshold_at,
    told,
)


def scored(real: Sequence[float], fake: Sequence[float], kinds: Sequence[str] = (), groups: Sequence[str] = ()) -> Scored:
    """Pictures by their scores; a kind and group each unless told."""
    score = np.array([*real, *fake], dtype=np.float64)
    truth = np.arange(len(score)) >= len(real)
    names = list(kinds) or ["photos"] * len(real) + ["gan"] * len(fake)
    return Scored(score, truth, np.array(names), np.array(list(groups) or [f"g{i}" for i in range(len(score))]))


def test_unsure_is_wrong() -> None:
    rows = scored([0.1, 0.5, 0.55, 0.9], [0.1, 0.5, 0.6, 0.9])
    # Right: real .1; fake .6 and .9 (at the threshold counts).  .5 and .55 lie in the band and are wrong for both.
    assert accuracy(rows, 0.5, 0.6) == pytest.approx(3 / 8)
    assert balanced(scored([0.1, 0.2, 0.3, 0.9], [0.9]), 0.5, 0.6) == pytest.approx((0.75 + 1.0) / 2)
    assert np.isnan(accuracy(rows.where(np.zeros(8, np.bool_)), 0.5, 0.6))


def test_auc_counts_ties_half() -> None:
    assert auc(scored([0.1, 0.2], [0.3, 0.4])) == 1.0
    assert auc(scored([0.3, 0.4], [0.1, 0.2])) == 0.0
    assert auc(scored([0.5, 0.5], [0.5])) == 0.5
    # Pairs (fake, real): (.5, .5) half, (.5, .1) won, (.2, .5) lost, (.2, .1) won.
    assert auc(scored([0.5, 0.1], [0.5, 0.2])) == pytest.approx(2.5 / 4)
    assert np.isnan(auc(scored([0.5], [])))
    rng = np.random.default_rng(0)
    many = scored(rng.integers(0, 9, 300) / 9, rng.integers(2, 11, 200) / 11)
    assert auc(many) == pytest.approx(roc_auc_score(many.fake, many.score))


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.1, 0.25, 0.5])
def test_threshold_keeps_its_rate_and_is_the_smallest(rate: float) -> None:
    rows = scored([i / 40 for i in range(40)], [0.5])
    threshold = threshold_at(rows, rate)
    real = rows.score[~rows.fake]
    assert (real >= threshold).mean() <= rate < (real >= np.nextafter(threshold, 0.0)).mean() + 1e-12
    assert (real >= np.nextafter(threshold, 0.0)).mean() >= rate


def test_threshold_among_ties_keeps_its_rate() -> None:
    rows = scored([0.1] * 5 + [0.7] * 5, [0.7, 0.8])
    assert threshold_at(rows, 0.2) > 0.7 and recall_at(rows, 0.2) == 0.5
    with pytest.raises(ValueError, match="no reals"):
        threshold_at(scored([], [0.5]), 0.01)


def test_calibration_error_has_the_known_value() -> None:
    # Two bins of equal count: scores of .2 where a quarter is fake, of .9 where three quarters are.
    score = np.array([0.2] * 4 + [0.9] * 4)
    fake = np.array([True, False, False, False, True, True, True, False])
    assert calibration_error(score, fake, bins=2) == pytest.approx(0.5 * 0.05 + 0.5 * 0.15)
    assert calibration_error(np.array([0.0, 1.0]), np.array([False, True]), bins=2) == 0.0
    assert calibration_error(np.array([1.0, 0.0]), np.array([False, True]), bins=2) == 1.0


def test_calibration_error_weighs_both_classes_alike() -> None:
    # 90 reals and 10 fakes at the same score of .5: at prior .5 that is exactly right.
    assert calibration_error(np.full(100, 0.5), np.arange(100) >= 90, bins=1) == pytest.approx(0.0)


def test_interval_goes_by_group() -> None:
    rng = np.random.default_rng(0)
    right = rng.random(40) < 0.7
    real = np.repeat(np.where(right, 0.1, 0.9), 10)
    alone = scored(real, [])
    together = scored(real, [], groups=[f"g{i // 10}" for i in range(400)])
    widths = [high - low for low, high in (interval(rows, lambda r: accuracy(r, 0.5, 0.6)) for rows in (alone, together))]
    # Ten copies of each of 40 pictures say no more than the 40 do: sqrt(10) times as wide.
    assert 2.5 < widths[1] / widths[0] < 4.0
    assert widths[1] == pytest.approx(2 * 1.96 * np.sqrt(0.7 * 0.3 / 40), rel=0.25)
    told = figure(together, lambda r: accuracy(r, 0.5, 0.6))
    assert told["low"] <= told["value"] <= told["high"] and told["n"] == 400


def test_interval_repeats() -> None:
    rows = scored([0.1, 0.2, 0.6, 0.3], [0.4, 0.8])
    assert interval(rows, auc) == interval(rows, auc)


def test_doubt_makes_unsure_unless_the_score_is_spared() -> None:
    rows = scored([0.1, 0.2, 0.5], [0.7, 0.9, 0.99])
    rows = Scored(rows.score, rows.fake, rows.kind, rows.group, np.array([0.1, 0.95, 0.0, 0.9, 0.95, 0.99]))
    assert called(rows, Point(0.4, 0.6)).tolist() == [REAL, REAL, UNSURE, SYNTHETIC, SYNTHETIC, SYNTHETIC]
    # At the limit counts as doubt.
    assert called(rows, Point(0.4, 0.6, 0.95)).tolist() == [REAL, UNSURE, UNSURE, SYNTHETIC, UNSURE, UNSURE]
    assert called(rows, Point(0.4, 0.6, 0.95, 0.99)).tolist() == [REAL, UNSURE, UNSURE, SYNTHETIC, UNSURE, SYNTHETIC]
    assert balanced_at(rows, Point(0.4, 0.6, 0.95)) == pytest.approx(1 / 3)
    assert share_called(rows.where(rows.fake), UNSURE, Point(0.4, 0.6, 0.95)) == pytest.approx(2 / 3)
    assert told(Point(0.4, 0.6)) == {"real_below": 0.4, "synthetic_above": 0.6}
    with pytest.raises(ValueError, match="the model gives no doubt"):
        called(scored([0.1], [0.9]), Point(0.4, 0.6, 0.95))


def test_figures_are_those_of_each_alone_and_leave_out_what_cannot_be() -> None:
    rng = np.random.default_rng(1)
    rows = scored(rng.random(30), rng.random(20) + 0.3, groups=[f"g{i // 3}" for i in range(50)])
    both = figures(rows, {"auc": auc, "accuracy": lambda r: accuracy(r, 0.4, 0.6)})
    assert both == {"auc": figure(rows, auc), "accuracy": figure(rows, lambda r: accuracy(r, 0.4, 0.6))}
    assert set(figures(rows.where(rows.fake), {"auc": auc, "right": lambda r: accuracy(r, 0.4, 0.6)})) == {"right"}


def test_draws_without_the_measure_do_not_count() -> None:
    assert percentiles([float("nan"), 1.0, 1.0]) == (1.0, 1.0)
    assert np.isnan(percentiles([float("nan")])).all()
    # With one real in three groups many draws have none: the interval is of those that do.
    low, high = interval(scored([0.2], [0.1, 0.9]), auc)
    assert (low, high) == (0.0, 1.0)


def test_table_keeps_soft_sources_out_of_the_pooled_figures() -> None:
    kinds = ["photos", "photos", "soft", "soft", "gan", "gan"]
    rows = scored([0.1, 0.2, 0.9, 0.95], [0.8, 0.3], kinds)
    found = table(rows, ["photos"], Point(0.5, 0.6))
    assert found["pooled"]["accuracy_on_reals"]["value"] == 1.0 and found["pooled"]["accuracy_on_reals"]["n"] == 2
    assert found["pooled"]["balanced_accuracy"]["value"] == 0.75
    assert found["pooled"]["fakes_called_real"]["value"] == 0.5 and found["pooled"]["reals_called_fake"]["value"] == 0.0
    soft, gan = found["by_kind"]["soft"], found["by_kind"]["gan"]
    assert soft["accuracy"]["value"] == 0.0 and soft["called_synthetic"]["value"] == 1.0 and "auc" not in soft
    assert gan["auc"]["value"] == 1.0 and gan["recall_at_fpr_0.01"]["value"] == 1.0 and gan["called_real"]["value"] == 0.5
    # A source of the pooled figures is held against all fakes.
    assert found["by_kind"]["photos"]["auc"] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 4}
    text = markdown(found)
    assert "| generator `gan` | 2 | 50.0 (" in text and "| real `soft` | 2 | 0.0 (0.0-0.0) | 0.0 |  |" in text
    assert "**balanced accuracy** | 4 | 75.0 (" in text


def test_pooled_figures_of_one_class_are_its_own_alone() -> None:
    rows = scored([0.1, 0.5], [])
    assert set(pooled(rows, Point(0.4, 0.6))) == {"accuracy_on_reals", "reals_called_fake", "unsure_on_reals"}


def test_joined_has_the_rows_of_both() -> None:
    one = scored([0.1], [0.9])
    assert len(joined(one, one).score) == 4 and joined(one, one).fake.tolist() == [False, True, False, True]

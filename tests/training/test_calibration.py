"""Calibration recovers what made the data; operating points keep what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from unmask.core.reading import Reader
from unmask.core.readouts import reference
from unmask_training.measuring.calibration import card_calibration, fit_calibration, operating_point, reference_shares
from unmask_training.measuring.measures import Scored, calibration_error


def logits(temperature: float, bias: float, count: int = 60_000) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Raw logits and truth such that p = sigmoid(logit / temperature + bias) is right at prior .5."""
    rng = np.random.default_rng(3)
    # Two normal classes at +-m, variance 2m, have the log-likelihood ratio x itself, at equal counts.
    truth = np.arange(count) % 2 == 1
    ratio = rng.normal(np.where(truth, 1.5, -1.5), np.sqrt(3.0))
    return (ratio - bias) * temperature, truth


@pytest.mark.parametrize(("temperature", "bias"), [(1.0, 0.0), (2.5, 0.4), (0.5, -0.8)])
def test_a_known_temperature_and_bias_come_back(temperature: float, bias: float) -> None:
    raw, truth = logits(temperature, bias)
    found = fit_calibration(raw, truth)
    assert found.temperature == pytest.approx(temperature, rel=0.04) and found.bias == pytest.approx(bias, abs=0.04)
    score = np.array([found.probability(value) for value in raw])
    assert calibration_error(score, truth) < 0.01


def test_the_classes_counts_do_not_move_the_bias() -> None:
    raw, truth = logits(1.0, 0.0)
    keep = ~truth | (np.arange(len(raw)) % 20 == 1)
    found = fit_calibration(raw[keep], truth[keep])
    assert found.bias == pytest.approx(0.0, abs=0.12)
    assert card_calibration(found) == {"temperature": found.temperature, "bias": found.bias}


def test_classes_that_nothing_mixes_still_give_a_temperature_to_divide_by() -> None:
    found = fit_calibration(np.array([-9.0, -8.0, 8.0, 9.0]), np.array([False, False, True, True]))
    assert found.temperature == 0.01 and found.probability(8.0) > 0.99 and found.probability(-8.0) < 0.01


@pytest.mark.parametrize("truth", [[True, True], [False, False]])
def test_one_class_cannot_be_calibrated(truth: list[bool]) -> None:
    with pytest.raises(ValueError, match="both classes"):
        fit_calibration(np.array([0.1, 0.2]), np.array(truth))


def test_separated_classes_stay_finite() -> None:
    found = fit_calibration(np.array([-3.0, -2.0, 2.0, 3.0]), np.array([False, False, True, True]))
    assert 0.0 < found.temperature < 10.0 and np.isfinite(found.bias)


def scored(real: NDArray[np.float64], fake: NDArray[np.float64]) -> Scored:
    """Scores of both classes."""
    score, truth = np.concatenate([real, fake]), np.arange(len(real) + len(fake)) >= len(real)
    return Scored(score, truth, np.full(len(score), "kind"), np.array([str(i) for i in range(len(score))]))


def test_an_operating_point_favours_the_reals() -> None:
    rng = np.random.default_rng(1)
    rows = scored(rng.beta(2, 5, 2000), rng.beta(5, 2, 2000))
    point = operating_point(rows)
    real, fake = rows.score[~rows.fake], rows.score[rows.fake]
    assert 0.0 < point["real_below"] < point["synthetic_above"] < 1.0
    assert (real < point["synthetic_above"]).mean() >= (fake >= point["synthetic_above"]).mean() + 0.045
    for rate in (0.01, 0.02, 0.05, 0.1):
        assert (real >= point[f"fpr_{rate:g}"]).mean() <= rate + 1 / 2000
    assert point["fpr_0.01"] > point["fpr_0.1"]


def test_an_operating_point_of_a_perfect_and_of_a_useless_detector() -> None:
    perfect = operating_point(scored(np.full(50, 0.02), np.full(50, 0.98)))
    assert 0.0 < perfect["real_below"] <= perfect["synthetic_above"] <= 0.98
    useless = operating_point(scored(np.linspace(0, 1, 100), np.linspace(0, 1, 100)))
    assert 0.45 < useless["synthetic_above"] < 0.6


def test_reference_shares_are_what_a_card_may_state_and_prometheus_would_count() -> None:
    scores = np.array([0.0, 0.1, 0.1000001, 0.35, 1.0, 0.95, 0.9, 1.0])
    fake = np.array([False, False, False, False, True, True, True, True])
    names = np.array(["x"] * 8)
    told = reference_shares(Scored(scores, fake, names, names))
    # 0.1 lies in the bucket le="0.1", what is above it in the next one.
    assert told["real"] == [0.5, 0.25, 0.0, 0.25, *[0.0] * 6]
    assert told["synthetic"] == [*[0.0] * 8, 0.25, 0.75]
    found = reference(Reader("card.json: reference", told))
    assert found is not None and found.bins[-1] == 1.0

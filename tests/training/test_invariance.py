"""A head that pays for telling real sources apart finds what fakes share, where a plain one takes a source's look."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unmask_training.tower.invariance import Shrinking
from unmask_training.tower.probe import Probe


def world(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, truth, kind: two real sources; fakes look as the second one (axis 0), with a trace of their own (axis 1)."""
    rng = np.random.default_rng(seed)
    kind = np.arange(count) % 3
    features = rng.normal(size=(count, 12)).astype(np.float32)
    features[:, 0] += np.array([-3.0, 3.0, 3.0])[kind]
    features[:, 1] += np.array([-0.8, -0.8, 0.8])[kind]
    return features, kind == 2, kind


def test_the_shrunk_fit_pays_the_penalty_that_is_stated() -> None:
    features, fake, kind = world(3000, 0)
    shrinking = Shrinking.of(features, fake, kind, 30.0)
    assert len(shrinking.basis) == 2
    w = np.random.default_rng(1).normal(size=(1, 12)).astype(np.float32)
    sources = np.stack([features[kind == name].mean(axis=0) for name in (0, 1)])
    difference = sources - sources.mean(axis=0)
    # |w'|^2 of the head on shrunk features, where w = shrink(w'), is |w|^2 + strength * sum (w d)^2.
    found = shrinking(w)[0]
    paid = float((found**2).sum() + 30.0 * ((difference @ found) ** 2).sum())
    assert paid == pytest.approx(float((w**2).sum()), rel=1e-3)


def test_a_probe_leaves_the_look_of_a_source_for_the_trace_of_a_generator() -> None:
    features, fake, kind = world(3000, 0)
    weight = np.ones(len(fake))
    new_source = world(3000, 1)[0]
    new_source[:, 0] += 3.0  # photographs that look even more as the fakes' source does
    new_source[:, 1] -= 0.8
    alarms = []
    for invariance in (0.0, 30.0):
        probe = Probe(12, 3)
        probe.fit(features, fake, kind, weight, l2=1e-3, invariance=invariance)
        with torch.no_grad():
            logits, new = (probe(torch.from_numpy(rows))[0].numpy() for rows in (features, new_source[kind != 2]))
        alarms.append(float((new > np.median(logits[fake])).mean()))
        assert logits[fake].mean() > logits[~fake].mean() + 1.0
    assert alarms[1] < 0.5 * alarms[0], alarms


def test_one_source_and_no_strength_change_nothing() -> None:
    features, fake, kind = world(60, 2)
    for shrinking in (Shrinking.of(features, fake, np.where(fake, kind, 0), 30.0), Shrinking.of(features, fake, kind, 0.0)):
        np.testing.assert_array_equal(shrinking(features), features)

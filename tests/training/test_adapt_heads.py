"""Heads over features: they learn the new and keep the old, by a convex loss; the gate says what may be lost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.training import adapt_world
from unmask.core.readouts import DoubtMap
from unmask_training.adaptation.gate import FAKES, REALS, Gate, Regression, judge, mcnemar, path_table
from unmask_training.adaptation.heads import Floats, Readout, Replay, fit_family, fit_head, kind_weights
from unmask_training.adaptation.learn import PATH, New, Task, crossfits, folds, learn, new_line
from unmask_training.adaptation.memory import Memory
from unmask_training.adaptation.methods import METHODS
from unmask_training.adaptation.operating import Operating
from unmask_training.measuring.measures import Point
from unmask_training.tower.prototypes import PrototypeHead

WIDTH = 12
POINT = Operating("mean", 1.0, 0.0, Point(0.45, 0.55))
NONE = np.zeros((0, WIDTH), np.float32)


def cloud(centre: dict[int, float], count: int, seed: int) -> np.ndarray:
    """Features (count, 2, WIDTH) about a centre given by coordinate; the blurred view a little off."""
    rng = np.random.default_rng(seed)
    mean = np.zeros(WIDTH)
    for axis, value in centre.items():
        mean[axis] = value
    plain = rng.normal(size=(count, WIDTH)) + mean
    return np.stack([plain, plain + rng.normal(0.0, 0.1, plain.shape)], axis=1).astype(np.float32)


def world(each: int = 90) -> Memory:
    """Two real sources and two generators, told apart along the first coordinate."""
    parts, kinds = [], ("photos", "portraits", "gan", "diffusion")
    for number, centre in enumerate(({0: -4.0}, {0: -4.0, 2: 1.0}, {0: 4.0}, {0: 4.0, 3: 1.0})):
        parts.append(cloud(centre, each, number))
    kind = np.repeat(np.arange(4), each)
    part = np.tile(np.arange(each) % 3, 4)
    features = np.concatenate(parts).astype(np.float16)
    return Memory(features, kind >= 2, kind.astype(np.int16), np.arange(4 * each, dtype=np.int32), part.astype(np.uint8), kinds)


def first(memory: Memory) -> Readout:
    """A readout fitted on the memory."""
    return adapt_world.fitted(memory, WIDTH)


def unseen(count: int, seed: int = 50) -> np.ndarray:
    """A generator that the head takes for real: it differs along a coordinate of its own."""
    return cloud({0: -4.0, 1: 9.0}, count, seed)


def task(count: int = 12, memory: Memory | None = None) -> Task:
    """All that learning needs; two noisy views of each sample."""
    memory, plain = memory or world(), unseen(count)
    views = plain[:, None] + np.random.default_rng(9).normal(0.0, 0.2, (count, 2, 2, WIDTH)).astype(np.float32)
    return Task.of(memory, first(memory), POINT, New("new", plain, views), 1)


def right(readout: Readout, features: np.ndarray, fake: bool) -> float:
    """Share called what it is."""
    return float(POINT.right(readout, features, np.full(len(features), fake)).mean())


def test_a_prototype_brings_the_new_and_keeps_the_old() -> None:
    memory = world()
    old = first(memory)
    new = replace(old, prototypes=old.prototypes.learning(unseen(12)[:, 0], -2.0))
    assert right(old, unseen(200, 51), True) < 0.1 and right(new, unseen(200, 51), True) > 0.9
    for kind in range(4):
        rows = memory.features[memory.kind == kind]
        assert right(new, rows, kind >= 2) >= right(old, rows, kind >= 2) - 0.03


def test_a_learned_prototype_only_raises_and_a_second_one_stays_beside_it() -> None:
    memory, other = world(), cloud({0: -4.0, 5: 9.0}, 12, 60)
    old = first(memory)
    one = replace(old, prototypes=old.prototypes.learning(unseen(12)[:, 0], -2.0))
    two = replace(one, prototypes=one.prototypes.learning(other[:, 0], -2.0))
    assert len(one.prototypes.learned) == 1 and len(two.prototypes.learned) == 2
    assert (one(memory.features) >= old(memory.features) - 1e-9).all()
    assert right(one, other, True) < 0.1 and right(two, other, True) > 0.9 and right(two, unseen(100, 52), True) > 0.9


def test_strange_is_what_no_prototype_explains_better_than_the_mean_of_all() -> None:
    memory, strangers = world(), cloud({1: 9.0}, 62, 54)
    old = first(memory)
    known = memory.features.astype(np.float32)
    after = replace(old, prototypes=old.prototypes.learning(strangers[:12, 0], -2.0))
    assert np.median(old.distance(strangers[12:])) > np.quantile(old.distance(known), 0.95)
    assert np.median(after.distance(strangers[12:])) < np.quantile(old.distance(known), 0.5)
    assert (after.distance(known) <= old.distance(known) + 1e-9).all()


def test_own_reals_become_a_real_source() -> None:
    memory, own = world(), cloud({0: 1.0, 4: 8.0}, 40, 70)
    old = first(memory)
    trusting = replace(old, prototypes=old.prototypes.trusting(own[:20, 0]))
    assert old(own[20:]).mean() > trusting(own[20:]).mean() + 0.1


def test_the_layer_computes_what_the_numbers_say() -> None:
    memory = world()
    readout = first(memory)
    readout = replace(readout, prototypes=readout.prototypes.learning(unseen(12)[:, 0], -1.0))
    layer, features = PrototypeHead(WIDTH), memory.features.astype(np.float32)
    for name in ("real", "fake", "learned", "rises", "mixing"):
        setattr(layer, name, torch.from_numpy(getattr(readout.prototypes, name)))
    evidence = layer.evidence(torch.from_numpy(features))
    logits = layer.raised(torch.from_numpy(readout.head(features)).float(), evidence)
    np.testing.assert_allclose(logits.numpy(), readout(features), atol=1e-3)
    np.testing.assert_allclose(layer.distance(evidence).numpy()[:, 0], readout.distance(features), atol=1e-3)


def test_a_stronger_pull_moves_known_logits_less() -> None:
    memory = world()
    old, replay = first(memory), Replay.of(memory)
    steps = [fit_head(replay, unseen(12).reshape(-1, WIDTH), old, strength) for strength in (0.01, 1.0, 100.0)]
    moved = [float(np.abs(step(memory.features)).mean()) for step in steps]
    assert moved[0] > 2 * moved[1] > 4 * moved[2], moved


def test_without_new_samples_a_fitted_head_hardly_moves() -> None:
    memory = world()
    again = fit_head(Replay.of(memory), NONE, first(memory), 10.0)
    assert np.abs(again(memory.features)).max() < 0.5


def test_the_same_input_gives_the_same_head() -> None:
    replay, old = Replay.of(world()), first(world())
    one, other = (fit_head(replay, unseen(12).reshape(-1, WIDTH), old) for _ in range(2))
    np.testing.assert_array_equal(one.weight, other.weight)
    assert one.bias == other.bias


def test_weights_are_half_on_each_class_and_follow_the_root_of_sizes() -> None:
    kind = np.array(["photos"] * 90 + ["portraits"] * 10 + ["gan"] * 40)
    fake = kind == "gan"
    weight = kind_weights(fake, kind)
    assert weight[fake].sum() == pytest.approx(0.5) and weight[~fake].sum() == pytest.approx(0.5)
    assert weight[:90].sum() / weight[90:100].sum() == pytest.approx(3.0)


def test_a_memory_of_one_class_is_refused() -> None:
    memory = world()
    with pytest.raises(ValueError, match="both real and synthetic"):
        Replay.of(memory.where(memory.fake))
    with pytest.raises(ValueError, match="held-out rows"):
        Regression.of(memory.where(memory.fake), first(memory), POINT)


def test_a_new_row_of_the_family_head_takes_its_own_and_leaves_the_others() -> None:
    memory = world()
    replay = Replay.of(memory)
    axes = np.zeros((2, WIDTH))
    axes[1, 3], axes[0, 3] = 2.0, -2.0  # gan, diffusion
    present = (axes, np.array([1.0, -1.0]))
    row = fit_family(replay, unseen(12).reshape(-1, WIDTH), present, "new")

    def called(features: np.ndarray) -> np.ndarray:
        plain = features[:, 0].astype(np.float64)
        return np.concatenate([plain @ axes.T + present[1], row(plain)[:, None]], axis=1).argmax(axis=1)

    assert (called(unseen(100, 52)) == 2).mean() > 0.9
    assert (called(memory.features[memory.fake]) == 2).mean() < 0.05


def test_folds_hold_every_sample_out_once() -> None:
    for count in (1, 2, 5, 12):
        parts = folds(count, 3)
        assert sorted(np.concatenate(parts).tolist()) == list(range(count)) and len(parts) == min(count, 5)


def test_cross_fitted_scores_are_of_heads_that_did_not_see_the_sample() -> None:
    given = task(6)
    for part, gain in crossfits(given):
        seen = np.setdiff1d(np.arange(6), part)
        np.testing.assert_allclose(gain.logits(-2.0), given.fit(seen, -2.0)(given.new.plain[part]), atol=1e-4)


def test_learning_passes_the_gate_and_gains() -> None:
    found = learn(task())
    line = found.gate.line(new_line("new"))
    assert found.gate.broken == () and (line.before, line.n) == (0, 12) and line.after >= 10
    assert len(found.path) == len(PATH) and found.is_held_out


def test_a_single_sample_is_learned_but_not_held_out() -> None:
    found = learn(task(1))
    assert not found.is_held_out and found.gate.line(new_line("new")).after == 1


def test_doubt_makes_unsure_what_is_far_unless_spared() -> None:
    doubting = replace(POINT, point=Point(0.45, 0.55, 0.9, 0.99), doubt=DoubtMap((0.0, 10.0), (0.0, 1.0)))
    scores, distance = logits([0.1, 0.1, 0.8, 0.8, 0.999]), np.array([1.0, 9.5, 1.0, 9.5, 9.5])
    assert doubting.verdicts(scores, distance).tolist() == [0, -1, 1, -1, 1]
    assert POINT.verdicts(scores, distance).tolist() == [0, 0, 1, 1, 1]


def planted(count: int) -> Task:
    """A real source of which `count` held-out pictures lie where the new generator is, unlike those to fit on."""
    memory = world()
    rows = np.flatnonzero((memory.kind == 1) & memory.held_out)[:count]
    features = memory.features.copy()
    features[rows] = unseen(len(rows), 77).astype(np.float16)
    return task(memory=Memory(features, memory.fake, memory.kind, memory.group, memory.part, memory.kinds))


def test_a_planted_regression_breaks_the_gate_whatever_the_bias() -> None:
    found = learn(planted(40))
    assert len(found.path) > 1 and all(gate.broken for _, gate in found.path)
    said = " ".join(found.gate.broken)
    assert "reals: " in said and "points lost" in said and "real portraits: " in said
    assert "BROKEN" in found.gate.table() and found.bias == found.path[0][0]
    assert "holds" not in path_table(found.path, new_line("new"))


def test_the_bias_is_lowered_until_the_gate_holds() -> None:
    """Some reals lie on the way to the samples: a bias that takes all in between for fake costs reals."""
    memory = world()
    given = task(memory=memory)
    rows = np.flatnonzero((memory.kind == 0) & memory.held_out)[:6]
    features = memory.features.copy()
    features[rows] = cloud({0: -4.0, 1: 4.5}, 6, 5).astype(np.float16)
    near = Memory(features, memory.fake, memory.kind, memory.group, memory.part, memory.kinds)
    found = learn(task(memory=near))
    assert len(found.path) > 1 and found.path[0][1].broken and not found.gate.broken
    assert found.bias < found.path[0][0] and len(given.new) == 12


def logits(scores: list[float]) -> Floats:
    """Pairs of logits, plain and blurred alike, of these scores."""
    values = np.log(np.array(scores) / (1 - np.array(scores)))
    return np.stack([values, values], axis=1)


def judged(
    fake: list[bool], kind: list[str], before: list[bool], after: list[bool], new: tuple[list[bool], list[bool]]
) -> Gate:
    """The gate of pictures that were and are called rightly or not."""
    scores, count = np.where(fake, 0.9, 0.1), len(fake)
    known = Regression(np.zeros((count, 2, 1), np.float32), np.array(fake), np.array(kind), np.array(before), scores)
    return judge(known, np.array(after), scores, ("new x", np.array(new[0]), np.array(new[1])))


GAINS = ([False], [True])


def test_unsure_counts_as_wrong_and_both_views_count() -> None:
    assert POINT.verdicts(logits([0.5, 0.6, 0.4])).tolist() == [-1, 1, 0]
    pair = np.array([[3.0, -3.0], [3.0, 1.0]])
    assert POINT.verdicts(pair).tolist() == [-1, 1]


def test_pooled_reals_may_lose_half_a_point_and_no_more() -> None:
    fake = [False] * 400 + [True] * 400
    kind = ["photos"] * 200 + ["portraits"] * 200 + ["gan"] * 400
    for lost, breaks in ((2, False), (3, True)):
        gate = judged(fake, kind, [True] * 800, [False] * lost + [True] * (800 - lost), GAINS)
        assert bool(gate.broken) == breaks
        assert gate.line(REALS).lost == lost and gate.line(FAKES).lost == 0
        assert not breaks or gate.broken[0].startswith(f"{REALS}: 0.75 points lost (3 of 400 net)")


def test_a_kind_may_lose_two_pictures_or_two_points() -> None:
    """Losses are made good elsewhere, so that the pooled figures hold."""
    fake = [False] * 100 + [True] * 400
    kind = ["photos"] * 100 + ["gan"] * 20 + ["diffusion"] * 380
    before = [True] * 120 + [False] * 10 + [True] * 370
    for lost, breaks in ((2, False), (3, True)):
        gate = judged(fake, kind, before, [True] * 100 + [False] * lost + [True] * (400 - lost), GAINS)
        assert bool(gate.broken) == breaks and gate.line(FAKES).won == 10
        assert not breaks or gate.broken == ("generator gan: 3 pictures lost net (15.0 points)",)


def test_the_new_generator_must_gain() -> None:
    fake, kind, right = [False] * 4 + [True] * 4, ["photos"] * 4 + ["gan"] * 4, [True] * 8
    broken = judged(fake, kind, right, right, ([True, False], [True, False])).broken
    assert broken == ("new x: 1 of 2 called fake before, 1 after: no gain",)
    assert judged(fake, kind, right, right, ([True, True], [True, True])).broken == ()
    assert judged(fake, kind, right, right, ([True, True], [True, False])).broken != ()


def test_soft_sources_are_not_pooled_but_held_by_themselves() -> None:
    fake, kind = [False] * 200 + [True] * 100, ["photos"] * 100 + ["lfw"] * 100 + ["gan"] * 100
    gate = judged(fake, kind, [True] * 300, [True] * 100 + [False] * 3 + [True] * 197, GAINS)
    assert gate.line(REALS).n == 100 and gate.line(REALS).lost == 0
    assert gate.broken == ("real lfw: 3 pictures lost net (3.0 points)",)


def test_the_paired_test_is_exact() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(1, 9) == pytest.approx(2 * 11 / 1024)
    assert mcnemar(9, 1) == mcnemar(1, 9) and mcnemar(5, 5) == 1.0


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_learns_the_new(name: str) -> None:
    memory = world()
    old = first(memory)
    fit, knobs = METHODS[name]
    scorer = fit(Replay.of(memory), unseen(12).reshape(-1, WIDTH), old, -2.0 if name == "prototype" else knobs[0])
    assert (POINT.verdicts(old(unseen(100, 53))) == 1).mean() < 0.1
    assert (POINT.verdicts(scorer(unseen(100, 53))) == 1).mean() > 0.7
    held = memory.where(memory.held_out)
    features = held.features.astype(np.float32)
    after, before = ((POINT.verdicts(score(features)) == held.fake).mean() for score in (scorer, old))
    assert after > before - 0.05

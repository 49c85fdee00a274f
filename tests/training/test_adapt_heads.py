"""Heads over features: they learn the new and keep the old, by a convex loss; the gate says what may be lost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from unmask.core.readouts import DoubtMap
from unmask_training.adaptation.gate import FAKES, REALS, Gate, Regression, judge, mcnemar, path_table
from unmask_training.adaptation.heads import Floats, Head, Readout, Replay, fit_family, fit_head, kind_weights
from unmask_training.adaptation.learn import New, Task, crossfitted, folds, learn, new_line
from unmask_training.adaptation.memory import Memory
from unmask_training.adaptation.methods import METHODS
from unmask_training.adaptation.operating import Operating
from unmask_training.measuring.measures import Point

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


def first_head(memory: Memory) -> Head:
    """A head fitted on the memory."""
    return fit_head(Replay.of(memory), NONE, Head(np.zeros(WIDTH), 0.0))


def unseen(count: int, seed: int = 50) -> np.ndarray:
    """A generator that the head takes for real: it differs along a coordinate of its own."""
    return cloud({0: -4.0, 1: 9.0}, count, seed)


def task(count: int = 12, memory: Memory | None = None) -> Task:
    """All that learning needs; two noisy views of each sample."""
    memory, plain = memory or world(), unseen(count)
    views = plain[:, None] + np.random.default_rng(9).normal(0.0, 0.2, (count, 2, 2, WIDTH)).astype(np.float32)
    return Task.of(memory, Readout(first_head(memory)), POINT, New("new", plain, views), 1)


def right(head: Head, features: np.ndarray, fake: bool) -> float:
    """Share called what it is."""
    return float(POINT.right(Readout(head), features, np.full(len(features), fake)).mean())


def test_a_head_learns_the_new_and_keeps_the_old() -> None:
    memory = world()
    old, replay = first_head(memory), Replay.of(memory)
    new = fit_head(replay, unseen(12).reshape(-1, WIDTH), old)
    assert right(old, unseen(200, 51), True) < 0.1 and right(new, unseen(200, 51), True) > 0.9
    for kind in range(4):
        rows = memory.features[memory.kind == kind]
        assert right(new, rows, kind >= 2) >= right(old, rows, kind >= 2) - 0.03


def test_a_stronger_pull_moves_known_logits_less() -> None:
    memory = world()
    old, replay = first_head(memory), Replay.of(memory)
    moved = []
    for strength in (0.01, 1.0, 100.0):
        head = fit_head(replay, unseen(12).reshape(-1, WIDTH), old, strength)
        moved.append(float(np.abs(head(memory.features) - old(memory.features)).mean()))
    assert moved[0] > 2 * moved[1] > 4 * moved[2], moved


def test_without_new_samples_a_fitted_head_hardly_moves() -> None:
    memory = world()
    old = first_head(memory)
    again = fit_head(Replay.of(memory), NONE, old, 10.0)
    assert np.abs(again(memory.features) - old(memory.features)).max() < 0.5


def test_the_same_input_gives_the_same_head() -> None:
    replay, old = Replay.of(world()), first_head(world())
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
        Regression.of(memory.where(memory.fake), Readout(first_head(memory)), POINT)


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
    found = crossfitted(given, 0.01)
    part = folds(6, 1)[0]
    seen = np.setdiff1d(np.arange(6), part)
    alone = given.fit(seen, 0.01)
    np.testing.assert_array_equal(found[part], POINT.right(alone, given.new.plain[part], np.ones(len(part), np.bool_)))


def test_learning_passes_the_gate_and_gains() -> None:
    found = learn(task())
    line = found.gate.line(new_line("new"))
    assert found.gate.broken == () and (line.before, line.n) == (0, 12) and line.after >= 10
    assert len(found.path) == 1 and found.is_held_out


def test_a_single_sample_is_learned_but_not_held_out() -> None:
    found = learn(task(1))
    assert not found.is_held_out and found.gate.line(new_line("new")).after == 1


def test_the_bias_is_moved_back_to_where_neither_class_loses() -> None:
    given = task()
    anchor, head = given.anchor, given.readout.head
    assert anchor.kept == (60, 60) and given.anchor.held(given.readout, POINT).head.bias == head.bias
    for shift in (1.4, -1.4):
        off = Readout(Head(head.weight, head.bias + 3.0 * shift))
        right = POINT.right(off, anchor.features, anchor.fake)
        back = anchor.held(off, POINT)
        assert right.sum() < POINT.right(back, anchor.features, anchor.fake).sum()
        assert (back.head.bias - off.head.bias) * shift < 0


def test_prototypes_bring_the_new_near_and_leave_the_known_as_near() -> None:
    memory = world()
    known = memory.features.astype(np.float32)
    present = Readout(first_head(memory), known[::10, 0].copy())
    found = present.knowing(unseen(12), 1)
    assert found.prototypes is not None and len(found.prototypes) == len(known[::10]) + 4
    before, after = present.distance(unseen(50, 54)), found.distance(unseen(50, 54))
    assert before is not None and after is not None and np.median(after) < 0.6 * np.median(before)
    assert (np.asarray(found.distance(known)) <= np.asarray(present.distance(known))).all()
    assert Readout(present.head).knowing(unseen(12), 1).distance(known) is None


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


def test_a_planted_regression_breaks_the_gate_whatever_the_pull() -> None:
    found = learn(planted(40))
    assert len(found.path) > 1 and all(gate.broken for _, gate in found.path)
    said = " ".join(found.gate.broken)
    assert "reals: " in said and "points lost" in said and "real portraits: " in said
    assert "BROKEN" in found.gate.table() and found.strength == found.path[0][0]
    assert path_table(found.path, new_line("new")).count("breaks") == len(found.path)


def test_the_pull_is_made_stronger_until_the_gate_holds() -> None:
    """Half the samples are far out, half so near to reals that only a weak pull reaches them, which costs reals."""
    memory = world()
    given = task(memory=memory)
    rows = np.flatnonzero((memory.kind == 0) & memory.held_out)[:6]
    features = memory.features.copy()
    features[rows] = cloud({0: -4.0, 1: 4.5}, 6, 5).astype(np.float16)
    near = Memory(features, memory.fake, memory.kind, memory.group, memory.part, memory.kinds)
    found = learn(task(memory=near))
    assert len(found.path) > 1 and found.path[0][1].broken and not found.gate.broken
    assert found.strength > found.path[0][0] and len(given.new) == 12


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
    old = first_head(memory)
    scorer = METHODS[name](Replay.of(memory), unseen(12).reshape(-1, WIDTH), old, 0.01)
    assert (POINT.verdicts(old(unseen(100, 53))) == 1).mean() < 0.1
    assert (POINT.verdicts(scorer(unseen(100, 53))) == 1).mean() > 0.7
    held = memory.where(memory.held_out)
    features = held.features.astype(np.float32)
    after, before = ((POINT.verdicts(score(features)) == held.fake).mean() for score in (scorer, old))
    assert after > before - 0.05

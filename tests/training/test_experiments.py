"""Experiments: they really train, find what they should on made-up data, go on where they were cut off, and refuse by name."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from tests.training.drawn_faces import REALS, prepared, recipe
from tests.training.tiny_tower import raw_tower
from unmask_training import trunks
from unmask_training.data.augment import Ranges
from unmask_training.data.chips import INDEX, Chips
from unmask_training.experiments import curves, heads, leave_one_out, matrix, runs
from unmask_training.experiments.corpus import families, open_corpus
from unmask_training.experiments.features import Store
from unmask_training.experiments.judging import Judging, distances, find_point
from unmask_training.experiments.runs import Task, run
from unmask_training.experiments.settings import Setup, set_up

EACH = 16
ALL = ("diffusion", "gan", "other")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data in miniature: whole groups to each part, and a third generator with the second one's pictures."""
    folder = prepared(tmp_path_factory.mktemp("data"), each=EACH, side=64)
    entries = [json.loads(line) for line in (folder / INDEX).read_text().splitlines()]
    entries += [
        entry | {"path": f"other-{entry['path']}", "kind": "other"} for entry in entries if entry["kind"] == "diffusion"
    ]
    for number, entry in enumerate(entries):
        group = number % EACH // 2
        entry |= {"group": f"{entry['kind']}{group}", "part": ("fit", "calibrate", "val", "fit")[group % 4]}
    (folder / INDEX).write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small net's weights, drawn at random: enough to see colours by."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "cnn.pth"
    torch.save(trunks.build("cnn").state_dict(), path)
    return path


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe for 32 px."""
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe(steps=3, recipe="cnn")), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that several commands share, with the runs and features of those before."""
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def common(data: Path, weights: Path, config: Path) -> list[object]:
    """Options of every command but --out."""
    return ["--data", data, "--weights", weights, "--recipe", config, "--views", 1]


def parsed(*arguments: object) -> argparse.Namespace:
    """What the command line gives."""
    top = argparse.ArgumentParser()
    verbs = top.add_subparsers(required=True)
    for module in (matrix, leave_one_out, curves):
        module.add_parser(verbs)
    return top.parse_args([str(argument) for argument in arguments])


def command(*arguments: object) -> int:
    """Runs a command."""
    args = parsed(*arguments)
    code: int = args.run(args)
    return code


def setup_of(out: Path, common: list[object], *more: object) -> Setup:
    """The set-up of a command."""
    return set_up(parsed("matrix", "--out", out, *common, *more))


def test_a_matrix_has_every_generator_and_all(out: Path, common: list[object], capsys: pytest.CaptureFixture[str]) -> None:
    assert command("matrix", "--out", out, *common) == 0
    printed = capsys.readouterr().out
    rows = json.loads((out / "matrix.json").read_text())["rows"]
    assert set(rows) == {*ALL, "all"} and all(set(row["tests"]) == set(ALL) for row in rows.values())
    # Fakes are greener than reals here, whatever they are called: one generator teaches the other.
    assert rows["gan"]["tests"]["diffusion"]["accuracy"]["value"] >= 0.8 and rows["gan"]["real"]["value"] >= 0.8
    assert (
        "| all |" in printed and "Protocol `frozen`" in printed and "arXiv:2406.17547" in printed and "WARNING" not in printed
    )
    page = (out / "matrix.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 2 and "http://" not in page and 'src="http' not in page
    assert (out / "matrix-accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_leaving_out_trains_without_and_tests_on_every_picture(out: Path, common: list[object]) -> None:
    assert command("leave-one-out", "--out", out, *common, "--what", "generator", "--families", "pair=gan,other") == 0
    rows = json.loads((out / "leave-one-out-generator.json").read_text())["rows"]
    assert set(rows) == set(ALL) and [row["sibling"] for row in rows.values()] == [False, True, True]
    for name, row in rows.items():
        assert row["kinds"] == [name] and name not in row["facts"]["generators"] and row["left_out"]["fake"]["n"] == EACH
        assert row["left_out"]["fake"]["value"] + row["left_out"]["unsure"]["value"] + row["left_out"]["real"]["value"] == (
            pytest.approx(1.0, abs=1e-3)
        )
        assert row["left_out"]["thresholds"]["fake"]["value"] >= 0.8 and row["judging"]["doubt"] > 0.0


def test_leaving_a_source_out(tmp_path: Path, common: list[object], capsys: pytest.CaptureFixture[str]) -> None:
    assert command("leave-one-out", "--out", tmp_path, *common, "--what", "source", "--only", "photos", "--doubt", 0) == 0
    (name, row), *more = json.loads((tmp_path / "leave-one-out-source.json").read_text())["rows"].items()
    assert name == "photos" and not more and row["facts"]["sources"] == ["portraits"]
    assert row["judging"]["doubt"] is None and row["left_out"] | {"thresholds": 0} == row["left_out"]["thresholds"] | {
        "thresholds": 0
    }
    assert row["left_out"]["real"]["value"] >= 0.8
    assert "| photos |" in capsys.readouterr().out


def test_a_family_is_left_out_whole(out: Path, common: list[object]) -> None:
    assert command("leave-one-out", "--out", out, *common, "--what", "family", "--families", "pair=gan,other") == 0
    rows = json.loads((out / "leave-one-out-family.json").read_text())["rows"]
    assert set(rows) == {"pair"} and rows["pair"]["facts"]["generators"] == ["diffusion"]
    assert set(rows["pair"]["members"]) == {"gan", "other"} and not rows["pair"]["sibling"]


def test_a_curve_against_samples(out: Path, common: list[object], capsys: pytest.CaptureFixture[str]) -> None:
    told = ["--left-out", "gan", "--counts", "1,4,14", "--draws", 2]
    assert command("curves", "--out", out, *common, *told) == 0
    found = json.loads((out / "curves-gan.json").read_text())
    assert list(found["counts"]) == ["0", "1", "4"] and [len(row["draws"]) for row in found["counts"].values()] == [1, 2, 2]
    assert found["counts"]["4"]["new"]["mean"] >= 0.8 and found["counts"]["0"]["new"]["std"] == 0.0
    printed = capsys.readouterr().out
    assert "too few pictures would be left to test on: 14 samples" in printed and "84.1 %" in printed


def test_the_full_protocol_trains_the_network_and_says_the_full_command(
    tmp_path: Path, common: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    told = ["--what", "generator", "--only", "gan", "--protocol", "full", "--steps", 2, "--limit", 12]
    assert command("leave-one-out", "--out", tmp_path, *common, *told) == 0
    row = json.loads((tmp_path / "leave-one-out-generator.json").read_text())["rows"]["gan"]
    assert row["facts"]["steps"] == 2 and row["facts"]["start"]["kind"] == "imagenet" and row["left_out"]["fake"]["n"] == 12
    (checkpoint,) = tmp_path.glob("runs/*/detector.pt")
    state = torch.load(checkpoint, weights_only=True)
    assert state["families"] == ["diffusion", "other"] and set(state["recipe"]["real"]) == set(REALS)
    printed = capsys.readouterr().out
    assert (
        "--protocol full --recipe tiny.yaml --weights FILE --doubt 0.03 --seed 1`" in printed
        and "at most 12 pictures" in printed
    )
    assert command("curves", "--out", tmp_path, *common, *told[4:], "--left-out", "gan", "--counts", "2", "--draws", 1) == 0


def test_a_run_is_done_once(tmp_path: Path, common: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    setup, task = setup_of(tmp_path, common), Task(REALS, ("gan",))
    first = run(setup, task)
    with monkeypatch.context() as patch:
        patch.setattr(runs, "_frozen", lambda *_: pytest.fail("computed again"))
        again = run(setup_of(tmp_path, common), task)
    assert np.array_equal(first.logits, again.logits) and first.judging == again.judging and first.facts == again.facts
    assert np.array_equal(first.head.weight, again.head.weight)


def test_features_go_on_where_they_were_cut_off(tmp_path: Path, common: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    setup, task = setup_of(tmp_path, common), Task(REALS, ("gan",))
    store, rows = runs.store_of(setup, task), list(setup.corpus.rows)
    whole = [store.get(rows, view) for view in (0, 1)]
    for path in sorted(tmp_path.glob("features/*/*.npz"))[1:]:
        path.unlink()
    (next(tmp_path.glob("features/*")) / "0-dead.writing").write_bytes(b"torn")
    computed: list[int] = []
    compute = Store._compute
    monkeypatch.setattr(Store, "_compute", lambda self, some, view: (computed.append(len(some)), compute(self, some, view))[1])
    again = runs.store_of(setup, task)
    assert all(np.array_equal(again.get(rows, view), whole[view]) for view in (0, 1))
    assert sum(computed) == len(rows), "one view was kept, the other computed again"


def test_views_of_a_picture_do_not_depend_on_the_others(tmp_path: Path, common: list[object]) -> None:
    setup = setup_of(tmp_path / "a", common)
    rows = list(setup.corpus.rows)
    whole = runs.store_of(setup, Task(REALS, ("gan",))).get(rows, 1)
    other = setup_of(tmp_path / "b", common)
    alone = runs.store_of(other, Task(REALS, ("gan",))).get(rows[5:6], 1)
    assert np.allclose(alone[0], whole[5], atol=2e-2)


def test_no_group_is_both_learnt_from_and_tested(tmp_path: Path, common: list[object]) -> None:
    setup = setup_of(tmp_path, common)
    task = Task(REALS, ("gan",), wide=True)
    tested = runs.tested(setup, task)
    learnt = {row.group for row in setup.corpus.of(task.kinds, ("fit", "calibrate"))}
    assert not learnt & {row.group for row in tested}
    assert sum(row.kind == "diffusion" for row in tested) == EACH
    shared = [replace(row, group="gan0") if row.kind == "diffusion" else row for row in setup.corpus.rows]
    crossing = replace(setup, corpus=replace(setup.corpus, rows=tuple(shared)))
    assert {row.kind for row in runs.tested(crossing, task)} == {*REALS, "gan", "other"}
    assert all(row.part == "val" for row in runs.tested(setup, Task(REALS, ("gan",))))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["matrix", "--generators", "gan,dall_e"], "--generators dall_e: not in the data; there are diffusion, gan, other"),
        (["matrix", "--generators", "gan"], "at least two generators"),
        (["leave-one-out", "--what", "generator", "--only", "gone"], "--only gone: not in the data"),
        (["leave-one-out", "--what", "family"], "no family known of diffusion, gan, other"),
        (["leave-one-out", "--what", "family", "--families", "x="], "needs NAME=GENERATOR"),
        (["leave-one-out", "--what", "family", "--families", "x=gone"], "family x: generator gone: not in the data"),
        (["leave-one-out", "--what", "family", "--families", "x=gan,diffusion,other"], "none would be left to train on"),
        (["curves", "--left-out", "photos"], "--left-out photos: not in the data; there are diffusion, gan, other"),
        (["curves", "--left-out", "gan", "--draws", "0"], "--draws must be at least 1"),
        (["matrix", "--views=-1"], "--views, --limit and --seed must be at least 0"),
        (["matrix", "--doubt", "1"], "a share from 0 to below 1"),
        (["matrix", "--trunk", "alexnet"], "trunk 'alexnet' is unknown"),
    ],
)
def test_what_is_wrong_is_refused_by_name(tmp_path: Path, common: list[object], arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        command(arguments[0], "--out", tmp_path, *common, *arguments[1:])
    assert not (tmp_path / "runs").exists()


def test_weights_are_needed_and_must_be_weights(tmp_path: Path, data: Path, config: Path) -> None:
    with pytest.raises(ValueError, match="--protocol frozen needs --weights"):
        command("matrix", "--data", data, "--out", tmp_path)
    with pytest.raises(ValueError, match="no weights there"):
        command("matrix", "--data", data, "--out", tmp_path, "--weights", tmp_path / "none.pth")
    with pytest.raises(ValueError, match="not a file of weights"):
        command("matrix", "--data", data, "--out", tmp_path, "--weights", config)


@pytest.mark.parametrize(
    ("text", "message"), [("real: [a]", "real: expected names"), ("- a", "not a recipe"), ("a: [", "not YAML")]
)
def test_a_recipe_that_is_none_is_refused(tmp_path: Path, data: Path, weights: Path, text: str, message: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        command("matrix", "--data", data, "--out", tmp_path, "--weights", weights, "--recipe", tmp_path / "bad.yaml")


def test_a_folder_of_other_settings_is_refused(tmp_path: Path, common: list[object]) -> None:
    setup_of(tmp_path, common)
    with pytest.raises(ValueError, match="holds runs with another data, limit, recipe, seed;"):
        setup_of(tmp_path, common, "--seed", 2, "--limit", 12)
    setup_of(tmp_path, common)


def test_a_trunk_that_saw_what_is_left_out_is_said_loudly(
    tmp_path: Path, common: list[object], data: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(setup_of(tmp_path / "full", common, "--protocol", "full", "--steps", 1), Task(REALS, ("gan",)))
    (checkpoint,) = tmp_path.glob("full/runs/*/detector.pt")
    told = ["--data", data, "--recipe", config, "--views", 1, "--weights", checkpoint, "--what", "generator"]
    assert command("leave-one-out", "--out", tmp_path / "out", *told) == 0
    printed = capsys.readouterr().out
    assert "**WARNING: the starting weights were, or may have been, trained on gan:" in printed
    assert "| gan (SEEN by the trunk) |" in printed and "| diffusion |" in printed
    assert 'class="alarm"' in (tmp_path / "out/leave-one-out-generator.html").read_text(encoding="utf-8")


def test_a_slice_keeps_so_many_of_each_kind(tmp_path: Path, data: Path) -> None:
    corpus = open_corpus(data, tmp_path, limit=5)
    assert [len(corpus.of((kind,))) for kind in (*REALS, *ALL)] == [5] * 5
    same = open_corpus(data, tmp_path, limit=5)
    assert same.fingerprint == corpus.fingerprint != open_corpus(data, tmp_path).fingerprint
    row = corpus.rows[0]
    whole = next(other for other in Chips(data).rows if other.path == row.path)
    assert np.array_equal(corpus.chips.chip(row).pixels, Chips(data).chip(whole).pixels)
    assert families(corpus, ["one=gan"]) == {"one": ("gan",)}


def test_weights_hide_kind_and_size() -> None:
    rng = np.random.default_rng(0)
    ranges = Ranges(face=(20.0, 100.0), p_sharp=0.0)
    fake = np.arange(600) % 2 == 0
    kind = np.where(fake, np.where(np.arange(600) % 20 == 0, "rare", "common"), "photos")
    # Fakes are smaller; a class must not be told by that.
    faces = np.where(fake, rng.uniform(20, 60, 600), rng.uniform(20, 100, 600))
    found = heads.weights(fake, kind, {}, faces, ranges)
    assert found.mean() == pytest.approx(1.0) and found[fake].sum() == pytest.approx(found[~fake].sum())
    small = faces < 40
    assert np.average(small[fake], weights=found[fake]) == pytest.approx(
        np.average(small[~fake], weights=found[~fake]), abs=0.05
    )
    assert not found[faces > 80].any(), "sizes that only reals have"
    plain = heads.weights(fake, kind, {"rare": 3.0, "common": 1.0})
    assert plain[kind == "rare"].sum() == pytest.approx(3.0 * plain[kind == "common"].sum())


def test_strength_and_scores_come_from_groups_held_out() -> None:
    rng = np.random.default_rng(1)
    # Every group has a signature of its own: whoever learns it, is right on it and on nothing else.
    group = np.repeat(np.arange(60), 4).astype(str)
    fake = np.repeat(rng.random(60) < 0.5, 4)
    signature = np.repeat(rng.normal(0, 1, (60, 200)), 4, axis=0)
    made = heads.Examples(signature.astype(np.float32), fake, np.where(fake, "gan", "photos"), group, np.ones(240))
    strength, held, losses = heads.choose(made, made, 0)
    assert held is not None and ((held > 0) == fake).mean() < 0.7 and len(losses) == len(heads.STRENGTHS)
    fitted = heads.fit_head(made, 1.0)
    assert ((fitted(made.features) > 0) == fake).mean() > 0.95
    assert strength <= 1e-2
    one = made.where(group == group[0])
    assert heads.choose(one, one, 0)[1] is None


def test_without_held_out_scores_the_threshold_is_a_half(tmp_path: Path, data: Path) -> None:
    rows = open_corpus(data, tmp_path).of((*REALS, *ALL))
    assert find_point(None, rows, "x") == Judging(how="threshold .5, not calibrated: too few pictures to hold any out")
    logits = np.array([2.0 if row.label == "synthetic" else -2.0 for row in rows])
    logits[::7] *= -1.0
    found = find_point(logits, rows, "held out")
    assert found.how == "held out" and 0.0 < found.real_below < found.fake_from < 1.0


def test_a_strange_face_is_farther_than_all_known() -> None:
    rng = np.random.default_rng(2)
    bank = rng.normal(0, 0.1, (40, 8)).astype(np.float32) + np.eye(8, dtype=np.float32)[0]
    groups = [str(i) for i in range(40)]
    known = distances(bank, groups, bank, groups)
    (strange,) = distances(np.eye(8, dtype=np.float32)[1:2], ["new"], bank, groups)
    assert strange > known.max() and known.min() > 0.0, "no face is its own neighbour"


def test_the_tower_stands_in_for_a_trunk_and_is_not_trained(
    data: Path, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "tower.onnx"
    weights.write_bytes(raw_tower())
    told = ["--data", data, "--recipe", config, "--size", 64, "--trunk", "clip_vit_b16", "--weights", weights, "--views", 1]
    out = tmp_path / "out"
    assert command("leave-one-out", "--out", out, *told, "--what", "generator", "--only", "gan") == 0
    row = json.loads((out / "leave-one-out-generator.json").read_text())["rows"]["gan"]
    assert row["left_out"]["fake"]["n"] == EACH and "clip_vit_b16 stays as it came" in capsys.readouterr().out
    with np.load(next((out / "features").glob("*/1-*.npz"))) as kept:
        assert kept["features"].shape[1] == 7 * 768
    with pytest.raises(ValueError, match="--trunk clip_vit_b16: only --protocol frozen is there for it"):
        command("leave-one-out", "--out", tmp_path / "full", *told, "--what", "generator", "--protocol", "full")

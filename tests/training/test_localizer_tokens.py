"""The localizer on the tower's tokens: the seam, kept tokens, a short fit, its export, engines left out."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import yaml

from tests.training.test_localizer import prepared
from tests.training.tiny_tower import SIZE, raw_tower
from unmask.core.cards import Card
from unmask.core.errors import BadModel
from unmask.core.masks import regions_of
from unmask.core.vit_trunk import PIXELS, TOKEN_BLOCKS, TOKENS, WIDTH, joined, tower
from unmask_training.cli import main
from unmask_training.localizer.export import run as export_command
from unmask_training.localizer.samples import PHOTOSHOP, Delivery, Sampler
from unmask_training.localizer.tokens import fit as fit_module
from unmask_training.localizer.tokens import samples
from unmask_training.localizer.tokens.fit import fit, fitted, learned, load
from unmask_training.localizer.tokens.network import planar
from unmask_training.localizer.tokens.recipe import NAME, TokenRecipe
from unmask_training.localizer.tokens.samples import Material, Reduction, Shards, coverage, make, normalised
from unmask_training.localizer.tokens.unseen import GROUPS, leave_out
from unmask_training.tower.parts import measure, pixels_of, positions_at

RAW = raw_tower()
SHARD = 24


def told(**changes: object) -> dict[str, Any]:
    """A recipe that a test can run."""
    shares = {"prepared": 2.0, "made": 1.0, "real": 1.0}
    recipe: dict[str, Any] = {"recipe": NAME, "size": SIZE, "samples": 2 * SHARD, "measured": 3, "width": 16}
    return recipe | {"epochs": 60, "batch": 16, "warmup": 5, "seed": 3, "shares": shares} | changes


@pytest.fixture(autouse=True, scope="module")
def _small_shards() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "SHARD", SHARD)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data, with twins and doctored faces of two engines in the part that figures are made on."""
    folder = prepared(tmp_path_factory.mktemp("data"))
    rows = [json.loads(line) for line in (folder / "regions.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows):
        row["engine"] = ("local_resample", "splice_feather")[number % 2]
    again = [row | {"part": "val", "path": f"val-{row['path']}"} for row in rows]
    lines = "".join(json.dumps(row) + "\n" for row in [*rows, *again])
    (folder / "regions.jsonl").write_text(lines, encoding="utf-8")
    chips = [json.loads(line) for line in (folder / "index.jsonl").read_text().splitlines()]
    chips += [row | {"part": "val", "path": f"val-{row['path']}"} for row in chips]
    splice = {"label": "manipulated", "kind": PHOTOSHOP, "extra": {"regions": "nose|mouth"}}
    chips += [chips[0] | splice | {"part": part, "path": f"{part}-expert.jpg"} for part in ("fit", "val")]
    (folder / "index.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chips), encoding="utf-8")
    (folder / "tower.onnx").write_bytes(RAW)
    return folder


@pytest.fixture(scope="module")
def checkpoint(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fitted localizer."""
    return fit(told(), data, tmp_path_factory.mktemp("run"), data / "tower.onnx", False)


def test_the_seam_gives_every_patch_of_five_blocks() -> None:
    rng = np.random.default_rng(0)
    views = rng.integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    graph = tower(RAW, positions_at(RAW, SIZE), seam=TOKENS)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (tokens,) = session.run([TOKENS], {PIXELS: pixels_of(views)})
    assert tokens.shape == (3, (SIZE // 16) ** 2, WIDTH * len(TOKEN_BLOCKS))
    # What is behind the last block is cut off: a graph of ten blocks is smaller than one of twelve.
    assert len(graph) < 0.9 * len(tower(RAW, positions_at(RAW, SIZE)))
    # A patch changed in one corner moves its own token more than the opposite one's.
    views[0, :16, :16] = 255 - views[0, :16, :16]
    (moved,) = session.run([TOKENS], {PIXELS: pixels_of(views)})
    change = np.abs(moved[0] - tokens[0])[:, :WIDTH].mean(axis=1)
    assert change[0] == change.max() > 2 * change[-1]


def test_a_face_is_scored_alone_whatever_is_beside_it() -> None:
    rng = np.random.default_rng(1)
    views = rng.integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)
    session = measure(RAW, SIZE, views).session(RAW, seam=TOKENS)
    together = session.run([TOKENS], {PIXELS: pixels_of(views)})[0]
    alone = session.run([TOKENS], {PIXELS: pixels_of(views[2:3])})[0]
    np.testing.assert_allclose(together[2:3], alone, atol=1e-4)


def test_a_gap_of_neither_kind_is_refused() -> None:
    positions = positions_at(RAW, SIZE)
    with pytest.raises(BadModel, match="holds no tower/positions"):
        joined(RAW, tower(RAW, positions, seam=TOKENS))


def test_the_reduction_whitens_and_torch_reduces_alike(checkpoint: Path) -> None:
    rng = np.random.default_rng(2)
    rows = normalised(rng.normal(2.0, 3.0, (400, WIDTH * len(TOKEN_BLOCKS))).astype(np.float32))
    assert abs(float(rows[0, :WIDTH].mean())) < 1e-5 and abs(float(rows[0, :WIDTH].std()) - 1.0) < 1e-3
    reduction = Reduction.of(rows, 8)
    found = (rows - reduction.mean) @ reduction.matrix
    np.testing.assert_allclose(np.cov(found.T), np.eye(8), atol=0.02)
    with pytest.raises(ValueError, match="400 tokens give no 500 components"):
        Reduction.of(rows, 500)
    model, _ = load(checkpoint)
    tokens = rng.normal(0.0, 20.0, (2, 16, WIDTH * len(TOKEN_BLOCKS))).astype(np.float32)
    kept = Reduction(model.mean.numpy(), model.matrix.numpy())
    with torch.no_grad():
        reduced = model.reduced(torch.from_numpy(tokens)).numpy()
    np.testing.assert_allclose(reduced, kept(tokens), rtol=5e-3, atol=5e-3)


def test_cells_say_how_much_of_them_is_covered() -> None:
    mask = np.zeros((16, 16), np.bool_)
    mask[:4, :6] = True
    np.testing.assert_array_equal(coverage(mask)[0], [255, 128, 0, 0])
    assert coverage(mask)[1:].max() == 0


def test_shards_are_drawn_once_and_are_a_function_of_the_seed(data: Path, tmp_path: Path) -> None:
    recipe = TokenRecipe.of(told())
    sampler = Sampler(data, recipe.shares, "fit", Delivery())
    for name in ("one", "two"):
        make(recipe, sampler, Material.of(recipe, sampler, RAW, tmp_path / name), tmp_path / name)
    one, two = (Shards(tmp_path / name, recipe.samples) for name in ("one", "two"))
    assert len(one) == 2 * SHARD and set(one.kind) == {"prepared", "made", "real"}
    assert set(one.engine[one.kind == "real"]) == {""} and "" not in set(one.engine[one.doctored])
    numbers = np.array([0, SHARD, 2 * SHARD - 1])
    np.testing.assert_array_equal(one.tokens(numbers), two.tokens(numbers))
    np.testing.assert_array_equal(one.views(numbers), two.views(numbers))
    assert not np.array_equal(one.tokens(numbers[:1]), one.tokens(numbers[1:2]))
    # A shard that was cut off has no labels, and is made again alone.
    (tmp_path / "one/0001.npz").unlink()
    (tmp_path / "one/0001.npy").write_bytes(b"half")
    with pytest.raises(ValueError, match="1 of 2 shards are missing"):
        Shards(tmp_path / "one", recipe.samples)
    before = (tmp_path / "one/0000.npz").stat().st_mtime_ns
    make(recipe, sampler, Material.of(recipe, sampler, RAW, tmp_path / "one"), tmp_path / "one")
    assert (tmp_path / "one/0000.npz").stat().st_mtime_ns == before
    np.testing.assert_array_equal(Shards(tmp_path / "one", recipe.samples).tokens(numbers), two.tokens(numbers))
    (tmp_path / "one/0001.views.npy").unlink()
    with pytest.raises(ValueError, match="1 of 2 shards are missing"):
        Shards(tmp_path / "one", recipe.samples)
    for other in (replace(recipe, seed=4), replace(recipe, delivery=Delivery(p_blur=0.5))):
        with pytest.raises(ValueError, match="drawn by other settings"):
            Material.of(other, sampler, RAW, tmp_path / "one")


def test_a_fit_is_its_seed_and_needs_leave_to_begin_again(data: Path, checkpoint: Path) -> None:
    run = checkpoint.parent
    with pytest.raises(ValueError, match="--resume goes on with its kept tokens"):
        fit(told(), data, run, data / "tower.onnx", False)
    before, _ = load(checkpoint)
    again, _ = load(fit(told(), data, run, data / "tower.onnx", True))
    for name, value in before.state_dict().items():
        torch.testing.assert_close(value, again.state_dict()[name], rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="unmask models fetch clip_vit_b16"):
        fit(told(), data, run, data / "none.onnx", True)
    with pytest.raises(ValueError, match="not a checkpoint of clip_vit_b16-seg"):
        torch.save({"recipe": {"recipe": "unet"}}, run / "other.pt")
        load(run / "other.pt")


def test_a_fit_that_is_cut_off_goes_on_where_it_was(
    data: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(checkpoint.parent / "tokens", tmp_path / "tokens")
    (whole, _), keep = load(checkpoint), fit_module._Fit.keep

    def cut(self: Any, kept: Path, epoch: int) -> None:
        keep(self, kept, epoch)
        if epoch == 40:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fit_module._Fit, "keep", cut)
        fit(told(), data, tmp_path, data / "tower.onnx", False)
    with pytest.raises(ValueError, match=r"epochs\.pt: begun with other settings"):
        fit(told(epochs=80), data, tmp_path, data / "tower.onnx", False)
    again, _ = load(fit(told(), data, tmp_path, data / "tower.onnx", False))
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(value, again.state_dict()[name], rtol=1e-3, atol=1e-4)
    assert not (tmp_path / "epochs.pt").exists()


def test_engines_are_left_out_of_the_fit(data: Path, checkpoint: Path) -> None:
    recipe = TokenRecipe.of(told(without=["local_resample", "splice_feather"]))
    shards = Shards(checkpoint.parent / "tokens", recipe.samples)
    kept = learned(recipe, shards)
    assert 0 < len(kept) < len(shards)
    assert not {"local_resample", "splice_feather"} & set(shards.engine[kept])
    assert set(learned(replace(recipe, without=()), shards)) == set(range(len(shards)))


@pytest.fixture(scope="module")
def version(data: Path, checkpoint: Path) -> Path:
    """The exported version folder."""
    repository = checkpoint.parent / "models"
    options = ["--repository", str(repository), "--data", str(data), "--config", "tiny.yaml", "--version", "2"]
    given = ["export-localizer", str(checkpoint), *options, "--weights", str(data / "tower.onnx"), "--note", "a remark"]
    assert main(given) == 0
    return repository / "localizer/2"


def test_the_export_is_one_graph_that_its_own_and_the_tower_make(data: Path, version: Path) -> None:
    text = (version / "card.json").read_bytes()
    card = Card.parse(text, "", "card.json")
    assert card.task == "regions" and [spec.name for spec in card.outputs] == ["heat", "score"]
    own, whole = (version / "own.onnx").read_bytes(), (version / "model.onnx").read_bytes()
    assert joined(RAW, own) == whole
    assert set(card.files) == {"model.onnx", "own.onnx", "weights.safetensors"}
    told_of = json.loads(text)
    assert told_of["training"]["command"].endswith("--weights FILE") and "a remark" in told_of["notes"]
    assert {"face_score", "region_score", "heat_level", "real_below", "manipulated_above"} <= set(card.thresholds)
    views = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(whole, providers=["CPUExecutionProvider"])
    heat, score = session.run(["heat", "score"], {"image": views})
    assert heat.shape == (3, SIZE // 4, SIZE // 4) and score.shape == (3,) and 0.0 <= heat.min() <= heat.max() <= 1.0
    regions_of({"heat": heat[0], "score": score[0]}, SIZE, score_threshold=0.0)


def test_what_was_learned_is_hot_where_it_was_doctored(checkpoint: Path) -> None:
    model, state = load(checkpoint)
    shards = Shards(checkpoint.parent / "tokens", state["recipe"]["samples"])
    numbers = np.arange(len(shards))
    with torch.no_grad():
        cells, faces = model.head(torch.from_numpy(shards.tokens(numbers)), planar(torch.from_numpy(shards.views(numbers))))
    heat, truth = cells.sigmoid().numpy(), shards.cover > 128
    assert heat[truth].mean() > 0.6 and heat[~truth].mean() < 0.3
    scores = faces.sigmoid().numpy()
    assert scores[shards.doctored].mean() > 0.7 and scores[~shards.doctored].mean() < 0.3


def test_a_tower_that_it_was_not_fitted_on_is_refused(
    data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["export-localizer", str(checkpoint), "--repository", str(tmp_path), "--data", str(data), "--config", "tiny.yaml"]
    assert main(given) == 2 and "--weights FILE" in capsys.readouterr().err
    (tmp_path / "other.onnx").write_bytes(raw_tower(1))
    assert main([*given, "--weights", str(tmp_path / "other.onnx")]) == 2
    assert "not the tower's file that the checkpoint was fitted with" in capsys.readouterr().err
    assert export_command.__module__ == "unmask_training.localizer.export"


def test_leaving_engines_out_tells_seen_from_unseen(data: Path, checkpoint: Path, tmp_path: Path) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(told(epochs=2)), encoding="utf-8")
    run = tmp_path / "run"
    shutil.copytree(checkpoint.parent / "tokens", run / "tokens")
    options = ["--config", str(config), "--data", str(data), "--out", str(run), "--weights", str(data / "tower.onnx")]
    assert (
        main(["leave-engine-out", *options, "--json", str(tmp_path / "found.json"), "--only", "local_resample", PHOTOSHOP]) == 0
    )
    found = json.loads((tmp_path / "found.json").read_text())
    assert set(found) == {"local_resample", PHOTOSHOP} and set(found["local_resample"]) == {"unseen", "seen"}
    # Of expert splices no mask is known: what can be said is whether they are found.
    expert = found[PHOTOSHOP]["unseen"]
    assert (expert["map50"]["value"], expert["pixel_f1"]["value"]) == (None, None) and expert["auc"]["value"] is not None
    told_of = found["local_resample"]["unseen"]
    assert {"map50", "pixel_f1", "found", "auc", "false_alarms"} <= set(told_of) and told_of["found"]["n"] == 6
    with pytest.raises(ValueError, match="--only: unknown nothing"):
        leave_out(TokenRecipe.of(told()), data, run, RAW, ["nothing"])
    assert len({engine for engines in GROUPS.values() for engine in engines}) == sum(map(len, GROUPS.values()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"minutes": 3}, "unknown minutes"),
        ({"size": 100}, "size must be a multiple of 16"),
        ({"samples": 0}, "samples must be a whole number"),
        ({"margin": 0}, "margin must be a positive number"),
        ({"shares": {}}, "needs `shares:`"),
        ({"delivery": {"fax": 1}}, "delivery: unknown fax"),
    ],
)
def test_a_wrong_recipe_is_refused_by_key(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TokenRecipe.of(told(**changes))


@pytest.mark.parametrize(("text", "message"), [("recipe: [", "not YAML"), ("", "needs the settings of a localizer")])
def test_a_file_that_holds_no_settings_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    options = ["--config", str(tmp_path / "c.yaml"), "--data", str(tmp_path), "--out", str(tmp_path)]
    assert main(["leave-engine-out", *options]) == 2
    told_of = capsys.readouterr().err
    assert "c.yaml" in told_of and message in told_of


def test_the_shipped_recipe_reads() -> None:
    path = Path(__file__).parents[2] / "training/configs/localizer_tower.yaml"
    recipe = TokenRecipe.of(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert recipe.size == 256 and fitted.__doc__ is not None

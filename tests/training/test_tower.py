"""The tower: cut, measured, requantised so that no face depends on its neighbours; fitted and exported as one graph."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from numpy.typing import NDArray
from safetensors.torch import load_file

from tests.training.drawn_faces import GENERATORS, REALS, prepared
from tests.training.tiny_tower import SIZE, raw_tower
from unmask.core.cards import Card
from unmask.core.errors import BadModel
from unmask.core.golden import golden_pictures
from unmask.core.vit_quantise import products_of
from unmask.core.vit_trunk import FEATURES, LEVELS, PIXELS, WIDTH, joined, tower
from unmask_training.cli import main
from unmask_training.detector.blur import gaussian
from unmask_training.tower import fit as fitting
from unmask_training.tower.export import export, load_network, write_own
from unmask_training.tower.network import TowerDetector
from unmask_training.tower.parts import measure, pixels_of, positions_at
from unmask_training.tower.recipe import TowerRecipe

RAW = raw_tower()


def views(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Made-up pictures."""
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3)).astype(np.uint8)


def run(graph: bytes, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """The tower's features."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return np.asarray(session.run([FEATURES], {PIXELS: pixels})[0])


def test_requantised_features_are_near_the_float_ones_and_blind_to_the_batch() -> None:
    parts = measure(RAW, SIZE, views(8))
    whole, plain = tower(RAW, *parts.all()), tower(RAW, parts.positions)
    pixels = pixels_of(views(6, seed=1))
    served, floats = run(whole, pixels), run(plain, pixels)
    assert served.shape == (6, WIDTH * len(LEVELS))
    assert np.corrcoef(served.ravel(), floats.ravel())[0, 1] > 0.999
    alone = np.concatenate([run(whole, pixels[i : i + 1]) for i in range(6)])
    np.testing.assert_allclose(served, alone, atol=1e-5)
    assert len(products_of(plain)) == len(parts.ranges) == 12 and not products_of(whole)


def test_position_embeddings_are_interpolated_and_their_own_size_is_kept() -> None:
    own = positions_at(RAW, 224)
    assert own.shape == (197, WIDTH) and positions_at(RAW, SIZE).shape == (17, WIDTH)
    np.testing.assert_allclose(positions_at(RAW, SIZE)[0], own[0])
    # A bicubic shrink keeps the mean of smooth embeddings nearly.
    np.testing.assert_allclose(positions_at(RAW, 208)[1:].mean(), own[1:].mean(), atol=1e-3)
    for size in (60, 32):
        with pytest.raises(ValueError, match="multiples of 16"):
            positions_at(RAW, size)


def test_graphs_that_are_no_tower_are_refused_by_name() -> None:
    positions = positions_at(RAW, SIZE)
    with pytest.raises(BadModel, match="not an ONNX model"):
        tower(b"no graph", positions)
    with pytest.raises(BadModel, match="pixel_values"):
        tower(tower(RAW, positions), positions)
    with pytest.raises(BadModel, match="position embeddings"):
        tower(RAW, positions[:, :5])
    with pytest.raises(BadModel, match="12 groups"):
        tower(RAW, positions, np.zeros(0, dtype=np.float32), np.ones(3, dtype=np.float32), np.zeros((48, 2), dtype=np.float32))
    cut = onnx.load_model_from_string(RAW)
    del cut.graph.node[-2:]
    with pytest.raises(BadModel, match="block 11"):
        tower(cut.SerializeToString(), positions)


def told(root: Path, **changes: object) -> dict[str, Any]:
    """A recipe that a test can run, with a small network of `prepared` families beside."""
    recipe: dict[str, Any] = {"recipe": "clip_vit_b16", "beside": str(root), "size": SIZE, "copies": 1, "measured": 3}
    recipe |= {"real": list(REALS), "synthetic": list(GENERATORS), "seed": 3, "shrinkage": 9.0}
    return recipe | {"augment": {"face": [24.0, 48.0], "sharp": [40.0, 48.0]}} | changes


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version folder of a small network, as far as it is read."""
    from safetensors.torch import save_file

    from unmask_training.detector.network import Detector

    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("beside")
    network = Detector(GENERATORS)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, folder / "weights.safetensors")
    (folder / "card.json").write_text(json.dumps({"classes": list(GENERATORS), "input": {"size": SIZE}}), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory, beside: Path) -> Path:
    """A tower detector, fitted and exported."""
    folder = tmp_path_factory.mktemp("tower")
    (folder / "tower.onnx").write_bytes(RAW)
    data, config = prepared(folder / "data", each=24), folder / "tiny.yaml"
    config.write_text(yaml.safe_dump(told(beside), sort_keys=False), encoding="utf-8")
    path = fitting.fit(told(beside), data, folder / "run", folder / "tower.onnx", False)
    export(path, folder / "models/detector/2", data, config, folder / "tower.onnx", ["a note"])
    return folder / "models/detector/2"


def test_a_fit_learns_and_is_exported_as_one_graph_with_all_that_a_card_promises(version: Path) -> None:
    card = Card.parse((version / "card.json").read_bytes(), "")
    assert card.defence and card.doubt and card.open_set and set(card.files) >= {"own.onnx", "memory.safetensors"}
    session = onnxruntime.InferenceSession(str(version / "model.onnx"), providers=["CPUExecutionProvider"])
    assert {output.name for output in session.get_outputs()} == {output.name for output in card.outputs}
    found = dict(zip((o.name for o in session.get_outputs()), session.run(None, {"image": golden_pictures(SIZE)}), strict=True))
    np.testing.assert_allclose(found["synthetic"], (found["plain"] + found["blurred"]) / 2.0, atol=1e-4)
    np.testing.assert_allclose(found["cam"].mean(axis=(1, 2)), found["plain"], atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(found["embedding"], axis=1), 1.0, atol=1e-5)
    metrics = json.loads((version / "card.json").read_text(encoding="utf-8"))["metrics"]["pooled"]
    assert metrics["auc"]["value"] > 0.9, metrics


def test_the_same_parts_give_the_same_graph(version: Path) -> None:
    assert joined(RAW, (version / "own.onnx").read_bytes()) == (version / "model.onnx").read_bytes()
    with pytest.raises(BadModel, match="holds no tower/positions"):
        joined(RAW, tower(RAW, positions_at(RAW, SIZE)))


def test_heads_keep_their_names_in_the_graph(version: Path) -> None:
    graph = onnx.load(str(version / "model.onnx")).graph
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = load_file(version / "weights.safetensors")
    for name in ("synthetic.weight", "synthetic.bias", "family.weight", "family.bias"):
        [found] = [value for key, value in held.items() if key.endswith(name) and not key.startswith("network.beside")]
        np.testing.assert_array_equal(found, weights[name].numpy())


def test_a_fit_goes_on_with_kept_features_and_refuses_those_of_other_rows(tmp_path: Path, beside: Path) -> None:
    (tmp_path / "tower.onnx").write_bytes(RAW)
    data = prepared(tmp_path / "data")
    arguments = (data, tmp_path / "run", tmp_path / "tower.onnx")
    path = fitting.fit(told(beside), *arguments, False)
    before = {kept: kept.stat().st_mtime_ns for kept in (tmp_path / "run/features").iterdir()}
    with pytest.raises(ValueError, match="--resume"):
        fitting.fit(told(beside), *arguments, False)
    first = torch.load(path, weights_only=True)["network"]["project.weight"]
    fitting.fit(told(beside), *arguments, True)
    assert {kept: kept.stat().st_mtime_ns for kept in before} == before
    torch.testing.assert_close(torch.load(path, weights_only=True)["network"]["project.weight"], first)
    with pytest.raises(ValueError, match="features of other rows"):
        fitting.fit(told(beside, halved=["photos"]), *arguments, True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vews": 2}, "unknown vews"),
        ({"real": []}, "real: expected a list"),
        ({"copies": -1}, "copies"),
        ({"copies": True}, "copies"),
        ({"views": {"mirror": 1.0}}, "`clean` among them"),
        ({"views": {"clean": 0.0}}, "views: clean: 0.0"),
        ({"views": {"clean": 1.0, "blurry": 1.0}}, "views: blurry: 1.0: a positive weight for one of clean, mirror, web"),
        ({"sigma": "wide"}, "sigma"),
        ({"synthetic": ["nobody"]}, "no prepared training pictures of nobody"),
    ],
)
def test_wrong_configurations_are_refused_by_name(tmp_path: Path, beside: Path, changes: dict[str, Any], message: str) -> None:
    (tmp_path / "tower.onnx").write_bytes(RAW)
    with pytest.raises(ValueError, match=message):
        fitting.fit(told(beside, **changes), prepared(tmp_path / "data"), tmp_path / "run", tmp_path / "tower.onnx", False)


def test_the_command_exports_a_tower_by_its_checkpoint(
    version: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder = version.parents[2]
    told = [
        "export",
        str(run_folder / "run/tower.pt"),
        "--config",
        str(run_folder / "tiny.yaml"),
        "--repository",
        str(tmp_path),
    ]
    told += ["--data", str(run_folder / "data"), "--version", "5"]
    assert main(told) == 2 and "--weights FILE" in capsys.readouterr().err
    assert main([*told, "--weights", str(run_folder / "tower.onnx")]) == 0
    same = (version / "model.onnx").read_bytes() == (tmp_path / "detector/5/model.onnx").read_bytes()
    assert same and "balanced accuracy" in capsys.readouterr().out


def test_missing_weights_and_other_checkpoints_are_said(tmp_path: Path, version: Path, beside: Path) -> None:
    with pytest.raises(ValueError, match="unmask models fetch clip_vit_b16"):
        fitting.fit(told(beside), prepared(tmp_path), tmp_path / "run", tmp_path / "none.onnx", False)
    torch.save({"average": {}}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="not a tower detector's checkpoint"):
        load_network(tmp_path / "other.pt")
    run_folder = version.parents[2]
    (tmp_path / "other.onnx").write_bytes(raw_tower(seed=5))
    with pytest.raises(ValueError, match="not the tower's file"):
        export(
            run_folder / "run/tower.pt", tmp_path / "3", run_folder / "data", run_folder / "tiny.yaml", tmp_path / "other.onnx"
        )


def test_the_blur_is_a_gaussian_that_leaves_flat_pictures_alone(tmp_path: Path) -> None:
    from unmask_training.detector.network import Detector

    network = TowerDetector(GENERATORS, Detector(GENERATORS), SIZE, sigma=1.5)
    flat = torch.full((1, 3, SIZE, SIZE), 77.0)
    torch.testing.assert_close(network.blur(flat), flat, atol=1e-3, rtol=0.0)
    point = torch.zeros(1, 3, SIZE, SIZE)
    point[..., 32, 32] = 1.0
    torch.testing.assert_close(network.blur(point)[0, 0, 32], gaussian(1.5).max() * padded(gaussian(1.5), SIZE, 32))
    network.halve()
    write_own(network, tmp_path / "own.onnx")
    assert (tmp_path / "own.onnx").stat().st_size < 30_000_000


def test_a_network_takes_as_many_learned_generators_as_its_weights_hold() -> None:
    from unmask_training.detector.network import Detector

    taught, other = (TowerDetector(GENERATORS, Detector(GENERATORS), SIZE) for _ in range(2))
    taught.prototypes.learned, taught.prototypes.rises = torch.ones(3, taught.prototypes.real.shape[1]), torch.ones(3, 2)
    other.restore(taught.state_dict())
    torch.testing.assert_close(other.prototypes.learned, taught.prototypes.learned)
    assert other.prototypes.rises.shape == (3, 2)


def padded(kernel: torch.Tensor, size: int, middle: int) -> torch.Tensor:
    """The kernel about a place in a row of zeros."""
    row = torch.zeros(size)
    reach = len(kernel) // 2
    row[middle - reach : middle + reach + 1] = kernel
    return row


def test_the_shipped_configuration_is_valid(root: Path) -> None:
    path = root / "training/configs/detector_tower.yaml"
    recipe = TowerRecipe.of(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert recipe.size == 192 and (root / recipe.beside / "weights.safetensors").is_file()


def leaving(version: Path, *options: object) -> int:
    """`leave-kind-out` on the fit of the fixture."""
    folder = version.parents[2]
    told = ["leave-kind-out", "--config", folder / "tiny.yaml", "--data", folder / "data", "--out", folder / "run"]
    return main([str(word) for word in [*told, "--weights", folder / "tower.onnx", *options]])


def test_what_is_left_out_is_judged_by_heads_that_never_saw_it_and_taught(
    version: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--leave", "diffusion", "others=portraits", "--counts", 5, "--draws", 2, "--json", tmp_path / "out.json")
    assert leaving(version, *options) == 0
    rows = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["rows"]
    assert list(rows) == ["diffusion", "others"] and rows["others"]["kinds"] == ["portraits"]
    assert rows["diffusion"]["n"] == 24 and "taught" not in rows["others"]
    shares = [rows["diffusion"][name]["value"] for name in ("fake", "unsure", "real")]
    assert sum(shares) == pytest.approx(1.0, abs=1e-3)
    taught = rows["diffusion"]["taught"]["5"]
    assert 0.0 <= taught["fake"] <= 1.0 and taught["refused"] in {0.0, 0.5, 1.0} and taught["reals"] >= -0.5
    assert "| diffusion | 24 |" in capsys.readouterr().out


def test_leaving_out_what_was_not_learnt_or_all_of_a_class_is_refused(
    version: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leaving(version, "--leave", "nobody") == 2 and "nobody: not learnt from" in capsys.readouterr().err
    assert leaving(version, "--leave", "all=gan,diffusion") == 2 and "nothing of a class is left" in capsys.readouterr().err

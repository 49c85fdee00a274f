"""`adapt` from pictures to the next version: every refusal, the gate, the files, the card, the release, a kill on the way."""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.training import adapt_world
from unmask.adapters.model_repository import ModelRepository
from unmask.core.cards import Release
from unmask.core.faces import Infer
from unmask.core.images import cut
from unmask_training.adaptation import command, version
from unmask_training.adaptation.adapt import Adapted, Order, adapt
from unmask_training.adaptation.graph import Tensors, changed
from unmask_training.adaptation.heads import Head
from unmask_training.adaptation.memory import MEMORY
from unmask_training.adaptation.parent import Parent, new_weights
from unmask_training.adaptation.prototypes import FREE
from unmask_training.adaptation.samples import read_samples

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def world(made: Path, tmp_path: Path) -> Path:
    """The same, to write to."""
    shutil.copytree(made, tmp_path / "w")
    return tmp_path / "w"


@pytest.fixture(scope="module")
def parent(made: Path) -> Parent:
    """The version that is adapted."""
    return Parent.open(made / "models/detector/2")


@pytest.fixture(scope="module")
def adapted(parent: Parent, made: Path, infer: Infer) -> Adapted:
    """The plain case, once."""
    return adapt(parent, Order("paintnet", made / "new", made / "photos"), infer)


def run(world: Path, *options: str) -> int:
    """The command as a user gives it."""
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    given = [str(world / "models/detector/2"), "--generator", "paintnet", "--samples", str(world / "new"), *options]
    args = parser.parse_args(["adapt", *given])
    code: int = args.run(args)
    return code


def versions(world: Path) -> list[str]:
    """What lies in the detector's folder and, hidden, in the repository."""
    return sorted(p.name for p in (world / "models/detector").iterdir()) + sorted(p.name for p in (world / "models").glob(".*"))


def test_a_new_generator_is_learned_and_the_old_ones_are_kept(adapted: Adapted, parent: Parent) -> None:
    learned, change = adapted.learned, adapted.change
    assert learned is not None and change is not None and not learned.gate.broken
    line = learned.gate.line("new paintnet")
    assert (line.n, line.after) == (8, 8) and line.before < 8
    assert change.classes == [*parent.card.classes, "paintnet"]
    assert change.weights["family.weight"].shape == (3, adapt_world.CHANNELS)
    for name in ("family.weight", "family.bias", "prototypes.real", "prototypes.fake", "synthetic.weight"):
        old = parent.weights[name]
        np.testing.assert_allclose(change.weights[name][: len(old)], old, rtol=1e-6)
    assert len(change.weights["prototypes.real"]) == len(parent.weights["prototypes.real"]) + 1  # the own reals
    assert change.weights["prototypes.learned"].shape == (1, adapt_world.CHANNELS)
    assert change.weights["prototypes.rises"][0, 1] > FREE


def test_a_generator_takes_the_next_free_place_and_a_known_one_its_own(parent: Parent) -> None:
    weight, bias = parent.weights["family.weight"], parent.weights["family.bias"]
    room = {
        "family.weight": np.concatenate([weight, np.zeros((3, weight.shape[1]), np.float32)]),
        "family.bias": np.append(bias, np.full(3, FREE, np.float32)).astype(np.float32),
    }
    roomy, head = replace(parent, weights=parent.weights | room), Head(np.ones(weight.shape[1]), 0.5)
    assert roomy.family[0].shape == weight.shape and len(roomy.family[1]) == 2
    found = new_weights(roomy, "paintnet", parent.readout, head)
    assert found["family.weight"].shape == (5, weight.shape[1]) and (found["family.weight"][2] == 1.0).all()
    np.testing.assert_allclose(found["family.bias"], [*bias, 0.5, FREE, FREE], rtol=1e-6)
    again = new_weights(roomy, "gan", parent.readout, head)
    np.testing.assert_allclose(again["family.bias"], [0.5, bias[1], FREE, FREE, FREE], rtol=1e-6)


def test_the_new_memory_replays_the_samples_and_the_own_reals(adapted: Adapted, parent: Parent) -> None:
    assert adapted.change is not None
    memory = adapted.change.memory
    names = memory.names
    assert len(np.unique(memory.group[names == "paintnet"])) == 8 and memory.fake[names == "paintnet"].all()
    assert (memory.part[names == "paintnet"] == 1).sum() == 2  # for the next adaptation's gate
    assert len(np.unique(memory.group[names == "own_reals"])) == 7 and not memory.fake[names == "own_reals"].any()
    np.testing.assert_array_equal(memory.features[: len(parent.memory)], parent.memory.features)


def test_a_seed_gives_the_same_head_again(adapted: Adapted, parent: Parent, made: Path, infer: Infer) -> None:
    again = adapt(parent, Order("paintnet", made / "new", made / "photos"), infer)
    other = adapt(parent, Order("paintnet", made / "new", made / "photos", seed=2), infer)
    assert adapted.change is not None and again.change is not None and other.change is not None
    for name, value in adapted.change.weights.items():
        np.testing.assert_array_equal(again.change.weights[name], value)
    assert not np.array_equal(other.change.weights["family.weight"], adapted.change.weights["family.weight"])


def test_the_command_writes_a_version_that_serving_loads_and_a_release(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {p.name: p.read_bytes() for p in (world / "models/detector/2").iterdir()}
    assert run(world, "--reals", str(world / "photos")) == 0
    said = capsys.readouterr().out
    assert (
        "8 pictures: 8 usable" in said
        and "| new paintnet | 8 |" in said
        and "unmask models promote detector-2-paintnet" in said
    )
    folder = world / "models/detector/3"
    told = json.loads((folder / "card.json").read_bytes())
    assert told["parent"] == {"version": 2, "sha256": hashlib.sha256(before["card.json"]).hexdigest()}
    assert told["classes"] == ["gan", "diffusion", "paintnet"] and told["training"]["samples"] == 8
    hashes = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (world / "new").iterdir()}
    assert set(told["training"]["sample_sha256"]) == hashes
    assert told["thresholds"] == json.loads(before["card.json"])["thresholds"]
    assert told["metrics"]["gate"]["new paintnet"]["after"] == 1.0
    repository = ModelRepository(world / "models")
    ref = next(ref for ref in repository.versions() if ref.version == 3)
    for name in ("model.onnx", "weights.safetensors", MEMORY):
        assert repository.file(ref, name)
    assert {p.name: p.read_bytes() for p in (world / "models/detector/2").iterdir()} == before
    assert versions(world) == ["2", "3"]


def test_the_written_graph_scores_as_the_gate_did(world: Path, adapted: Adapted, infer: Infer) -> None:
    assert run(world, "--reals", str(world / "photos")) == 0
    new = Parent.open(world / "models/detector/3")
    session = onnxruntime.InferenceSession(str(new.folder / "model.onnx"), providers=["CPUExecutionProvider"])
    samples = read_samples(world / "new", infer).samples
    views = np.stack([cut(sample.chip, new.view) for sample in samples])
    plain, blurred, family, distance = session.run(["plain", "blurred", "family", "distance"], {"image": views})
    rows = new.memory.where(new.memory.names == "paintnet")
    stored = new.readout(rows.features[: len(samples)].astype(np.float32))
    np.testing.assert_allclose(np.stack([plain, blurred], axis=1), stored, atol=2e-2)
    assert (new.point.verdicts(np.stack([plain, blurred], axis=1), distance) == 1).all()
    assert (family.argmax(axis=1) == 2).mean() > 0.8


def test_the_release_names_the_new_version_and_keeps_the_operating_point(world: Path, root: Path) -> None:
    """Beside a release that serves the parent: everything but the detector stays."""
    active = json.loads((root / "model_repository/release.json").read_bytes())
    active["models"]["detector"] = {"version": 2, "sha256": "0" * 64}
    (world / "models/release.json").write_text(json.dumps(active), encoding="utf-8")
    assert run(world) == 0
    path = world / f"models/release-{active['name']}-paintnet.json"
    release = Release.parse(path.read_bytes(), "")
    assert release.model("detector").version == 3
    assert release.model("detector").sha256 == hashlib.sha256((world / "models/detector/3/card.json").read_bytes()).hexdigest()
    told = json.loads(path.read_bytes())
    assert (told["fusion"], told["thresholds"]) == (active["fusion"], active["thresholds"])
    assert json.loads((world / "models/release.json").read_bytes()) == active


def test_a_second_adaptation_replays_the_first(world: Path, infer: Infer, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(world, "--reals", str(world / "photos")) == 0
    third = Parent.open(world / "models/detector/3")
    adapt_world.folder_of(world / "other", range(40, 48), (45.0, -30.0, 10.0))
    found = adapt(third, Order("othernet", world / "other"), infer)
    assert found.learned is not None
    assert "generator paintnet" in [line.name for line in found.learned.gate.lines]
    assert found.change is not None and found.change.classes == ["gan", "diffusion", "paintnet", "othernet"]
    again = adapt(third, Order("paintnet", world / "new"), infer)
    assert again.learned is None and any("known already" in line for line in again.said)


def test_samples_that_are_detected_need_no_adaptation(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(world, "--reals", str(world / "photos")) == 0
    shutil.rmtree(world / "models/detector/2")
    (world / "models/detector/3").rename(world / "models/detector/2")
    told = (world / "models/detector/2/card.json").read_text(encoding="utf-8").replace('"version": 3', '"version": 2')
    (world / "models/detector/2/card.json").write_text(told, encoding="utf-8")
    assert run(world) == 0
    said = capsys.readouterr().out
    assert "not needed" in said and "known already" in said and versions(world) == ["2"]
    assert run(world, "--force-samples") == 0
    assert versions(world) == ["2", "3"]


def test_a_broken_gate_writes_nothing_and_exits_with_3(world: Path, infer: Infer, capsys: pytest.CaptureFixture[str]) -> None:
    """Held-out reals of one source are replaced by what the samples look like: no bias can tell them apart."""
    folder = world / "models/detector/2"
    parent = Parent.open(folder)
    memory, change = parent.memory, adapt(parent, Order("x", world / "new", force=True), infer).change
    assert change is not None
    fresh = change.memory
    features, rows = memory.features.copy(), np.flatnonzero((memory.names == "photos") & memory.held_out)
    samples = np.resize(fresh.features[fresh.names == "x"].astype(np.float32), (len(rows), *features.shape[1:]))
    centre, rng = samples.mean(axis=0), np.random.default_rng(1)
    noise = rng.normal(size=samples.shape) * 0.3 * features.std(axis=(0, 1))
    features[rows] = (centre + 0.4 * (samples - centre) + noise).astype(np.float16)
    replace(memory, features=features).save(folder / MEMORY)
    assert run(world) == 3
    said = capsys.readouterr().out
    assert "refused, nothing was written: reals: " in said and "points lost" in said and "real photos: " in said
    assert "what the new prototype may add to the logit" in said and versions(world) == ["2"]
    assert not list((world / "models").glob("release*"))


def test_without_other_models_there_is_a_version_but_no_release(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(world / "models/localizer")
    assert run(world) == 0
    assert versions(world) == ["2", "3"] and not list((world / "models").glob("release*"))
    assert "no release: the repository lacks" in capsys.readouterr().out


@pytest.mark.parametrize("when", ["graph", "rename"])
def test_what_is_cut_off_leaves_no_half_version(world: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    if when == "graph":
        writes: Callable[..., Any] = version.write_version

        def half(parent: Parent, folder: Path, change: version.Change) -> None:
            writes(parent, folder, change)
            (folder / "card.json").unlink()
            killed()

        monkeypatch.setattr(version, "write_version", half)
    else:
        monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        run(world)
    assert versions(world) == ["2"] and not list((world / "models").glob("release*"))
    monkeypatch.undo()
    assert run(world) == 0 and versions(world) == ["2", "3"]


def test_prepared_data_are_replayed_and_gated_but_not_twice(parent: Parent, made: Path, infer: Infer, tmp_path: Path) -> None:
    """Of the data the memory holds all but those of 32 numbers, which are eight a kind."""
    data = adapt_world.prepared_data(tmp_path / "data", each=38)
    found = adapt(parent, Order("paintnet", made / "new", data=data), infer)
    assert found.learned is not None and found.change is not None
    lines = {line.name: line.n for line in found.learned.gate.lines}
    assert lines["generator gan"] == 20 + sum(i % 3 != 0 for i in range(30, 38))
    assert len(found.change.memory) < len(parent.memory) + 40


def test_versions_without_memory_or_defence_are_refused(world: Path) -> None:
    folder = world / "models/detector/2"
    with pytest.raises(ValueError, match="no version of a detector"):
        Parent.open(world)
    for name, says in ((MEMORY, "no memory there"), ("model.onnx", "unmask models fetch"), ("weights.safetensors", "no heads")):
        (folder / name).rename(folder / "elsewhere")
        with pytest.raises(ValueError, match=says):
            Parent.open(folder)
        (folder / "elsewhere").rename(folder / name)
    told = json.loads((folder / "card.json").read_bytes())
    del told["defence"]
    (folder / "card.json").write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(ValueError, match="cannot be adapted"):
        Parent.open(folder)


def test_heads_that_the_graph_does_not_hold_cannot_be_changed(parent: Parent) -> None:
    graph = (parent.folder / "model.onnx").read_bytes()
    other = {name: value + 1.0 for name, value in parent.weights.items()}
    with pytest.raises(ValueError, match=r"holds synthetic.weight 0 times"):
        changed(graph, other, parent.weights)
    assert onnx.load_model_from_string(changed(graph, parent.weights, parent.weights)).graph.node


def test_a_graph_that_answers_otherwise_than_was_learned_is_not_published(
    world: Path, infer: Infer, monkeypatch: pytest.MonkeyPatch
) -> None:
    unchanged = version.changed
    same = ("prototypes.learned", "prototypes.rises")

    def forgetful(graph: bytes, was: Tensors, now: Tensors, where: str) -> bytes:
        return unchanged(graph, was, {**now, **{name: was[name] for name in same}}, where)

    monkeypatch.setattr(version, "changed", forgetful)
    with pytest.raises(ValueError, match="differs from what was learned"):
        run(world)
    assert versions(world) == ["2"]

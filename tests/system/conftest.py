"""What the system tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.tiny_models import make_repository


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository of small real models."""
    return make_repository(tmp_path_factory.mktemp("tiny") / "models")

"""What the contract suites share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.adapters import Backends


@pytest.fixture
def backends(tmp_path: Path, request: pytest.FixtureRequest) -> Backends:
    """What an adapter may need from outside, for this test alone."""
    return Backends(tmp_path, request)

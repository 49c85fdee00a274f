"""The chart's tests run in .venv-deploy: `make chart-check`."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

from tests.helm.binaries import MAJORS, HelmMissing, helm
from tests.helm.rendering import CASES, Rendering, case


def missing(what: str) -> NoReturn:
    """Skips the test because a tool is not there; in CI, where every tool has to be, fails it."""
    if os.environ.get("CI", "") == "true":
        pytest.fail(f"{what} (in CI every tool must be there)", pytrace=False)
    pytest.skip(what)


def need(major: int) -> int:
    """That major, if its helm is here."""
    try:
        helm(major)
    except HelmMissing as error:
        missing(str(error))
    return major


@pytest.fixture(scope="session", params=MAJORS, ids=lambda major: f"helm{major}")
def major(request: pytest.FixtureRequest) -> int:
    """Each major of helm."""
    return need(request.param)


@pytest.fixture(scope="session", params=CASES)
def rendering(request: pytest.FixtureRequest) -> Rendering:
    """The chart under each of its values files."""
    need(4)
    return case(request.param)


@pytest.fixture(scope="session")
def production() -> Rendering:
    """The chart with everything that it can make."""
    need(4)
    return case("production")

"""What the tests of the deployment share: the tools of .venv-deploy, and the image's root, assembled as the image is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, missing

TOOLS = ROOT / ".venv-deploy/bin"


def tool(name: str) -> Path:
    """A program of .venv-deploy."""
    path = TOOLS / name
    if not path.is_file():
        missing(f"{name} is not there: run make setup-deploy")
    return path


@pytest.fixture(scope="session")
def assembled() -> Path:
    """`make image-root`: the folder with dist/ and root/."""
    folder = ROOT / "build/image"
    command = [sys.executable, ROOT / "deploy/image/assemble.py", "here", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        missing(f"the image's root cannot be assembled: {done.stderr[-2000:]}")
    return folder

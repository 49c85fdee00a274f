"""A real Triton for the tests, and the repositories that it serves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.system.backends import running
from unmask.adapters.model_repository import ModelRepository
from unmask.adapters.verify_models import configs

if TYPE_CHECKING:
    from unmask_dev.triton import TlsFiles, Triton


def write_configs(root: Path) -> None:
    """A config.pbtxt for every model of the repository, as `unmask models config` writes it."""
    for path, text in configs(ModelRepository(root)).items():
        path.write_text(text)


@contextmanager
def triton_over(folder: Path, models: Path, load: Sequence[str] | None = None, tls: TlsFiles | None = None) -> Iterator[Triton]:
    """A Triton of its own over a repository; killed at the end."""
    # Not at the top: this is imported in the training environment too, which has no such servers.
    from unmask_dev.triton import Triton

    with running(Triton(folder, models, load=load, tls=tls)) as server:
        try:
            yield server
        finally:
            server.kill()  # stopping it in its own good way takes seconds


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """A Triton that starts with nothing loaded; tests put models of names of their own into `triton.models`."""
    folder = tmp_path_factory.mktemp("triton")
    (folder / "models").mkdir()
    with triton_over(folder / "server", folder / "models", load=()) as server:
        yield server

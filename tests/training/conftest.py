"""What several modules of the training half's tests stand on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.training.drawn_faces import prepared
from unmask.core.faces import Infer
from unmask_training.data.chips import face_detector


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Sums in the same order every time, and the other cores left to others."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data in miniature."""
    return prepared(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def infer(root: Path) -> Infer:
    """The face detector of the repository."""
    return face_detector(root / "model_repository/face_detector/1/model.onnx")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with detector/2, and folders of faces: `new` of a generator, `photos` untinted."""
    from tests.training import adapt_world

    folder = tmp_path_factory.mktemp("adapt")
    adapt_world.version(folder / "models")
    adapt_world.folder_of(folder / "new", range(8), adapt_world.NEW)
    adapt_world.folder_of(folder / "photos", range(20, 27))
    return folder

"""A release is proven on a real Triton: its models are loaded there and answer, or nothing is kept."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from tests.system.releases import add_detector, copied, nan_model, release_of
from tests.system.triton_backend import triton_over, write_configs
from unmask.cli.deployment import desk
from unmask.core.cards import ModelRef
from unmask.core.errors import BadModel, Unavailable
from unmask.core.ports import ModelControl
from unmask.distributed import DistributedParts
from unmask.settings import Settings


def test_the_models_of_a_release_are_loaded_and_asked_on_triton(tiny: Path, tmp_path: Path) -> None:
    root = copied(tiny, tmp_path / "models")
    write_configs(root)
    with triton_over(tmp_path / "server", root, load=("face_detector", "detector", "localizer")) as server:
        told = Settings(models=root, database=f"sqlite:///{tmp_path / 'shared.sqlite3'}", triton=server.url)
        parts = DistributedParts(told)
        with closing(parts.database):
            counter, models = desk(parts), parts.models
            assert isinstance(models, ModelControl)
            second = ModelRef("detector", 2, add_detector(root, 2))
            assert not models.loaded(second)
            counter.put(release_of(root, "second", (2, second.sha256)), "second.json")
            assert models.loaded(second) and models.loaded(ModelRef("detector", 1))
            bad = add_detector(root, 3, nan_model())
            with pytest.raises(BadModel, match="'synthetic' is missing or not finite"):
                counter.put(release_of(root, "bad", (3, bad)), "bad.json")
            assert [release.name for release in parts.releases.releases()] == ["second"]
            counter.promote("second")
            server.kill()
            with pytest.raises(Unavailable, match="second could not be tried"):
                counter.try_out("second", 0.5)

"""The same pictures get the same verdicts in one process and from the platform, Triton serving the shipped models."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.rig.parity import compare, sample
from bench.rig.platform import rig

from tests.conftest import missing


@pytest.mark.slow
def test_embedded_and_distributed_say_the_same(faces: Path, models: Path) -> None:
    from unmask_dev.process import ServerMissing

    paths = sample(faces, 60)
    try:
        with rig(models, "valkey", triton=True) as on, on.workers():
            found = compare(on, paths)
    except ServerMissing as error:
        missing(str(error))
    print(found)
    assert not found.unlike, found.unlike
    # All are accounted for, and they are not all of a kind.
    assert found.same + found.near_threshold == len(paths) and found.near_threshold <= 6 and len(found.labels) >= 2

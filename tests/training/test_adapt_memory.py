"""The memory of a version: it reads as it was written, stays below its size, and refuses what does not fit together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from unmask_training.adaptation.memory import LARGEST, PARTS, Memory


def memory(count: int = 40, width: int = 6, kinds: tuple[str, ...] = ("photos", "gan")) -> Memory:
    """Random features: every other row is of the second kind, which is fake; parts in turn."""
    rng = np.random.default_rng(count)
    number = np.arange(count)
    return Memory(
        rng.normal(size=(count, 2, width)).astype(np.float16),
        number % 2 == 1,
        (number % 2).astype(np.int16),
        (number // 3).astype(np.int32),
        (number % 3).astype(np.uint8),
        kinds,
    )


def test_it_reads_as_it_was_written(tmp_path: Path) -> None:
    written = memory()
    written.save(tmp_path / "memory.safetensors")
    found = Memory.read(tmp_path / "memory.safetensors")
    for name in ("features", "fake", "kind", "group", "part"):
        np.testing.assert_array_equal(getattr(found, name), getattr(written, name))
        assert getattr(found, name).dtype == getattr(written, name).dtype
    assert found.kinds == ("photos", "gan") and found.names[:2].tolist() == ["photos", "gan"]
    assert found.held_out.sum() == sum(i % 3 != 0 for i in range(40))


def test_channels_that_blur_does_not_change_are_kept_once(tmp_path: Path) -> None:
    other = memory(400, width=64)
    alike = other.features.copy()
    alike[:, 1, :60] = alike[:, 0, :60]
    written = replace(other, features=alike)
    for name, one in (("alike", written), ("other", other)):
        one.save(tmp_path / name)
        np.testing.assert_array_equal(Memory.read(tmp_path / name).features, one.features)
    saved = (tmp_path / "other").stat().st_size - (tmp_path / "alike").stat().st_size
    assert abs(saved - 400 * 2 * 60) < 400


def test_joined_memories_keep_kinds_by_name_and_groups_apart() -> None:
    one, other = memory(12), memory(9, kinds=("diffusion", "photos"))
    both = one.joined(other)
    assert both.kinds == ("photos", "gan", "diffusion")
    assert both.names[12:].tolist() == other.names.tolist()
    assert not set(both.group[:12]) & set(both.group[12:])
    assert len(np.unique(both.group[12:])) == len(np.unique(other.group))
    with pytest.raises(ValueError, match="do not go with"):
        one.joined(memory(9, width=5))


def test_thinning_takes_rows_to_fit_on_from_the_largest_kinds() -> None:
    many = memory(600)
    many = replace(many, kind=np.where(np.arange(600) % 10 == 0, 1, 0).astype(np.int16))
    limit = 65_536 + 450 * (2 * 2 * 6 + 8)
    thin = many.thinned(1, limit)
    assert len(thin) == 450 and thin.held_out.sum() == many.held_out.sum() == 400
    # 180 and 20 rows to fit on were there: 150 go, all of them from the larger kind.
    assert np.bincount(thin.kind[~thin.held_out]).tolist() == [30, 20]
    np.testing.assert_array_equal(many.thinned(1, limit).features, thin.features)
    assert many.thinned(1) is many


def test_a_regression_set_that_is_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match="regression set alone"):
        memory(600).thinned(1, 65_536 + 100 * (2 * 2 * 6 + 8))


def test_a_file_over_the_limit_is_refused(tmp_path: Path) -> None:
    count = LARGEST // (2 * 2 * 1000) + 1
    large = Memory(
        np.arange(2, dtype=np.float16)[None, :, None] + np.zeros((count, 2, 1000), np.float16),
        np.zeros(count, np.bool_),
        np.zeros(count, np.int16),
        np.zeros(count, np.int32),
        np.zeros(count, np.uint8),
        ("photos",),
    )
    with pytest.raises(ValueError, match="more than 30000000"):
        large.save(tmp_path / "memory.safetensors")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("part"), "not a detector's memory"),
        (lambda t: t.update(kind=np.full(40, 2, np.int16)), "kind: a value beyond 0 to 1"),
        (lambda t: t.update(part=np.full(40, len(PARTS), np.uint8)), "part: a value beyond 0 to 2"),
        (lambda t: t.update(group=np.zeros(39, np.int32)), "group: .* is not what 40 rows need"),
        (lambda t: t.update(plain=np.zeros((40, 6), np.float32)), "plain: float32"),
        (lambda t: t.update(plain=np.full((40, 6), np.nan, np.float16)), "not all are finite"),
        (lambda t: t.update(blurred=np.zeros((40, 3), np.float16)), "blurred: .* is not what 40 rows need"),
        (lambda t: t.update(channels=np.arange(1, 7, dtype=np.int32)), "channels: a value beyond 0 to 5"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path: Path, change: Callable[[dict[str, Any]], object], says: str) -> None:
    whole = memory()
    tensors: dict[str, Any] = {name: getattr(whole, name) for name in ("kind", "group", "part")}
    tensors |= {"fake": whole.fake.astype(np.uint8), "channels": np.arange(6, dtype=np.int32)}
    tensors |= {name: np.ascontiguousarray(whole.features[:, i]) for i, name in enumerate(("plain", "blurred"))}
    change(tensors)
    save_file(tensors, tmp_path / "memory.safetensors", metadata={"kinds": '["photos", "gan"]'})
    with pytest.raises(ValueError, match=says):
        Memory.read(tmp_path / "memory.safetensors")


def test_no_file_and_another_kind_of_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no memory there"):
        Memory.read(tmp_path / "memory.safetensors")
    (tmp_path / "memory.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ValueError, match="not a detector's memory"):
        Memory.read(tmp_path / "memory.safetensors")
    save_file({"fake": np.zeros(1, np.uint8)}, tmp_path / "memory.safetensors")
    with pytest.raises(ValueError, match="not a detector's memory"):
        Memory.read(tmp_path / "memory.safetensors")

"""What every BlobStore promises."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.contract.adapters import BLOBS, Backends
from unmask.adapters.blobs_files import FileBlobs
from unmask.core.errors import BadRequest, Unavailable, UnknownBlob
from unmask.core.ports import BlobStore
from unmask_dev.process import wait_until

ODD = ["t/naïve ☃.png", "t/a b+c?d*e:f", "t/100%", "t/%41", "t/.writing-x", 't/"<|>"', "t/.hidden/..x"]
BAD = [
    "",
    "/absolute",
    "t/../u/x",
    "..",
    "t//x",
    "t/",
    "t/./x",
    "t/nul\0",
    "t/new\nline",
    "t/back\\slash",
    "t/\ud800",
    "t/" + "x" * 300,
    "x/" * 600,
]


class TestBlobStore:
    """Over every adapter."""

    @pytest.fixture(params=BLOBS)
    def blobs(self, request: pytest.FixtureRequest, backends: Backends) -> Iterator[BlobStore]:
        with BLOBS[request.param](backends) as store:
            yield store

    def test_gives_back_what_was_put(self, blobs: BlobStore) -> None:
        data = bytes(range(256)) * 9
        blobs.put("t/pictures/1", data)
        blobs.put("t/empty", b"")
        assert (blobs.get("t/pictures/1"), blobs.size("t/pictures/1")) == (data, len(data))
        assert (blobs.get("t/empty"), blobs.size("t/empty")) == (b"", 0)

    def test_the_same_key_replaces(self, blobs: BlobStore) -> None:
        blobs.put("t/x", b"longer than the next")
        blobs.put("t/x", b"next")
        assert blobs.get("t/x") == b"next" and list(blobs.keys("t/")) == ["t/x"]

    @pytest.mark.parametrize("key", ["t/none", "none", "t", "t/x/y"])
    def test_an_unknown_key_is_named(self, blobs: BlobStore, key: str) -> None:
        blobs.put("t/x", b"1")
        for ask in (blobs.get, blobs.size):
            with pytest.raises(UnknownBlob, match=key):
                ask(key)

    def test_deletes_and_does_not_mind_when_there_is_nothing(self, blobs: BlobStore) -> None:
        blobs.put("t/x", b"1")
        blobs.delete("t/x")
        blobs.delete("t/x")
        with pytest.raises(UnknownBlob):
            blobs.get("t/x")

    def test_deletes_no_more_than_it_was_told(self, blobs: BlobStore) -> None:
        keys = ["t/a/b", "t/a/c", "t/ab", "t/d/e/f"]
        for key in keys:
            blobs.put(key, b"1")
        for key in ("t", "t/a", "t/d/e", "t/d", "t/ab/c"):
            blobs.delete(key)
        assert list(blobs.keys("")) == keys

    def test_lists_by_prefix_in_order(self, blobs: BlobStore) -> None:
        for key in ("t/b", "t/a/2", "t/a/1", "t/ab", "u/a", "t2/a"):
            blobs.put(key, b"")
        assert list(blobs.keys("t/")) == ["t/a/1", "t/a/2", "t/ab", "t/b"]
        assert list(blobs.keys("t/a")) == ["t/a/1", "t/a/2", "t/ab"]
        assert list(blobs.keys("t")) == ["t/a/1", "t/a/2", "t/ab", "t/b", "t2/a"]
        assert len(list(blobs.keys(""))) == 6 and list(blobs.keys("none/")) == []

    def test_lists_more_than_one_page_in_order(self, blobs: BlobStore) -> None:
        keys = [f"t/{n % 7}/{n % 3}/{n}" for n in range(1100)] + [f"t/{n % 7}-{n}" for n in range(40)]
        for key in keys:
            blobs.put(key, b"")
        assert list(blobs.keys("t/")) == sorted(keys)

    def test_aged_are_those_last_written_before(self, blobs: BlobStore) -> None:
        for key in ("t/a", "t/b/c", "u/d"):
            blobs.put(key, b"1")
        moment, hour = datetime.now(UTC), timedelta(hours=1)
        assert sorted(blobs.aged("", moment + hour)) == ["t/a", "t/b/c", "u/d"]
        assert sorted(blobs.aged("t/b", moment + hour)) == ["t/b/c"]
        assert list(blobs.aged("", moment - hour)) == []
        # The store's clock may count whole seconds: what is written again once it has moved on is young.
        moment += timedelta(seconds=1)

        def is_young() -> bool:
            blobs.put("t/a", b"2")
            return "t/a" not in blobs.aged("t/", moment)

        wait_until(is_young, 5, "the clock of the store")
        assert sorted(blobs.aged("", moment)) == ["t/b/c", "u/d"]

    def test_odd_names_are_names_like_others(self, blobs: BlobStore) -> None:
        for key in ODD:
            blobs.put(key, key.encode())
        assert [blobs.get(key) for key in ODD] == [key.encode() for key in ODD]
        assert list(blobs.keys("t/")) == sorted(ODD)

    @pytest.mark.parametrize("key", BAD)
    def test_bad_keys_are_refused(self, blobs: BlobStore, key: str) -> None:
        for ask in (blobs.get, blobs.size, blobs.delete, lambda k: blobs.put(k, b"x")):
            with pytest.raises(BadRequest):
                ask(key)
        assert list(blobs.keys("")) == []

    def test_a_reader_never_sees_half_an_object(self, blobs: BlobStore) -> None:
        whole = [bytes([n]) * 300_000 for n in range(4)]
        blobs.put("t/x", whole[0])

        def write() -> None:
            for _ in range(5):
                for data in whole:
                    blobs.put("t/x", data)

        writers = [threading.Thread(target=write) for _ in range(2)]
        for writer in writers:
            writer.start()
        while any(writer.is_alive() for writer in writers):
            assert blobs.get("t/x") in whole
        for writer in writers:
            writer.join()


class TestFiles:
    """What only the folder can do wrong."""

    def test_leaves_nothing_half_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        blobs = FileBlobs(tmp_path)
        blobs.put("t/x", b"old")

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(Unavailable, match="No space left"):
            blobs.put("t/x", b"new")
        assert blobs.get("t/x") == b"old" and [path.name for path in (tmp_path / "t").iterdir()] == ["x"]

    def test_a_key_cannot_be_anothers_folder(self, tmp_path: Path) -> None:
        blobs = FileBlobs(tmp_path)
        blobs.put("t/x", b"1")
        blobs.put("t/y/z", b"2")
        for key in ("t/x/y", "t/y"):
            with pytest.raises(BadRequest, match="folder"):
                blobs.put(key, b"3")
        assert list(blobs.keys("")) == ["t/x", "t/y/z"]

    def test_another_process_finds_everything(self, tmp_path: Path) -> None:
        FileBlobs(tmp_path).put("t/x", b"1")
        assert FileBlobs(tmp_path).get("t/x") == b"1"

"""What only an S3 store can do: refuse keys, be full, be slow, be away, sign links; over a real SeaweedFS."""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.contract.adapters import s3
from tests.system.backends import fresh_name, running
from unmask.adapters.blobs_s3 import S3Blobs, S3Bucket
from unmask.core.errors import BadConfig, BadRequest, Unavailable
from unmask_dev.process import wait_until

if TYPE_CHECKING:
    from unmask_dev.seaweedfs import SeaweedFS

NOBODY = S3Bucket("http://127.0.0.1:1", "pictures", "key", "secret-of-ours")


def calls(blobs: S3Blobs) -> dict[str, Callable[[], object]]:
    """Every call of the port."""
    return {
        "put": lambda: blobs.put("t/x", b"1"),
        "get": lambda: blobs.get("t/x"),
        "size": lambda: blobs.size("t/x"),
        "delete": lambda: blobs.delete("t/x"),
        "keys": lambda: list(blobs.keys("t/")),
        "aged": lambda: list(blobs.aged("t/", datetime.now(UTC))),
        "probe": blobs.probe,
    }


@pytest.mark.parametrize("call", calls(S3Blobs(NOBODY)))
class TestRefused:
    """What the operator must change, told by every call with endpoint and bucket, and without the secret."""

    def test_wrong_keys(self, seaweedfs: SeaweedFS, bucket: str, call: str) -> None:
        for stranger in (s3(seaweedfs, bucket, secret_key="wrong"), s3(seaweedfs, bucket, access_key="nobody")):
            with pytest.raises(BadConfig, match=f"{bucket}.*{seaweedfs.endpoint}") as raised:
                calls(stranger)[call]()
            assert seaweedfs.secret_key not in str(raised.value)

    def test_no_such_bucket(self, seaweedfs: SeaweedFS, call: str) -> None:
        with pytest.raises(BadConfig, match=f"'nowhere' at http://{seaweedfs.endpoint}"):
            calls(s3(seaweedfs, "nowhere"))[call]()

    def test_nobody_there_is_a_matter_of_time(self, call: str) -> None:
        begun = time.monotonic()
        with pytest.raises(Unavailable, match="'pictures' at http"):
            calls(S3Blobs(NOBODY))[call]()
        assert time.monotonic() - begun < 2


class TestBucket:
    """Where things are kept, and how."""

    def test_is_made_only_when_told(self, seaweedfs: SeaweedFS) -> None:
        name = fresh_name()
        with pytest.raises(BadConfig):
            s3(seaweedfs, name).put("t/x", b"1")
        s3(seaweedfs, name, create=True).put("t/x", b"1")
        with ThreadPoolExecutor(4) as pool:  # it is there already, and other processes start at the same time
            assert list(pool.map(lambda _: s3(seaweedfs, name, create=True).get("t/x"), range(4))) == [b"1"] * 4
        seaweedfs.drop_bucket(name)

    def test_probe_leaves_nothing(self, seaweedfs: SeaweedFS, bucket: str) -> None:
        blobs = s3(seaweedfs, bucket)
        blobs.probe()
        assert list(blobs.keys("")) == []

    def test_a_large_picture_is_one_request(self, seaweedfs: SeaweedFS, bucket: str) -> None:
        """An etag without a dash: no upload in parts that could be left half done."""
        data = os.urandom(20 * 1024 * 1024)
        blobs = s3(seaweedfs, bucket)
        blobs.put("t/large", data)
        assert blobs.get("t/large") == data and blobs.size("t/large") == len(data)
        assert "-" not in (seaweedfs.client().stat_object(bucket, "t/large").etag or "-")

    def test_encryption_is_asked_for(self, seaweedfs: SeaweedFS, bucket: str) -> None:
        plain, encrypted = s3(seaweedfs, bucket), s3(seaweedfs, bucket, sse="AES256")
        plain.put("t/plain", b"1" * 100)
        encrypted.put("t/secret", b"1" * 100)
        assert plain.get("t/secret") == b"1" * 100
        told = [seaweedfs.client().stat_object(bucket, key).metadata or {} for key in ("t/plain", "t/secret")]
        assert [headers.get("x-amz-server-side-encryption") for headers in told] == [None, "AES256"]


class TestLinks:
    """A link that anybody can read with."""

    def test_reads_until_it_expires(self, seaweedfs: SeaweedFS, bucket: str) -> None:
        blobs = s3(seaweedfs, bucket)
        blobs.put("t/naïve ☃+%.png", b"picture")
        link = blobs.presigned_get("t/naïve ☃+%.png", 2)
        assert seaweedfs.secret_key not in link
        with urllib.request.urlopen(link, timeout=5) as got:
            assert got.read() == b"picture"
        wait_until(lambda: status(link) == 403, 10, "the link's end")
        assert status(blobs.presigned_get("t/naïve ☃+%.png", 60)) == 200
        assert status(link.split("?")[0]) == 403

    def test_of_an_impossible_time(self, seaweedfs: SeaweedFS, bucket: str) -> None:
        for seconds in (0, -1, 8 * 24 * 3600):
            with pytest.raises(BadRequest, match="seconds"):
                s3(seaweedfs, bucket).presigned_get("t/x", seconds)


def status(link: str) -> int:
    """What a plain reader is answered."""
    try:
        with urllib.request.urlopen(link, timeout=5) as got:
            return int(got.status)
    except urllib.error.HTTPError as error:
        return error.code


class TestTrouble:
    """A store that comes and goes."""

    def test_slow_is_unavailable_in_bounded_time(self, seaweedfs: SeaweedFS, bucket: str) -> None:
        blobs = s3(seaweedfs, bucket, read_seconds=0.5)
        blobs.put("t/x", b"1")
        seaweedfs.process.pause()
        try:
            begun = time.monotonic()
            with pytest.raises(Unavailable, match="timed out"):
                blobs.get("t/x")
            assert time.monotonic() - begun < 3
        finally:
            seaweedfs.process.resume()
        assert blobs.get("t/x") == b"1"

    def test_killed_and_back_on_the_same_client(self, seaweedfs: SeaweedFS, bucket: str) -> None:
        blobs = s3(seaweedfs, bucket)
        for number in range(20):
            blobs.put(f"t/{number}", b"%d" % number)
        seaweedfs.kill()
        with pytest.raises(Unavailable):
            blobs.get("t/1")
        seaweedfs.start()
        assert [blobs.get(f"t/{number}") for number in range(20)] == [b"%d" % number for number in range(20)]

    def test_full_and_with_room_again(self, tmp_path: Path) -> None:
        from unmask_dev.seaweedfs import SeaweedFS

        with running(SeaweedFS(tmp_path / "small", volumes=2, volume_mb=1)) as server:
            blobs = s3(server, server.create_bucket("pictures"))
            picture, kept = os.urandom(256 * 1024), list[str]()
            with pytest.raises(Unavailable, match="'pictures'"):
                for number in range(200):
                    blobs.put(f"t/{number}", picture)
                    kept.append(f"t/{number}")
            assert kept and all(blobs.get(key) == picture for key in kept)
            for key in kept:
                blobs.delete(key)

            def fits() -> bool:
                server.vacuum()
                blobs.put("t/again", picture)
                return True

            wait_until(fits, 30, "room again")
            assert list(blobs.keys("t/")) == ["t/again"]
            server.kill()


class TestShared:
    """One object for many threads."""

    def test_threads(self, seaweedfs: SeaweedFS, bucket: str) -> None:
        blobs = s3(seaweedfs, bucket)

        def work(number: int) -> bool:
            key, data = f"t/{number}", bytes([number]) * 5000
            blobs.put(key, data)
            return blobs.get(key) == data and blobs.size(key) == 5000

        with ThreadPoolExecutor(12) as pool:
            assert all(pool.map(work, range(120)))

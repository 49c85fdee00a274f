"""Blobs in a bucket of any S3 store (AWS, SeaweedFS, Ceph, …), through the `minio` client."""

from __future__ import annotations

import io
import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4
from xml.etree.ElementTree import ParseError

import certifi
import urllib3
from minio import Minio
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from minio.helpers import check_bucket_name
from minio.sse import Sse, SseKMS, SseS3
from urllib3.exceptions import HTTPError, ProtocolError, SSLError

from unmask.core.blob_keys import key_parts
from unmask.core.errors import BadConfig, BadRequest, Unavailable, UnknownBlob, UnmaskError

T = TypeVar("T")

_SMALLEST_PART: Final = 5 * 1024 * 1024
_LONGEST_LINK: Final = 7 * 24 * 3600
_KMS: Final = "kms:"
# No tenant can have this name (`unmask.core.submit`).
_PROBES: Final = "_probe"
_MISSING: Final = {"NoSuchKey", "NoSuchVersion"}
# Answers of time that do not come with a status of 500 or more.
_LATER: Final = {"SlowDown", "RequestTimeout", "Throttling", "TooManyRequests", "QuotaExceeded", "OperationAborted"}
_OURS_ALREADY: Final = {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}


@dataclass(frozen=True, slots=True)
class S3Bucket:
    """Where a bucket is and who we are there.

    `endpoint` is an http(s) URL; `sse` is `AES256`, `kms:KEY` or empty (the bucket's default); `ca` a PEM file to trust in
    place of the usual authorities; `create` makes the bucket when it is not there.
    """

    endpoint: str
    bucket: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    region: str = "us-east-1"
    sse: str = ""
    ca: Path | None = None
    create: bool = False


class S3Blobs:
    """The port `BlobStore` over a bucket; thread-safe, and usable in children forked at any time.

    Nothing is asked before the first call.  Raises `BadConfig`, naming endpoint and bucket, for what the operator must change:
    no such bucket, keys refused, another region, a certificate that is not trusted, encryption that the store does not do;
    `Unavailable` for the rest.  A call waits `connect_seconds` for a connection and `read_seconds` for each answer, and is made
    once more when a connection breaks.

    Beyond the port: `a` and `a/b` may both be keys, and SeaweedFS counts times in whole seconds.
    """

    def __init__(
        self, told: S3Bucket, *, connect_seconds: float = 3.0, read_seconds: float = 20.0, pool_size: int = 16
    ) -> None:
        self._told = told
        self._bucket = told.bucket
        self._host, self._secure = _host(told.endpoint)
        self._where = f"bucket {told.bucket!r} at {told.endpoint}"
        self._sse = _encryption(told.sse, self._secure)
        self._timeout = urllib3.Timeout(connect=connect_seconds, read=read_seconds)
        self._pool_size = pool_size
        if told.ca is not None and not told.ca.is_file():
            raise BadConfig(f"{self._where}: no certificates at {told.ca}")
        # Made again after a fork: connections are not shared.  Two threads may make one each; the last one stays.
        self._made: tuple[int, Minio] | None = None
        try:
            check_bucket_name(told.bucket, strict=True)
            self._new_client()
        except (ValueError, OSError) as error:
            raise BadConfig(f"{self._where}: {error}") from None

    def put(self, key: str, data: bytes) -> None:
        """See `BlobStore.put`."""
        key_parts(key)
        part = max(len(data), _SMALLEST_PART)  # in one request, so that it needs no clean-up when it breaks off
        self._ask(key, lambda s3: s3.put_object(self._bucket, key, io.BytesIO(data), len(data), sse=self._sse, part_size=part))

    def get(self, key: str) -> bytes:
        """See `BlobStore.get`."""
        key_parts(key)
        return self._ask(key, lambda s3: _read(s3, self._bucket, key))

    def size(self, key: str) -> int:
        """See `BlobStore.size`."""
        key_parts(key)
        try:
            return int(self._ask(key, lambda s3: s3.stat_object(self._bucket, key)).size or 0)
        except UnknownBlob:
            # An answer to HEAD has no body that would tell a missing bucket from a missing key.
            if not self._ask("", lambda s3: s3.bucket_exists(self._bucket)):
                raise BadConfig(f"{self._where}: no such bucket") from None
            raise

    def delete(self, key: str) -> None:
        """See `BlobStore.delete`."""
        key_parts(key)
        self._ask(key, lambda s3: s3.remove_object(self._bucket, key))

    def keys(self, prefix: str) -> Iterator[str]:
        """See `BlobStore.keys`; sorted here, because not every store lists across folders in S3's order."""
        return iter(sorted(name for name, _ in self._listed(prefix)))

    def aged(self, prefix: str, before: datetime) -> Iterator[str]:
        """See `BlobStore.aged`; listed a thousand at a time."""
        return (name for name, written in self._listed(prefix) if written < before)

    def presigned_get(self, key: str, seconds: float) -> str:
        """A URL that anybody can read the object with for so long (at most 7 days); not checked to exist, nothing is asked."""
        key_parts(key)
        if not 1 <= seconds <= _LONGEST_LINK:
            raise BadRequest(f"a link lives from 1 to {_LONGEST_LINK} seconds, not {seconds:g}")
        lives = timedelta(seconds=int(seconds))
        return self._ask(key, lambda s3: s3.presigned_get_object(self._bucket, key, expires=lives))

    def probe(self) -> None:
        """Puts, reads and deletes an object; raises what a picture would meet."""
        key, data = f"{_PROBES}/{uuid4().hex}", uuid4().bytes
        self.put(key, data)
        same = self.get(key) == data
        self.delete(key)
        if not same:
            raise Unavailable(f"{self._where}: an object came back changed")

    def close(self) -> None:
        """Closes the connections; a later call opens them again."""
        made, self._made = self._made, None
        if made is not None and made[0] == os.getpid():
            made[1]._http.clear()

    def _listed(self, prefix: str) -> Iterator[tuple[str, datetime]]:
        """Keys and times in the store's order.  Not made twice: what broke off in the middle would look like the end."""
        with self._errors(""):
            for found in self._client().list_objects(self._bucket, prefix, recursive=True):
                if not found.is_dir and found.object_name and found.last_modified:
                    yield found.object_name, found.last_modified

    def _new_client(self) -> Minio:
        http = urllib3.PoolManager(
            timeout=self._timeout,
            maxsize=self._pool_size,
            retries=False,
            cert_reqs="CERT_REQUIRED",
            ca_certs=str(self._told.ca or certifi.where()),
        )
        told = self._told
        return Minio(self._host, told.access_key, told.secret_key, secure=self._secure, region=told.region, http_client=http)

    def _client(self) -> Minio:
        """This process's own client; the bucket is there if we were told to make it."""
        made = self._made
        if made is None or made[0] != os.getpid():
            client = self._new_client()
            if self._told.create:
                self._make_bucket(client)
            self._made = made = (os.getpid(), client)
        return made[1]

    def _make_bucket(self, client: Minio) -> None:
        try:
            if not client.bucket_exists(self._bucket):
                client.make_bucket(self._bucket)
        except S3Error as error:
            if error.code not in _OURS_ALREADY:  # somebody was faster
                raise

    def _ask(self, key: str, do: Callable[[Minio], T]) -> T:
        """What `do` gives.  Every call of ours may be made twice."""
        with self._errors(key):
            try:
                return do(self._client())
            except ProtocolError:  # a kept connection that the store had closed; a second time is an answer
                return do(self._client())

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        """The client's errors come out as ours."""
        try:
            yield
        except (MinioException, HTTPError, OSError, ValueError, ParseError) as error:
            raise self._translated(error, key) from error

    def _translated(self, error: Exception, key: str) -> UnmaskError:
        if isinstance(error, S3Error):
            return self._refused(error, key)
        if isinstance(error, SSLError) and any(isinstance(part, ssl.SSLCertVerificationError) for part in error.args):
            return BadConfig(f"{self._where}: its certificate is not trusted ({error})")
        if isinstance(error, ServerError | InvalidResponseError):
            status = error.status_code if isinstance(error, ServerError) else error._code
            kind = Unavailable if status in {408, 429} or status >= 500 else BadConfig
            return kind(f"{self._where}: HTTP status {status}, and not as S3 answers")
        if isinstance(error, HTTPError | OSError):
            return Unavailable(f"{self._where}: {error}")
        return BadConfig(f"{self._where}: no answer of an S3 store ({error})")

    def _refused(self, error: S3Error, key: str) -> UnmaskError:
        """What an S3 answer means; `NotImplemented` (501) is an operator's matter and not one of time."""
        if error.code in _MISSING:
            return UnknownBlob(f"no blob {key!r}")
        passing = error.response.status >= 500 and error.code != "NotImplemented"
        kind = Unavailable if passing or error.response.status in {408, 429} or error.code in _LATER else BadConfig
        return kind(f"{self._where}: {error.code} ({error.message})")


def _host(endpoint: str) -> tuple[str, bool]:
    """host:port, and whether it is TLS.  A refused endpoint is not told: it may hold a password."""
    url = urlsplit(endpoint)
    if url.scheme not in {"http", "https"} or not url.hostname or "@" in url.netloc or url.path.strip("/") or url.query:
        raise BadConfig("the S3 endpoint is http://HOST[:PORT] or https://HOST[:PORT], without user, path or query")
    return url.netloc, url.scheme == "https"


def _encryption(sse: str, secure: bool) -> Sse | None:
    if not sse:
        return None
    if sse == "AES256":
        return SseS3()
    if not sse.startswith(_KMS) or not sse.removeprefix(_KMS):
        raise BadConfig(f"S3 encryption is AES256 or {_KMS}KEY, not {sse!r}")
    if not secure:
        raise BadConfig("S3 encryption by a KMS key needs an https endpoint")
    return SseKMS(sse.removeprefix(_KMS), {})


def _read(s3: Minio, bucket: str, key: str) -> bytes:
    answer = s3.get_object(bucket, key)
    try:
        return answer.read()
    finally:
        answer.close()
        answer.release_conn()

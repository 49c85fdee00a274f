"""Errors to statuses and back."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2

from unmask.core import errors
from unmask.core.errors import UnmaskError
from unmask.rpc.statuses import code_of, to_status


def tree(kind: type[UnmaskError]) -> list[type[UnmaskError]]:
    return [kind, *(child for sub in kind.__subclasses__() for child in tree(sub))]


@pytest.mark.parametrize("kind", tree(UnmaskError), ids=lambda kind: kind.__name__)
def test_every_error_names_itself(kind: type[UnmaskError]) -> None:
    status = to_status(kind("what is\nwrong"))
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain, status.message) == (kind.code, "unmask", "what is wrong")
    assert status.code != 0


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.BadImage("x"), "INVALID_ARGUMENT"),
        (errors.BadRequest("x"), "INVALID_ARGUMENT"),
        (errors.BadPolicy("x"), "INVALID_ARGUMENT"),
        (errors.UnknownCase("x"), "NOT_FOUND"),
        (errors.UnknownBlob("x"), "NOT_FOUND"),
        (errors.NotReady("x"), "FAILED_PRECONDITION"),
        (errors.IdempotencyConflict("x"), "ALREADY_EXISTS"),
        (errors.QuotaExceeded("x"), "RESOURCE_EXHAUSTED"),
        (errors.Unauthenticated("x"), "UNAUTHENTICATED"),
        (errors.Forbidden("x"), "PERMISSION_DENIED"),
        (errors.UnknownTenant("x"), "NOT_FOUND"),
        (errors.Unavailable("x"), "UNAVAILABLE"),
        (errors.DeadlineExceeded("x"), "DEADLINE_EXCEEDED"),
        (errors.BadModel("x"), "INTERNAL"),
        (errors.StoreCorrupt("x"), "INTERNAL"),
    ],
)
def test_status_says_who_must_act(error: UnmaskError, code: str) -> None:
    assert code_of(error).name == code


def test_only_what_passes_says_when_to_come_again() -> None:
    retry = error_details_pb2.RetryInfo()
    assert to_status(errors.Unavailable("x")).details[1].Unpack(retry)
    assert retry.retry_delay.seconds >= 1
    assert len(to_status(errors.BadImage("x")).details) == 1
    assert len(to_status(errors.DeadlineExceeded("x")).details) == 1


@pytest.mark.parametrize(("after", "seconds"), [(None, 1.0), (0.0, 0.0), (-3.0, 0.0), (41.2504, 41.251), (86_400.0, 86_400.0)])
def test_when_to_come_again_is_what_the_error_knows(after: float | None, seconds: float) -> None:
    error = errors.QuotaExceeded("x")
    error.retry_after = after
    retry = error_details_pb2.RetryInfo()
    assert to_status(error).details[1].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() / 1000 == seconds


def test_long_and_strange_texts_fit_into_trailers() -> None:
    status = to_status(errors.BadRequest("\udcff" + "é" * 100_000))
    assert status.message.startswith("\\udcff")
    assert len(status.SerializeToString()) < 4096


def test_a_new_error_takes_its_parents_status() -> None:
    class BlobQuota(errors.QuotaExceeded):
        code = "blob_quota_test"

    assert code_of(BlobQuota("x")) is grpc.StatusCode.RESOURCE_EXHAUSTED

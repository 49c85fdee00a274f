"""Methods and scopes, and what is read of a call's metadata."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Any, NamedTuple

import pytest

import unmask.v1
from unmask.core.access import Caller, Scope
from unmask.core.errors import BadConfig, Forbidden, Unauthenticated
from unmask.rpc.callers import SCOPES, allow, bearer
from unmask.rpc.channels import is_loopback, metadata
from unmask.rpc.tls import Tls
from unmask.v1 import alignment_pb2, classification_pb2, ingestion_pb2, localization_pb2

ALL = frozenset(Scope)
SECRET = "unm_0123456789abcdef_" + "s" * 43


class _Details(NamedTuple):
    method: str
    invocation_metadata: Any


def details(sent: Any) -> Any:
    """What the interceptor is given."""
    return _Details("/unmask.v1.IngestionService/Submit", sent)


def methods() -> list[str]:
    """Every method that the protos describe."""
    modules = [import_module(f"unmask.v1.{found.name}") for found in pkgutil.iter_modules(unmask.v1.__path__)]
    files = [module.DESCRIPTOR for module in modules if module.__name__.endswith("_pb2")]
    services = [service for file in files for service in file.services_by_name.values()]
    return [f"/{service.full_name}/{method.name}" for service in services for method in service.methods]


def allowed(scopes: frozenset[Scope], method: str, request: object) -> bool:
    try:
        allow(Caller("acme", scopes, "x"), method, request)
    except Forbidden:
        return False
    return True


def test_every_method_of_the_protos_is_in_the_table_and_no_other() -> None:
    found = methods()
    assert len(found) >= 8
    for method in found:
        assert method in SCOPES or method[: method.rfind("/") + 1] in SCOPES, method
    named = {method for method in SCOPES if not method.endswith("/")}
    assert named <= set(found)
    assert {method for method in SCOPES if method.endswith("/")} <= {method[: method.rfind("/") + 1] for method in found}


@pytest.mark.parametrize(
    ("method", "request_", "needed"),
    [
        ("IngestionService/Submit", ingestion_pb2.SubmitRequest(), {Scope.SUBMIT}),
        ("IngestionService/SubmitMany", None, {Scope.SUBMIT}),
        ("IngestionService/Check", ingestion_pb2.CheckRequest(), {Scope.SUBMIT, Scope.READ}),
        ("IngestionService/GetVerdict", ingestion_pb2.GetVerdictRequest(), {Scope.READ}),
        ("IngestionService/WaitVerdict", ingestion_pb2.WaitVerdictRequest(), {Scope.READ}),
        ("IngestionService/GetBatch", ingestion_pb2.GetBatchRequest(), {Scope.READ}),
        ("AlignmentService/Align", alignment_pb2.AlignRequest(picture=b"x"), {Scope.SUBMIT}),
        ("AlignmentService/Align", alignment_pb2.AlignRequest(case_id="x"), {Scope.READ}),
        ("AlignmentService/Align", alignment_pb2.AlignRequest(), {Scope.SUBMIT}),
        ("ClassificationService/Classify", classification_pb2.ClassifyRequest(chips={}), {Scope.SUBMIT}),
        ("ClassificationService/Classify", classification_pb2.ClassifyRequest(case_id=""), {Scope.READ}),
        ("LocalizationService/Localize", localization_pb2.LocalizeRequest(picture=b""), {Scope.SUBMIT}),
        ("LocalizationService/Localize", localization_pb2.LocalizeRequest(case_id="x"), {Scope.READ}),
        ("ReviewService/Decide", object(), {Scope.REVIEW}),
    ],
)
def test_a_method_needs_its_scopes_and_no_more(method: str, request_: object, needed: set[Scope]) -> None:
    name = f"/unmask.v1.{method}"
    assert allowed(frozenset(needed), name, request_)
    for scope in needed:
        assert not allowed(ALL - {scope}, name, request_)


@pytest.mark.parametrize("method", ["/unmask.v1.IngestionService/Erase", "/unmask.v2.ReviewService/Decide", "/unmask.x"])
def test_a_method_that_nobody_thought_of_is_refused_to_all(method: str) -> None:
    assert not allowed(ALL, method, object())


@pytest.mark.parametrize("value", [f"Bearer {SECRET}", f"bearer {SECRET}", f"BEARER  {SECRET} "])
def test_the_token_is_read(value: str) -> None:
    assert bearer(details((("user-agent", "x"), ("authorization", value)))) == SECRET


@pytest.mark.parametrize(
    "sent",
    [
        None,
        (),
        (("x-authorization", f"Bearer {SECRET}"),),
        (("authorization", SECRET),),
        (("authorization", f"Basic {SECRET}"),),
        (("authorization", b"Bearer x"),),
        (("authorization", "Bearer a"), ("authorization", f"Bearer {SECRET}")),
    ],
)
def test_no_token_or_more_than_one_is_none(sent: Any) -> None:
    with pytest.raises(Unauthenticated) as caught:
        bearer(details(sent))
    assert SECRET not in caught.value.detail


@pytest.mark.parametrize(
    ("address", "stays"),
    [
        ("127.0.0.1:1", True),
        ("127.8.9.1:1", True),
        ("localhost:1", True),
        ("[::1]:1", True),
        ("unix:/run/x", True),
        ("10.0.0.1:1", False),
        ("example.org:1", False),
        ("localhost.example.org:1", False),
        ("dns:///localhost:1", False),
        ("1", False),
    ],
)
def test_a_token_crosses_no_network_in_the_clear(address: str, stays: bool) -> None:
    assert is_loopback(address) == stays
    told = (("authorization", f"Bearer {SECRET}"),)
    assert metadata(address, SECRET, Tls()) == told and metadata(address, "", None) == ()
    if stays:
        assert metadata(address, SECRET, None) == told
    else:
        with pytest.raises(BadConfig, match="without TLS"):
            metadata(address, SECRET, None)


@pytest.mark.parametrize("token", ["a\nb", "é", "\0"])
def test_a_token_that_is_none_is_refused_before_it_is_sent(token: str) -> None:
    with pytest.raises(BadConfig):
        metadata("127.0.0.1:1", token, None)

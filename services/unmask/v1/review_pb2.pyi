import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from unmask.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Standing(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STANDING_UNSPECIFIED: _ClassVar[Standing]
    STANDING_WAITING: _ClassVar[Standing]
    STANDING_DECIDED: _ClassVar[Standing]
    STANDING_ALL: _ClassVar[Standing]

class Order(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ORDER_UNSPECIFIED: _ClassVar[Order]
    ORDER_OLDEST: _ClassVar[Order]
    ORDER_NEWEST: _ClassVar[Order]

class Truth(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRUTH_UNSPECIFIED: _ClassVar[Truth]
    TRUTH_REAL: _ClassVar[Truth]
    TRUTH_SYNTHETIC: _ClassVar[Truth]
    TRUTH_MANIPULATED: _ClassVar[Truth]
    TRUTH_UNKNOWN: _ClassVar[Truth]
STANDING_UNSPECIFIED: Standing
STANDING_WAITING: Standing
STANDING_DECIDED: Standing
STANDING_ALL: Standing
ORDER_UNSPECIFIED: Order
ORDER_OLDEST: Order
ORDER_NEWEST: Order
TRUTH_UNSPECIFIED: Truth
TRUTH_REAL: Truth
TRUTH_SYNTHETIC: Truth
TRUTH_MANIPULATED: Truth
TRUTH_UNKNOWN: Truth

class ReviewCase(_message.Message):
    __slots__ = ("status", "created_at", "label", "action", "truth", "reviewed", "revision", "batch", "labels", "media")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    TRUTH_FIELD_NUMBER: _ClassVar[int]
    REVIEWED_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    MEDIA_FIELD_NUMBER: _ClassVar[int]
    status: _common_pb2.CaseStatus
    created_at: _timestamp_pb2.Timestamp
    label: _common_pb2.Label
    action: _common_pb2.Action
    truth: Truth
    reviewed: bool
    revision: int
    batch: str
    labels: _containers.ScalarMap[str, str]
    media: _common_pb2.Media
    def __init__(self, status: _Optional[_Union[_common_pb2.CaseStatus, _Mapping]] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., label: _Optional[_Union[_common_pb2.Label, str]] = ..., action: _Optional[_Union[_common_pb2.Action, str]] = ..., truth: _Optional[_Union[Truth, str]] = ..., reviewed: _Optional[bool] = ..., revision: _Optional[int] = ..., batch: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., media: _Optional[_Union[_common_pb2.Media, _Mapping]] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("actor", "action", "reason", "truth", "generator", "note", "at")
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TRUTH_FIELD_NUMBER: _ClassVar[int]
    GENERATOR_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    actor: str
    action: _common_pb2.Action
    reason: str
    truth: Truth
    generator: str
    note: str
    at: _timestamp_pb2.Timestamp
    def __init__(self, actor: _Optional[str] = ..., action: _Optional[_Union[_common_pb2.Action, str]] = ..., reason: _Optional[str] = ..., truth: _Optional[_Union[Truth, str]] = ..., generator: _Optional[str] = ..., note: _Optional[str] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListCasesRequest(_message.Message):
    __slots__ = ("standing", "label", "action", "batch", "order", "page_size", "page_token")
    STANDING_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    standing: Standing
    label: _common_pb2.Label
    action: _common_pb2.Action
    batch: str
    order: Order
    page_size: int
    page_token: str
    def __init__(self, standing: _Optional[_Union[Standing, str]] = ..., label: _Optional[_Union[_common_pb2.Label, str]] = ..., action: _Optional[_Union[_common_pb2.Action, str]] = ..., batch: _Optional[str] = ..., order: _Optional[_Union[Order, str]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListCasesResponse(_message.Message):
    __slots__ = ("cases", "next_page_token")
    CASES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    cases: _containers.RepeatedCompositeFieldContainer[ReviewCase]
    next_page_token: str
    def __init__(self, cases: _Optional[_Iterable[_Union[ReviewCase, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetCaseRequest(_message.Message):
    __slots__ = ("case_id",)
    CASE_ID_FIELD_NUMBER: _ClassVar[int]
    case_id: str
    def __init__(self, case_id: _Optional[str] = ...) -> None: ...

class GetCaseResponse(_message.Message):
    __slots__ = ("case", "verdict", "decisions", "claims", "picture_url")
    CASE_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    PICTURE_URL_FIELD_NUMBER: _ClassVar[int]
    case: ReviewCase
    verdict: _common_pb2.Verdict
    decisions: _containers.RepeatedCompositeFieldContainer[Decision]
    claims: _containers.RepeatedCompositeFieldContainer[_common_pb2.Claim]
    picture_url: str
    def __init__(self, case: _Optional[_Union[ReviewCase, _Mapping]] = ..., verdict: _Optional[_Union[_common_pb2.Verdict, _Mapping]] = ..., decisions: _Optional[_Iterable[_Union[Decision, _Mapping]]] = ..., claims: _Optional[_Iterable[_Union[_common_pb2.Claim, _Mapping]]] = ..., picture_url: _Optional[str] = ...) -> None: ...

class DecideRequest(_message.Message):
    __slots__ = ("case_id", "action", "reason", "truth", "generator", "note", "revision")
    CASE_ID_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TRUTH_FIELD_NUMBER: _ClassVar[int]
    GENERATOR_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    case_id: str
    action: _common_pb2.Action
    reason: str
    truth: Truth
    generator: str
    note: str
    revision: int
    def __init__(self, case_id: _Optional[str] = ..., action: _Optional[_Union[_common_pb2.Action, str]] = ..., reason: _Optional[str] = ..., truth: _Optional[_Union[Truth, str]] = ..., generator: _Optional[str] = ..., note: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class DecideResponse(_message.Message):
    __slots__ = ("case",)
    CASE_FIELD_NUMBER: _ClassVar[int]
    case: ReviewCase
    def __init__(self, case: _Optional[_Union[ReviewCase, _Mapping]] = ...) -> None: ...

class AppealRequest(_message.Message):
    __slots__ = ("case_id", "reason", "note")
    CASE_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    case_id: str
    reason: str
    note: str
    def __init__(self, case_id: _Optional[str] = ..., reason: _Optional[str] = ..., note: _Optional[str] = ...) -> None: ...

class AppealResponse(_message.Message):
    __slots__ = ("case",)
    CASE_FIELD_NUMBER: _ClassVar[int]
    case: ReviewCase
    def __init__(self, case: _Optional[_Union[ReviewCase, _Mapping]] = ...) -> None: ...

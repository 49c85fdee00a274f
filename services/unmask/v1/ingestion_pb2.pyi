from unmask.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SubmitRequest(_message.Message):
    __slots__ = ("submission",)
    SUBMISSION_FIELD_NUMBER: _ClassVar[int]
    submission: _common_pb2.Submission
    def __init__(self, submission: _Optional[_Union[_common_pb2.Submission, _Mapping]] = ...) -> None: ...

class SubmitResponse(_message.Message):
    __slots__ = ("case",)
    CASE_FIELD_NUMBER: _ClassVar[int]
    case: _common_pb2.CaseStatus
    def __init__(self, case: _Optional[_Union[_common_pb2.CaseStatus, _Mapping]] = ...) -> None: ...

class SubmitManyRequest(_message.Message):
    __slots__ = ("request_id", "submission")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SUBMISSION_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    submission: _common_pb2.Submission
    def __init__(self, request_id: _Optional[str] = ..., submission: _Optional[_Union[_common_pb2.Submission, _Mapping]] = ...) -> None: ...

class SubmitManyResponse(_message.Message):
    __slots__ = ("request_id", "case", "error")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CASE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    case: _common_pb2.CaseStatus
    error: _common_pb2.Error
    def __init__(self, request_id: _Optional[str] = ..., case: _Optional[_Union[_common_pb2.CaseStatus, _Mapping]] = ..., error: _Optional[_Union[_common_pb2.Error, _Mapping]] = ...) -> None: ...

class GetVerdictRequest(_message.Message):
    __slots__ = ("case_id",)
    CASE_ID_FIELD_NUMBER: _ClassVar[int]
    case_id: str
    def __init__(self, case_id: _Optional[str] = ...) -> None: ...

class GetVerdictResponse(_message.Message):
    __slots__ = ("case", "verdict")
    CASE_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    case: _common_pb2.CaseStatus
    verdict: _common_pb2.Verdict
    def __init__(self, case: _Optional[_Union[_common_pb2.CaseStatus, _Mapping]] = ..., verdict: _Optional[_Union[_common_pb2.Verdict, _Mapping]] = ...) -> None: ...

class WaitVerdictRequest(_message.Message):
    __slots__ = ("case_id",)
    CASE_ID_FIELD_NUMBER: _ClassVar[int]
    case_id: str
    def __init__(self, case_id: _Optional[str] = ...) -> None: ...

class WaitVerdictResponse(_message.Message):
    __slots__ = ("case", "verdict")
    CASE_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    case: _common_pb2.CaseStatus
    verdict: _common_pb2.Verdict
    def __init__(self, case: _Optional[_Union[_common_pb2.CaseStatus, _Mapping]] = ..., verdict: _Optional[_Union[_common_pb2.Verdict, _Mapping]] = ...) -> None: ...

class CheckRequest(_message.Message):
    __slots__ = ("submission",)
    SUBMISSION_FIELD_NUMBER: _ClassVar[int]
    submission: _common_pb2.Submission
    def __init__(self, submission: _Optional[_Union[_common_pb2.Submission, _Mapping]] = ...) -> None: ...

class CheckResponse(_message.Message):
    __slots__ = ("verdict",)
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    verdict: _common_pb2.Verdict
    def __init__(self, verdict: _Optional[_Union[_common_pb2.Verdict, _Mapping]] = ...) -> None: ...

class GetBatchRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetBatchResponse(_message.Message):
    __slots__ = ("name", "states", "total", "done")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    name: str
    states: _containers.RepeatedCompositeFieldContainer[StateCount]
    total: int
    done: float
    def __init__(self, name: _Optional[str] = ..., states: _Optional[_Iterable[_Union[StateCount, _Mapping]]] = ..., total: _Optional[int] = ..., done: _Optional[float] = ...) -> None: ...

class StateCount(_message.Message):
    __slots__ = ("state", "cases")
    STATE_FIELD_NUMBER: _ClassVar[int]
    CASES_FIELD_NUMBER: _ClassVar[int]
    state: _common_pb2.State
    cases: int
    def __init__(self, state: _Optional[_Union[_common_pb2.State, str]] = ..., cases: _Optional[int] = ...) -> None: ...

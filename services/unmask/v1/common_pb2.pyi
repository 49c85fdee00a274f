from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Label(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LABEL_UNSPECIFIED: _ClassVar[Label]
    LABEL_REAL: _ClassVar[Label]
    LABEL_SYNTHETIC: _ClassVar[Label]
    LABEL_MANIPULATED: _ClassVar[Label]
    LABEL_UNSURE: _ClassVar[Label]
    LABEL_NO_FACE: _ClassVar[Label]

class Action(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTION_UNSPECIFIED: _ClassVar[Action]
    ACTION_ALLOW: _ClassVar[Action]
    ACTION_REVIEW: _ClassVar[Action]
    ACTION_BLOCK: _ClassVar[Action]

class Stage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STAGE_UNSPECIFIED: _ClassVar[Stage]
    STAGE_ACCEPTED: _ClassVar[Stage]
    STAGE_INGESTED: _ClassVar[Stage]
    STAGE_ALIGNED: _ClassVar[Stage]
    STAGE_CLASSIFIED: _ClassVar[Stage]
    STAGE_LOCALIZED: _ClassVar[Stage]
    STAGE_DECIDED: _ClassVar[Stage]

class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATE_UNSPECIFIED: _ClassVar[State]
    STATE_OPEN: _ClassVar[State]
    STATE_DECIDED: _ClassVar[State]
    STATE_FAILED: _ClassVar[State]
    STATE_DEAD: _ClassVar[State]
    STATE_ERASED: _ClassVar[State]

class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRIORITY_UNSPECIFIED: _ClassVar[Priority]
    PRIORITY_LIVE: _ClassVar[Priority]
    PRIORITY_BATCH: _ClassVar[Priority]
LABEL_UNSPECIFIED: Label
LABEL_REAL: Label
LABEL_SYNTHETIC: Label
LABEL_MANIPULATED: Label
LABEL_UNSURE: Label
LABEL_NO_FACE: Label
ACTION_UNSPECIFIED: Action
ACTION_ALLOW: Action
ACTION_REVIEW: Action
ACTION_BLOCK: Action
STAGE_UNSPECIFIED: Stage
STAGE_ACCEPTED: Stage
STAGE_INGESTED: Stage
STAGE_ALIGNED: Stage
STAGE_CLASSIFIED: Stage
STAGE_LOCALIZED: Stage
STAGE_DECIDED: Stage
STATE_UNSPECIFIED: State
STATE_OPEN: State
STATE_DECIDED: State
STATE_FAILED: State
STATE_DEAD: State
STATE_ERASED: State
PRIORITY_UNSPECIFIED: Priority
PRIORITY_LIVE: Priority
PRIORITY_BATCH: Priority

class BlobRef(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: str
    def __init__(self, key: _Optional[str] = ...) -> None: ...

class Source(_message.Message):
    __slots__ = ("data", "blob", "url")
    DATA_FIELD_NUMBER: _ClassVar[int]
    BLOB_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    blob: BlobRef
    url: str
    def __init__(self, data: _Optional[bytes] = ..., blob: _Optional[_Union[BlobRef, _Mapping]] = ..., url: _Optional[str] = ...) -> None: ...

class Media(_message.Message):
    __slots__ = ("kind", "parent")
    KIND_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    kind: str
    parent: str
    def __init__(self, kind: _Optional[str] = ..., parent: _Optional[str] = ...) -> None: ...

class Submission(_message.Message):
    __slots__ = ("source", "idempotency_key", "media", "labels", "callback", "priority", "batch")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    MEDIA_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CALLBACK_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    source: Source
    idempotency_key: str
    media: Media
    labels: _containers.ScalarMap[str, str]
    callback: str
    priority: Priority
    batch: str
    def __init__(self, source: _Optional[_Union[Source, _Mapping]] = ..., idempotency_key: _Optional[str] = ..., media: _Optional[_Union[Media, _Mapping]] = ..., labels: _Optional[_Mapping[str, str]] = ..., callback: _Optional[str] = ..., priority: _Optional[_Union[Priority, str]] = ..., batch: _Optional[str] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("code", "detail")
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    code: str
    detail: str
    def __init__(self, code: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class CaseStatus(_message.Message):
    __slots__ = ("id", "stage", "state", "attempts", "failure", "sha256")
    ID_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    id: str
    stage: Stage
    state: State
    attempts: int
    failure: Failure
    sha256: str
    def __init__(self, id: _Optional[str] = ..., stage: _Optional[_Union[Stage, str]] = ..., state: _Optional[_Union[State, str]] = ..., attempts: _Optional[int] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., sha256: _Optional[str] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("code", "reason", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: int
    reason: str
    message: str
    def __init__(self, code: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class Point(_message.Message):
    __slots__ = ("x", "y")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    x: float
    y: float
    def __init__(self, x: _Optional[float] = ..., y: _Optional[float] = ...) -> None: ...

class Box(_message.Message):
    __slots__ = ("x0", "y0", "x1", "y1")
    X0_FIELD_NUMBER: _ClassVar[int]
    Y0_FIELD_NUMBER: _ClassVar[int]
    X1_FIELD_NUMBER: _ClassVar[int]
    Y1_FIELD_NUMBER: _ClassVar[int]
    x0: float
    y0: float
    x1: float
    y1: float
    def __init__(self, x0: _Optional[float] = ..., y0: _Optional[float] = ..., x1: _Optional[float] = ..., y1: _Optional[float] = ...) -> None: ...

class DetectedFace(_message.Message):
    __slots__ = ("box", "landmarks", "confidence")
    BOX_FIELD_NUMBER: _ClassVar[int]
    LANDMARKS_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    box: Box
    landmarks: _containers.RepeatedCompositeFieldContainer[Point]
    confidence: float
    def __init__(self, box: _Optional[_Union[Box, _Mapping]] = ..., landmarks: _Optional[_Iterable[_Union[Point, _Mapping]]] = ..., confidence: _Optional[float] = ...) -> None: ...

class Chip(_message.Message):
    __slots__ = ("png", "rgb", "width", "height", "to_chip", "to_unit", "box")
    PNG_FIELD_NUMBER: _ClassVar[int]
    RGB_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    TO_CHIP_FIELD_NUMBER: _ClassVar[int]
    TO_UNIT_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    png: bytes
    rgb: bytes
    width: int
    height: int
    to_chip: _containers.RepeatedScalarFieldContainer[float]
    to_unit: _containers.RepeatedScalarFieldContainer[float]
    box: Box
    def __init__(self, png: _Optional[bytes] = ..., rgb: _Optional[bytes] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., to_chip: _Optional[_Iterable[float]] = ..., to_unit: _Optional[_Iterable[float]] = ..., box: _Optional[_Union[Box, _Mapping]] = ...) -> None: ...

class Chips(_message.Message):
    __slots__ = ("chips",)
    CHIPS_FIELD_NUMBER: _ClassVar[int]
    chips: _containers.RepeatedCompositeFieldContainer[Chip]
    def __init__(self, chips: _Optional[_Iterable[_Union[Chip, _Mapping]]] = ...) -> None: ...

class Generator(_message.Message):
    __slots__ = ("shares",)
    class SharesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    SHARES_FIELD_NUMBER: _ClassVar[int]
    shares: _containers.ScalarMap[str, float]
    def __init__(self, shares: _Optional[_Mapping[str, float]] = ...) -> None: ...

class Defence(_message.Message):
    __slots__ = ("plain", "blurred")
    PLAIN_FIELD_NUMBER: _ClassVar[int]
    BLURRED_FIELD_NUMBER: _ClassVar[int]
    plain: float
    blurred: float
    def __init__(self, plain: _Optional[float] = ..., blurred: _Optional[float] = ...) -> None: ...

class Classification(_message.Message):
    __slots__ = ("synthetic", "generator", "defence", "doubt")
    SYNTHETIC_FIELD_NUMBER: _ClassVar[int]
    GENERATOR_FIELD_NUMBER: _ClassVar[int]
    DEFENCE_FIELD_NUMBER: _ClassVar[int]
    DOUBT_FIELD_NUMBER: _ClassVar[int]
    synthetic: float
    generator: Generator
    defence: Defence
    doubt: float
    def __init__(self, synthetic: _Optional[float] = ..., generator: _Optional[_Union[Generator, _Mapping]] = ..., defence: _Optional[_Union[Defence, _Mapping]] = ..., doubt: _Optional[float] = ...) -> None: ...

class Region(_message.Message):
    __slots__ = ("polygon", "score", "name", "area")
    POLYGON_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    AREA_FIELD_NUMBER: _ClassVar[int]
    polygon: _containers.RepeatedCompositeFieldContainer[Point]
    score: float
    name: str
    area: float
    def __init__(self, polygon: _Optional[_Iterable[_Union[Point, _Mapping]]] = ..., score: _Optional[float] = ..., name: _Optional[str] = ..., area: _Optional[float] = ...) -> None: ...

class Localization(_message.Message):
    __slots__ = ("manipulated", "regions", "heat")
    MANIPULATED_FIELD_NUMBER: _ClassVar[int]
    REGIONS_FIELD_NUMBER: _ClassVar[int]
    HEAT_FIELD_NUMBER: _ClassVar[int]
    manipulated: float
    regions: _containers.RepeatedCompositeFieldContainer[Region]
    heat: Heat
    def __init__(self, manipulated: _Optional[float] = ..., regions: _Optional[_Iterable[_Union[Region, _Mapping]]] = ..., heat: _Optional[_Union[Heat, _Mapping]] = ...) -> None: ...

class Heat(_message.Message):
    __slots__ = ("width", "height", "values", "to_picture")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    TO_PICTURE_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    values: bytes
    to_picture: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ..., values: _Optional[bytes] = ..., to_picture: _Optional[_Iterable[float]] = ...) -> None: ...

class Face(_message.Message):
    __slots__ = ("box", "landmarks", "label", "score", "doubt", "synthetic", "manipulated", "generator", "defence", "regions")
    BOX_FIELD_NUMBER: _ClassVar[int]
    LANDMARKS_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    DOUBT_FIELD_NUMBER: _ClassVar[int]
    SYNTHETIC_FIELD_NUMBER: _ClassVar[int]
    MANIPULATED_FIELD_NUMBER: _ClassVar[int]
    GENERATOR_FIELD_NUMBER: _ClassVar[int]
    DEFENCE_FIELD_NUMBER: _ClassVar[int]
    REGIONS_FIELD_NUMBER: _ClassVar[int]
    box: Box
    landmarks: _containers.RepeatedCompositeFieldContainer[Point]
    label: Label
    score: float
    doubt: float
    synthetic: float
    manipulated: float
    generator: Generator
    defence: Defence
    regions: _containers.RepeatedCompositeFieldContainer[Region]
    def __init__(self, box: _Optional[_Union[Box, _Mapping]] = ..., landmarks: _Optional[_Iterable[_Union[Point, _Mapping]]] = ..., label: _Optional[_Union[Label, str]] = ..., score: _Optional[float] = ..., doubt: _Optional[float] = ..., synthetic: _Optional[float] = ..., manipulated: _Optional[float] = ..., generator: _Optional[_Union[Generator, _Mapping]] = ..., defence: _Optional[_Union[Defence, _Mapping]] = ..., regions: _Optional[_Iterable[_Union[Region, _Mapping]]] = ...) -> None: ...

class Claim(_message.Message):
    __slots__ = ("kind", "field", "value")
    KIND_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    kind: str
    field: str
    value: str
    def __init__(self, kind: _Optional[str] = ..., field: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class Reason(_message.Message):
    __slots__ = ("code", "text", "face")
    CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FACE_FIELD_NUMBER: _ClassVar[int]
    code: str
    text: str
    face: int
    def __init__(self, code: _Optional[str] = ..., text: _Optional[str] = ..., face: _Optional[int] = ...) -> None: ...

class Release(_message.Message):
    __slots__ = ("name", "sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    sha256: str
    def __init__(self, name: _Optional[str] = ..., sha256: _Optional[str] = ...) -> None: ...

class Policy(_message.Message):
    __slots__ = ("name", "sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    sha256: str
    def __init__(self, name: _Optional[str] = ..., sha256: _Optional[str] = ...) -> None: ...

class ModelVersion(_message.Message):
    __slots__ = ("name", "version", "sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    sha256: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., sha256: _Optional[str] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("id", "sha256", "width", "height", "label", "score", "doubt", "action", "faces", "claims", "release", "models", "policy", "reasons", "runtime", "timings_ms", "path")
    class RuntimeEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class TimingsMsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    DOUBT_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    FACES_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_MS_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    id: str
    sha256: str
    width: int
    height: int
    label: Label
    score: float
    doubt: float
    action: Action
    faces: _containers.RepeatedCompositeFieldContainer[Face]
    claims: _containers.RepeatedCompositeFieldContainer[Claim]
    release: Release
    models: _containers.RepeatedCompositeFieldContainer[ModelVersion]
    policy: Policy
    reasons: _containers.RepeatedCompositeFieldContainer[Reason]
    runtime: _containers.ScalarMap[str, str]
    timings_ms: _containers.ScalarMap[str, float]
    path: str
    def __init__(self, id: _Optional[str] = ..., sha256: _Optional[str] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., label: _Optional[_Union[Label, str]] = ..., score: _Optional[float] = ..., doubt: _Optional[float] = ..., action: _Optional[_Union[Action, str]] = ..., faces: _Optional[_Iterable[_Union[Face, _Mapping]]] = ..., claims: _Optional[_Iterable[_Union[Claim, _Mapping]]] = ..., release: _Optional[_Union[Release, _Mapping]] = ..., models: _Optional[_Iterable[_Union[ModelVersion, _Mapping]]] = ..., policy: _Optional[_Union[Policy, _Mapping]] = ..., reasons: _Optional[_Iterable[_Union[Reason, _Mapping]]] = ..., runtime: _Optional[_Mapping[str, str]] = ..., timings_ms: _Optional[_Mapping[str, float]] = ..., path: _Optional[str] = ...) -> None: ...

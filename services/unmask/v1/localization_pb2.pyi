from unmask.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LocalizeRequest(_message.Message):
    __slots__ = ("picture", "chips", "case_id", "with_heat")
    PICTURE_FIELD_NUMBER: _ClassVar[int]
    CHIPS_FIELD_NUMBER: _ClassVar[int]
    CASE_ID_FIELD_NUMBER: _ClassVar[int]
    WITH_HEAT_FIELD_NUMBER: _ClassVar[int]
    picture: bytes
    chips: _common_pb2.Chips
    case_id: str
    with_heat: bool
    def __init__(self, picture: _Optional[bytes] = ..., chips: _Optional[_Union[_common_pb2.Chips, _Mapping]] = ..., case_id: _Optional[str] = ..., with_heat: _Optional[bool] = ...) -> None: ...

class LocalizeResponse(_message.Message):
    __slots__ = ("localizations", "faces", "release")
    LOCALIZATIONS_FIELD_NUMBER: _ClassVar[int]
    FACES_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    localizations: _containers.RepeatedCompositeFieldContainer[_common_pb2.Localization]
    faces: _containers.RepeatedCompositeFieldContainer[_common_pb2.DetectedFace]
    release: _common_pb2.Release
    def __init__(self, localizations: _Optional[_Iterable[_Union[_common_pb2.Localization, _Mapping]]] = ..., faces: _Optional[_Iterable[_Union[_common_pb2.DetectedFace, _Mapping]]] = ..., release: _Optional[_Union[_common_pb2.Release, _Mapping]] = ...) -> None: ...

from unmask.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AlignRequest(_message.Message):
    __slots__ = ("picture", "case_id", "with_chips")
    PICTURE_FIELD_NUMBER: _ClassVar[int]
    CASE_ID_FIELD_NUMBER: _ClassVar[int]
    WITH_CHIPS_FIELD_NUMBER: _ClassVar[int]
    picture: bytes
    case_id: str
    with_chips: bool
    def __init__(self, picture: _Optional[bytes] = ..., case_id: _Optional[str] = ..., with_chips: _Optional[bool] = ...) -> None: ...

class AlignResponse(_message.Message):
    __slots__ = ("faces", "chips", "width", "height", "release")
    FACES_FIELD_NUMBER: _ClassVar[int]
    CHIPS_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    faces: _containers.RepeatedCompositeFieldContainer[_common_pb2.DetectedFace]
    chips: _containers.RepeatedCompositeFieldContainer[_common_pb2.Chip]
    width: int
    height: int
    release: _common_pb2.Release
    def __init__(self, faces: _Optional[_Iterable[_Union[_common_pb2.DetectedFace, _Mapping]]] = ..., chips: _Optional[_Iterable[_Union[_common_pb2.Chip, _Mapping]]] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., release: _Optional[_Union[_common_pb2.Release, _Mapping]] = ...) -> None: ...

"""Single fields of messages: enums by name, what may be unset, what must be set, texts."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Protocol, TypeVar

from unmask.core.errors import BadRequest

_Name = TypeVar("_Name", bound=StrEnum)


class Message(Protocol):
    """What is asked of any message here."""

    def HasField(self, field_name: Any) -> bool:
        """Whether the field is set."""


def enum_to(kind: Any, name: StrEnum) -> Any:
    """The value of the proto enum `kind` for a name of the domain."""
    return kind.Value(f"{_prefix(type(name))}_{name.name}")


def enum_from(kind: Any, names: type[_Name], number: int) -> _Name:
    """The domain's name of a value; one that is unset or newer than this program is refused, never taken for another."""
    known = {enum_to(kind, name): name for name in names}
    if number not in known:
        raise BadRequest(f"{_prefix(names).lower()}: value {number} is unset or not known here")
    return known[number]


def _prefix(names: type[StrEnum]) -> str:
    return names.__name__.upper()


def maybe(message: Message, field: str) -> Any:
    """The field, or None where it is unset."""
    return getattr(message, field) if message.HasField(field) else None


def filled(message: Message, field: str) -> Any:
    """A field that must be set; raises `BadRequest` naming it."""
    if not message.HasField(field):
        raise BadRequest(f"{type(message).__name__}.{field} is not set")
    return getattr(message, field)


def text(given: str) -> str:
    """Protobuf strings are Unicode; what is not (bytes out of a file's metadata) is escaped, not lost."""
    return given.encode("utf-8", "backslashreplace").decode()

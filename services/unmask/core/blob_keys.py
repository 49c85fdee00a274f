"""The keys that every blob store takes."""

from __future__ import annotations

from typing import Final

from unmask.core.errors import BadRequest

_LONGEST_KEY: Final = 1024
_LONGEST_PART: Final = 200


def key_parts(key: str) -> list[str]:
    """The parts of a key between its slashes; raises `BadRequest` for one that not every store could hold.

    At most 1024 bytes of UTF-8, 200 a part (S3's limit; a file system's, with room for escapes); no part empty, `.` or `..`;
    no control characters; no backslashes (SeaweedFS makes slashes of them).
    """
    parts = key.split("/")
    try:
        sizes = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        raise BadRequest(f"blob key {key[:80]!r} is not Unicode text") from None
    if sum(sizes) + len(parts) - 1 > _LONGEST_KEY or max(sizes) > _LONGEST_PART:
        raise BadRequest(f"blob key {key[:80]!r}…: at most {_LONGEST_KEY} bytes, {_LONGEST_PART} between slashes")
    if any(part in {"", ".", ".."} for part in parts):
        raise BadRequest(f"blob key {key[:80]!r}: parts separated by '/', none of them empty, '.' or '..'")
    if any(character < " " or character in "\x7f\\" for character in key):
        raise BadRequest(f"blob key {key[:80]!r}: no control characters or backslashes")
    return parts

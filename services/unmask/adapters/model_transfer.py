"""Moves model versions between a repository folder and a blob store; what arrives is what was sent, whole or not at all.

A version lies in the store under `_models/<name>/<version>/`; its card is written last, so what has a card is complete.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from unmask.adapters.model_repository import CARD_NAME, ModelRepository
from unmask.adapters.wheel_weights import write_atomically
from unmask.core.cards import Card, ModelRef
from unmask.core.errors import BadConfig, BadModel, BadRequest, UnknownBlob
from unmask.core.ports import BlobStore

# No tenant can have this name (`unmask.core.submit`), so these keys never meet a picture's.
_ROOT: Final = "_models"
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,8}")
_FILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class Moved:
    """A version that is now at both ends, and how many of its files (its card among them) were not there before."""

    ref: ModelRef
    files: int


def parse_version(word: str) -> ModelRef:
    """`NAME/VERSION`; raises `BadRequest`."""
    name, slash, number = word.partition("/")
    if not slash or not _NAME.fullmatch(name) or not _NUMBER.fullmatch(number):
        raise BadRequest(f"{word!r}: expected NAME/VERSION, for example detector/2")
    return ModelRef(name, int(number))


def stored_versions(blobs: BlobStore) -> Iterator[ModelRef]:
    """The complete versions in the store, by name and number; keys that no push of ours made are passed over."""
    found = set()
    for key in blobs.keys(f"{_ROOT}/"):
        _, *parts = key.split("/")
        if len(parts) == 3 and parts[2] == CARD_NAME and _NAME.fullmatch(parts[0]) and _NUMBER.fullmatch(parts[1]):
            found.add((parts[0], int(parts[1])))
    yield from (ModelRef(name, number) for name, number in sorted(found))


def push(repository: ModelRepository, blobs: BlobStore, wanted: Sequence[ModelRef]) -> Iterator[Moved]:
    """Copies versions (all without `wanted`) into the store, each checked before it is sent and read back after.

    A version that is there already is completed; one with another card is refused, because a version never changes.
    Raises `BadModel`, `BadRequest` or `Unavailable`.
    """
    for ref in wanted or list(repository.versions()):
        yield _push(repository, blobs, ref)


def _push(repository: ModelRepository, blobs: BlobStore, ref: ModelRef) -> Moved:
    card = repository.card(ref)
    text = (repository.folder(ref) / CARD_NAME).read_bytes()
    _check(text, card.sha256, f"{repository.folder(ref) / CARD_NAME}")
    if _held(blobs, ref, CARD_NAME) not in {None, card.sha256}:
        raise BadRequest(f"model {ref.name}/{ref.version} is in the store with another card: make it a new version")
    sent = 0
    for name in card.files:
        sent += _send(blobs, ref, name, repository.file(ref, name), card.files[name])
    sent += _send(blobs, ref, CARD_NAME, text, card.sha256)
    return Moved(card.ref, sent)


def _send(blobs: BlobStore, ref: ModelRef, name: str, data: bytes, sha256: str) -> int:
    """Puts a file where it is not yet; 1 when it did."""
    if _held(blobs, ref, name) == sha256:
        return 0
    blobs.put(_key(ref, name), data)
    if _held(blobs, ref, name) != sha256:
        raise BadModel(f"{_key(ref, name)}: the store gives back something else than was put")
    return 1


def pull(blobs: BlobStore, root: Path, wanted: Sequence[ModelRef]) -> Iterator[Moved]:
    """Copies versions (all without `wanted`) into the repository folder, each appearing there whole once all of it is right.

    A version that is there already gets the files that it lacks; one with another card is refused.
    Raises `BadModel`, `BadRequest`, `BadConfig` (the folder) or `Unavailable`.
    """
    for ref in wanted or list(stored_versions(blobs)):
        card, text = _stored_card(blobs, ref)
        is_there = _folder(root, ref).exists()
        yield Moved(card.ref, _completed(blobs, root, card) if is_there else _new(blobs, root, card, text))


def _stored_card(blobs: BlobStore, ref: ModelRef) -> tuple[Card, bytes]:
    try:
        text = blobs.get(_key(ref, CARD_NAME))
    except UnknownBlob:
        raise BadRequest(f"model {ref.name}/{ref.version} is not in the store, or not completely") from None
    card = Card.parse(text, hashlib.sha256(text).hexdigest(), _key(ref, CARD_NAME))
    if (card.name, card.version) != (ref.name, ref.version):
        raise BadModel(f"{_key(ref, CARD_NAME)}: is the card of {card.name}/{card.version}")
    strange = [name for name in card.files if not _FILE.fullmatch(name) or name == CARD_NAME]
    if strange:
        raise BadModel(f"{_key(ref, CARD_NAME)}: files: {strange[0]!r} is not a plain file name")
    return card, text


def _new(blobs: BlobStore, root: Path, card: Card, text: bytes) -> int:
    """Written aside and moved into place in one step."""
    folder = _folder(root, card.ref)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # A name that is no number is no version, to us and to Triton.
        aside = Path(tempfile.mkdtemp(prefix=".pulling-", dir=folder.parent))
        try:
            aside.chmod(0o755)
            for name, sha256 in card.files.items():
                (aside / name).write_bytes(_received(blobs, card.ref, name, sha256))
            (aside / CARD_NAME).write_bytes(text)
            aside.rename(folder)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    except OSError as error:
        raise BadConfig(f"{folder}: cannot be written ({error.strerror})") from error
    return len(card.files) + 1


def _completed(blobs: BlobStore, root: Path, card: Card) -> int:
    """Each file on its own, in one step: what is right is left alone, so a version in use never changes under its users."""
    repository, got = ModelRepository(root), 0
    if repository.card(ModelRef(card.name, card.version)).sha256 != card.sha256:
        raise BadRequest(f"model {card.name}/{card.version} is in {root} with another card than in the store")
    for name, sha256 in card.files.items():
        path = _folder(root, card.ref) / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            write_atomically(path, _received(blobs, card.ref, name, sha256))
            got += 1
    return got


def _received(blobs: BlobStore, ref: ModelRef, name: str, sha256: str) -> bytes:
    try:
        data = blobs.get(_key(ref, name))
    except UnknownBlob:
        raise BadModel(f"{_key(ref, name)}: missing in the store, though the card names it") from None
    _check(data, sha256, _key(ref, name))
    return data


def _check(data: bytes, sha256: str, where: str) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise BadModel(
            f"{where}: sha256 is {found[:12]}…, the card says {sha256[:12]}…: nothing was taken of it; push it again"
        )


def _held(blobs: BlobStore, ref: ModelRef, name: str) -> str | None:
    """The sha256 of what the store holds there, or None."""
    try:
        return hashlib.sha256(blobs.get(_key(ref, name))).hexdigest()
    except UnknownBlob:
        return None


def _key(ref: ModelRef, name: str) -> str:
    return f"{_ROOT}/{ref.name}/{ref.version}/{name}"


def _folder(root: Path, ref: ModelRef) -> Path:
    return root / ref.name / str(ref.version)

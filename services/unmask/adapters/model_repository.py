"""The model repository on disk: cards, releases and files, each read once and held against its sha256."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from unmask.core.cards import ROLES, Card, ModelRef, Release
from unmask.core.errors import BadModel

CARD_NAME: Final = "card.json"
CONFIG_NAME: Final = "config.pbtxt"
RELEASE_NAME: Final = "release.json"


class ModelRepository:
    """Reads `<root>/<name>/<version>/{card.json, model.onnx, …}` and `<root>/release.json`; thread-safe.

    Everything is read when first asked for; a card is then kept.  What is missing, corrupt or another than stated
    raises `BadModel` naming the file and what to do.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.Lock()
        self._cards: dict[tuple[str, int], Card] = {}

    def folder(self, ref: ModelRef) -> Path:
        """Where a version lies."""
        return self.root / ref.name / str(ref.version)

    def card(self, ref: ModelRef) -> Card:
        """The card of a version; raises `BadModel` when it is missing, broken, or another than `ref.sha256` names."""
        with self._lock:
            card = self._cards.get((ref.name, ref.version))
            if card is None:
                card = self._cards[ref.name, ref.version] = self._read_card(ref)
        if ref.sha256 not in {"", card.sha256}:
            raise BadModel(
                f"{self.folder(ref) / CARD_NAME}: sha256 is {card.sha256[:12]}…, the release names {ref.sha256[:12]}…: "
                "restore that card, or name this one in the release"
            )
        return card

    def _read_card(self, ref: ModelRef) -> Card:
        path = self.folder(ref) / CARD_NAME
        text = self._read(path, "the version is not in the repository")
        card = Card.parse(text, hashlib.sha256(text).hexdigest(), str(path))
        if (card.name, card.version) != (ref.name, ref.version):
            raise BadModel(f"{path}: is the card of {card.name}/{card.version}")
        role = ROLES.get(card.name, card.task)
        if card.task != role:
            raise BadModel(f"{path}: task is '{card.task}', a {card.name}'s is '{role}'")
        strange = [name for name in card.files if Path(name).name != name]
        if strange:
            raise BadModel(f"{path}: files: {strange[0]!r} is not a plain file name")
        return card

    def file(self, ref: ModelRef, name: str = "model.onnx") -> bytes:
        """A file that the version's card names, its sha256 just checked; raises `BadModel`."""
        card, path = self.card(ref), self.folder(ref) / name
        if name not in card.files:
            raise BadModel(f"{path}: the card names no such file")
        data = self._read(path, "run `unmask models fetch`, or restore the file")
        found = hashlib.sha256(data).hexdigest()
        if found != card.files[name]:
            raise BadModel(
                f"{path}: sha256 is {found[:12]}…, the card says {card.files[name][:12]}…: the file is corrupt or of another "
                "version; run `unmask models fetch`, or restore it"
            )
        return data

    def versions(self) -> Iterator[ModelRef]:
        """Every version folder, by name and number, whether its card is right or not."""
        if not self.root.is_dir():
            raise BadModel(f"{self.root}: no model repository is there; name one by --models or UNMASK_MODELS")
        numbered = [p for p in self.root.glob("*/*") if p.is_dir() and p.name.isascii() and p.name.isdigit()]
        for path in sorted(numbered, key=lambda p: (p.parent.name, int(p.name))):
            yield ModelRef(path.parent.name, int(path.name))

    def release_text(self, name: str = RELEASE_NAME) -> bytes:
        """The release that the repository names as active, or another of its files, as its bytes; raises `BadModel`."""
        return self._read(self.root / name, "it names the models to use")

    def release(self, name: str = RELEASE_NAME) -> Release:
        """The active release, or another file's, every card it names checked; raises `BadModel` naming the file and field."""
        text = self.release_text(name)
        release = Release.parse(text, hashlib.sha256(text).hexdigest(), str(self.root / name))
        for ref in release.models.values():
            self.card(ref)
        return release

    def _read(self, path: Path, hint: str) -> bytes:
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            if not self.root.is_dir():
                hint = f"there is no model repository at {self.root}; name one by --models or UNMASK_MODELS"
            raise BadModel(f"{path}: missing; {hint}") from error
        except OSError as error:
            raise BadModel(f"{path}: cannot be read ({error.strerror}); {hint}") from error

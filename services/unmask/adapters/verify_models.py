"""Holds a whole model repository against its cards, its release, its lock and the graphs themselves."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from unmask.adapters.model_repository import CONFIG_NAME, RELEASE_NAME, ModelRepository
from unmask.adapters.models_local import check_contract, check_golden, open_session
from unmask.adapters.triton_config import config_text
from unmask.adapters.wheel_weights import LOCK_NAME, read_lock
from unmask.core.cards import Card, ModelRef
from unmask.core.errors import BadModel


def problems(root: Path) -> Iterator[str]:
    """Every fault of the repository at `root`, one line each: files, contracts, config.pbtxt, weights.lock, releases."""
    repository = ModelRepository(root)
    refs = list(repository.versions())
    if not refs:
        yield f"{root}: holds no model version"
    for ref in refs:
        yield from _version(repository, ref)
    leading = _released(repository)
    for name, same in groupby(refs, key=lambda ref: ref.name):
        yield from _config(repository, list(same), leading.get(name))
    yield from _lock(repository)
    for path in sorted({root / RELEASE_NAME, *root.glob("release-*.json")}):
        try:
            repository.release(path.name)
        except BadModel as error:
            yield error.detail


def configs(repository: ModelRepository) -> dict[Path, str]:
    """The config.pbtxt that every model should have, by path; raises `BadModel` where a card is broken."""
    leading = _released(repository)
    return {
        repository.root / name / CONFIG_NAME: config_text([repository.card(ref) for ref in same], leading.get(name))
        for name, same in groupby(repository.versions(), key=lambda ref: ref.name)
    }


def _released(repository: ModelRepository) -> dict[str, int]:
    """Version by model that the release names, which Triton has to serve; none where the release cannot be read."""
    try:
        return {ref.name: ref.version for ref in repository.release().models.values()}
    except BadModel:
        return {}


def _version(repository: ModelRepository, ref: ModelRef) -> Iterator[str]:
    try:
        card = repository.card(ref)
    except BadModel as error:
        yield error.detail
        return
    for name in card.files:
        try:
            data = repository.file(ref, name)
            if name == "model.onnx":
                session = open_session(data, 1, f"model {ref.name}/{ref.version}")
                check_contract(card, session)
                check_golden(card, session)
        except BadModel as error:
            yield error.detail
            continue
        stated = _stated_bytes(card, name)
        if stated not in {None, len(data)}:
            yield f"{repository.folder(ref) / name}: has {len(data)} bytes, the card says {stated}"


def _stated_bytes(card: Card, name: str) -> object:
    entry = card.raw["files"][name]
    return entry.get("bytes") if isinstance(entry, dict) else None


def _config(repository: ModelRepository, refs: list[ModelRef], leading: int | None) -> Iterator[str]:
    path = repository.root / refs[0].name / CONFIG_NAME
    try:
        wanted = config_text([repository.card(ref) for ref in refs], leading)
    except BadModel as error:
        # A broken card has been named already; cards that contradict each other have not.
        if "card.json" not in error.detail:
            yield error.detail
        return
    found = path.read_text(encoding="utf-8") if path.is_file() else None
    if found != wanted:
        yield f"{path}: {'missing' if found is None else 'is not what the cards give'}; run `unmask models config`"


def _lock(repository: ModelRepository) -> Iterator[str]:
    """What is fetched must be what the cards name."""
    try:
        entries = read_lock(repository.root)
    except BadModel as error:
        yield error.detail
        return
    for weights, product in ((entry.name, product) for entry in entries.values() for product in entry.products):
        name, version, file = Path(product.path).parts
        try:
            card = repository.card(ModelRef(name, int(version)))
        except BadModel:
            continue
        if card.files.get(file) != product.sha256:
            yield f"{repository.root / LOCK_NAME}: {weights}: {product.path}: its sha256 is not the one that the card names"

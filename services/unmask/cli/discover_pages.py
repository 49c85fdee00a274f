"""What `unmask discover --out` leaves: of each cluster its pictures, its cases and a contact sheet; a page with all of them."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image, ImageDraw, ImageFont

from unmask.cli.access import moment
from unmask.cli.output import note
from unmask.core.errors import BadConfig, BadImage, UnknownBlob
from unmask.core.readouts import UNKNOWN

if TYPE_CHECKING:
    from unmask.cli.discover_faces import Faces, Stranger
    from unmask.core.domain import Case
    from unmask.core.images import Pixels

COLUMNS: Final = ("file", "case", "tenant", "submitted", "label", "score", "doubt", "unknown", "box", "copy_of")
_SUFFIX: Final = {"JPEG": "jpg", "TIFF": "tif"}
_TILE: Final = 144
_CAPTION: Final = 18
_ACROSS: Final = 8
# At most so many faces on a sheet: the most typical ones.
_SHOWN: Final = 64
# As many samples as `unmask-train adapt` takes.
_WRITTEN: Final = 1000


def usable(out: Path) -> None:
    """Makes the folder, readable by its owner alone; raises `BadConfig` when it holds anything, or cannot be made."""
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise BadConfig(f"{out}: is not empty; name a folder that is new or empty")
    except OSError as error:
        raise BadConfig(f"{out}: {error.strerror}") from error


def write_cluster(faces: Faces, members: Sequence[Stranger], folder: Path) -> int:
    """Writes `folder` and `folder.png` beside it; returns how many pictures came there.  What was erased meanwhile does not.

    The sheet lies outside: `unmask-train adapt` takes every picture of its samples' folder.
    """
    rows: list[dict[str, str]] = []
    tiles: list[tuple[Pixels, str]] = []
    folder.mkdir(mode=0o700)
    if len(members) > _WRITTEN:
        note(f"{folder.name}: the {_WRITTEN} most typical of its {len(members)} pictures are written; adapt takes no more")
    for member in members[:_WRITTEN]:
        name = f"{member.picture.sha256}.{_suffix(member.picture.format)}"
        try:
            data = faces.data(member.picture)
            if len(tiles) < _SHOWN:
                tiles.append((faces.cut(faces.pixels(data), member.row), _caption(member)))
        except (UnknownBlob, BadImage) as error:
            note(f"case {member.case.id}: its picture cannot be read any more ({error.detail}); left out")
            continue
        (folder / name).write_bytes(data)
        rows += _rows(member, name)
    (folder / "cases.csv").write_text(_csv(rows), encoding="utf-8")
    if tiles:
        contact_sheet(tiles).save(folder.with_name(f"{folder.name}.png"))
    return sum(not row["copy_of"] for row in rows)


def _suffix(kind: str) -> str:
    return _SUFFIX.get(kind, kind.lower())


def _caption(member: Stranger) -> str:
    score = "-" if member.face.score is None else f"{member.face.score:.2f}"
    return f"{member.face.label.value} {score}" + (f" x{len(member.cases)}" if member.copies else "")


def _rows(member: Stranger, name: str) -> Iterator[dict[str, str]]:
    """The picture's own case, then those of its near-duplicates."""
    face = member.face
    shares = face.generator or {}
    figures = {
        "label": face.label.value,
        "score": _number(face.score),
        "doubt": _number(face.doubt),
        "unknown": _number(shares.get(UNKNOWN)),
        "box": " ".join(f"{value:.2f}" for value in face.box),
    }
    yield {**_about(member.case), **figures, "file": name, "copy_of": ""}
    for case in member.copies:
        yield {**_about(case), "file": "", "copy_of": member.case.id}


def _about(case: Case) -> dict[str, str]:
    return {"case": case.id, "tenant": case.tenant, "submitted": moment(case.created_at)}


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _csv(rows: Sequence[dict[str, str]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def contact_sheet(tiles: Sequence[tuple[Pixels, str]]) -> Image.Image:
    """A grid of (H, W, 3) uint8 faces with a line under each."""
    across = min(len(tiles), _ACROSS)
    down = -(-len(tiles) // across)
    sheet = Image.new("RGB", (across * _TILE, down * (_TILE + _CAPTION)), (255, 255, 255))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    for index, (pixels, caption) in enumerate(tiles):
        x, y = index % across * _TILE, index // across * (_TILE + _CAPTION)
        sheet.paste(Image.fromarray(pixels).resize((_TILE - 2, _TILE - 2), Image.Resampling.LANCZOS), (x + 1, y + 1))
        draw.text((x + 3, y + _TILE), caption, font=font, fill=(31, 35, 40))
    return sheet


def write_page(out: Path, clusters: Sequence[dict[str, Any]], intro: str) -> None:
    """index.html, whole in itself: every cluster with its sheet."""
    pages = Environment(
        loader=PackageLoader("unmask.cli", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = [{**one, "sheet": _inlined(out / f"cluster-{one['number']}.png")} for one in clusters]
    text = pages.get_template("discover.html.j2").render(clusters=shown, intro=intro)
    (out / "index.html").write_text(text, encoding="utf-8")


def _inlined(sheet: Path) -> str:
    """A sheet as base64 of a JPEG, so that the page needs no other file; empty where there is none."""
    if not sheet.is_file():
        return ""
    data = io.BytesIO()
    with Image.open(sheet) as image:
        image.save(data, format="JPEG", quality=85)
    return base64.b64encode(data.getvalue()).decode()

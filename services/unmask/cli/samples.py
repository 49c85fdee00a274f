"""Confirmed pictures as a folder that training reads: the files under their sha256, and a manifest beside them."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from unmask.cli.access import moment
from unmask.cli.inputs import shown
from unmask.cli.output import note
from unmask.core.access import AuditEntry
from unmask.core.errors import BadConfig, StoreCorrupt, UnknownBlob
from unmask.core.review import SampleFilter, Truth

if TYPE_CHECKING:
    from unmask.bootstrap import Parts
    from unmask.core.access import Caller
    from unmask.core.review import Sample

MANIFEST: Final = "manifest.csv"
# What `unmask-train prepare` needs, and where each picture is from.
COLUMNS: Final = ("path", "label", "generator", "source", "group", "split", "licence", "case", "decided_at")
_SUFFIX: Final = {"JPEG": "jpg", "TIFF": "tif"}


@dataclass(frozen=True, slots=True)
class Exported:
    """Pictures written, and those that were there before."""

    written: int
    kept: int


def export(parts: Parts, caller: Caller, wanted: SampleFilter, out: Path) -> Exported:
    """Writes what is not there yet; nothing that is there is changed.  What is there and confirmed no more is said on stderr.

    Raises `BadConfig` for a folder with another kind of manifest, or that cannot be written to.
    """
    rows = _read(out / MANIFEST)
    before = len(rows)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for sample in parts.desk.reviews.samples(caller.tenant, wanted):
            row = _row(sample)
            if row["path"] not in rows and _saved(parts, sample, out / row["path"]):
                rows[row["path"]] = row
        if len(rows) > before:
            _write(out / MANIFEST, rows)
    except OSError as error:
        raise BadConfig(f"{out}: {error.strerror}") from error
    if before:
        _say_stale(parts, caller, rows, out)
    done = Exported(len(rows) - before, before)
    detail = {
        "out": str(out.resolve()),
        "generator": wanted.generator,
        "truth": wanted.truth or "",
        "written": str(done.written),
    }
    told = {name: value for name, value in detail.items() if value}
    parts.desk.audit(AuditEntry(parts.desk.clock.now(), caller.tenant, caller.actor, "review.export", "", told))
    return done


def _row(sample: Sample) -> dict[str, str]:
    case, said = sample.case, sample.decision
    kind = sample.picture.format
    return {
        "path": f"{case.sha256}.{_SUFFIX.get(kind, kind.lower())}",
        "label": said.truth,
        "generator": "" if said.truth == Truth.REAL else said.generator or "unknown",
        "source": f"review-{case.tenant}",
        # Pictures of one post or video are alike: they never stand on both sides of a split.
        "group": f"{case.tenant}:{case.media.parent or case.sha256}",
        "split": "train",
        "licence": f"reviewed upload of tenant {case.tenant}",
        "case": case.id,
        "decided_at": moment(said.at),
    }


def _saved(parts: Parts, sample: Sample, path: Path) -> bool:
    """Whether the picture is there now; one that was erased meanwhile is not."""
    from unmask.adapters.wheel_weights import write_atomically

    if path.exists():  # written by a run that did not come to its manifest
        data = path.read_bytes()
    else:
        try:
            data = parts.blobs.get(sample.picture.blob_key)
        except UnknownBlob:
            note(f"case {sample.case.id}: its picture is gone (erased meanwhile?); left out")
            return False
    if hashlib.sha256(data).hexdigest() != sample.case.sha256:
        raise StoreCorrupt(f"{path if path.exists() else sample.picture.blob_key}: its bytes are not those of its sha256")
    if not path.exists():
        write_atomically(path, data)
    return True


def _read(manifest: Path) -> dict[str, dict[str, str]]:
    """The rows that are there, by path."""
    if not manifest.exists():
        return {}
    try:
        with manifest.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise BadConfig(f"{manifest}: this is no manifest of `unmask review export`; name another folder")
            return {row["path"]: row for row in reader}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadConfig(f"{manifest}: cannot be read ({error})") from error


def _write(manifest: Path, rows: Mapping[str, dict[str, str]]) -> None:
    from unmask.adapters.wheel_weights import write_atomically

    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows.values())
    write_atomically(manifest, text.getvalue().encode())


def _say_stale(parts: Parts, caller: Caller, rows: Mapping[str, dict[str, str]], out: Path) -> None:
    """Erased, appealed or decided otherwise since they were written: whoever trains has to take them out."""
    samples = parts.desk.reviews.samples(caller.tenant, SampleFilter())
    now = {row["path"]: (row["label"], row["generator"]) for row in map(_row, samples)}
    for path, row in rows.items():
        if row["source"] == f"review-{caller.tenant}" and now.get(path) != (row["label"], row["generator"]):
            said = " ".join(now[path]).strip() if path in now else "nothing that is confirmed (erased or appealed)"
            note(f"{shown(str(out / path))}: written as {row['label']} {row['generator']}, now {said}; take it out")

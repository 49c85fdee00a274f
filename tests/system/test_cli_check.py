"""`unmask check` as a shell runs it: codes, JSON lines, stdin, folders, names, hostile files."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

from tests.pictures import jpeg, png_header, text_as_jpeg, truncated
from tests.system.command import run
from tests.system.tiny_models import dark_picture, face_picture

REAL = face_picture(red=10, blue=10, seed=1)
SYNTHETIC = face_picture(red=210, blue=10, seed=2)
MANIPULATED = face_picture(red=10, blue=210, seed=3)


def _write(path: Path | bytes, data: bytes) -> Path:
    place = Path(os.fsdecode(path))
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    return place


@pytest.fixture
def mixed(tmp_path: Path) -> list[Path]:
    """Pictures with something refused between them."""
    files = {"a.png": REAL, "empty.jpg": b"", "b.png": SYNTHETIC, "text.jpg": text_as_jpeg(), "c.png": dark_picture()}
    paths = [_write(tmp_path / name, data) for name, data in files.items()]
    return [paths[0], tmp_path / "gone.png", *paths[1:]]


def test_json_is_one_object_a_line_in_input_order_with_errors_in_their_places(tiny: Path, mixed: list[Path]) -> None:
    ran = run("check", "--json", "--models", tiny, *mixed)
    assert ran.code == 1
    assert [line["path"] for line in ran.lines] == [str(path) for path in mixed]
    assert [line.get("label", line.get("error")) for line in ran.lines] == [
        "real", "bad_image", "bad_image", "synthetic", "bad_image", "no_face"
    ]  # fmt: skip
    assert {line["schema"] for line in ran.lines if "label" in line} == {"unmask.verdict/1"}
    assert set(ran.lines[1]) == {"path", "error", "detail"}
    assert ran.lines[1]["detail"] == "not found"
    assert ran.err == ""


def test_every_picture_judged_is_exit_0_and_what_is_found_is_in_the_table(tiny: Path, tmp_path: Path) -> None:
    paths = [_write(tmp_path / f"{i}.png", data) for i, data in enumerate((REAL, SYNTHETIC, MANIPULATED))]
    ran = run("check", "--models", tiny, *paths)
    assert ran.code == 0
    head, *rows = ran.out.decode().splitlines()
    assert head.split() == ["picture", "label", "score", "generator", "regions", "action", "ms"]
    assert [row.split()[1] for row in rows] == ["real", "synthetic", "manipulated"]
    assert "family_a" in rows[1]
    assert max(map(len, (head, *rows))) <= 80
    assert ran.complaint == "unmask: 1 manipulated, 1 real, 1 synthetic"


def test_the_worst_code_wins(tiny: Path, tmp_path: Path, mixed: list[Path]) -> None:
    """A refused picture and one that no model could judge: 3, not 1."""
    broken = Path(shutil.copytree(tiny, tmp_path / "models"))
    (broken / "detector/1/model.onnx").write_bytes(b"no model")
    ran = run("check", "--json", "--models", broken, *mixed)
    assert ran.code == 3
    assert [line.get("error", line.get("label")) for line in ran.lines] == [
        "bad_model", "bad_image", "bad_image", "bad_model", "bad_image", "no_face"
    ]  # fmt: skip


def test_one_picture_on_stdin(tiny: Path) -> None:
    ran = run("check", "--json", "--models", tiny, "-", stdin=SYNTHETIC)
    assert (ran.code, ran.lines[0]["path"], ran.lines[0]["label"]) == (0, "-", "synthetic")
    assert run("check", "--json", "--models", tiny, "-", stdin=b"").lines[0]["error"] == "bad_image"


def test_stdin_named_twice_is_wrong_usage_before_anything_is_judged(tiny: Path, tmp_path: Path) -> None:
    ran = run("check", "--json", "--models", tiny, _write(tmp_path / "a.png", REAL), "-", "-", stdin=REAL)
    assert (ran.code, ran.out) == (2, b"")
    assert "named once" in ran.complaint


def test_stdin_over_the_limit_is_refused(tiny: Path) -> None:
    ran = run("check", "--json", "--models", tiny, "-", stdin=bytes(5000), UNMASK_MAX_BYTES="4096")
    assert ran.code == 1
    assert "4096 bytes" in ran.lines[0]["detail"]


def test_folders_are_searched_sorted_and_links_to_folders_are_not_followed(tiny: Path, tmp_path: Path) -> None:
    for name in ("b/2.PNG", "b/1.jpeg", "a.png", "c/deep/er/3.webp", "notes.txt", "b/readme"):
        _write(tmp_path / "top" / name, dark_picture() if not name.endswith(("txt", "me")) else b"words")
    (tmp_path / "top/b/loop").symlink_to(tmp_path / "top")
    ran = run("check", "--json", "--models", tiny, tmp_path / "top")
    assert ran.code == 0
    names = [str(Path(line["path"]).relative_to(tmp_path / "top")) for line in ran.lines]
    assert names == ["a.png", "b/1.jpeg", "b/2.PNG", "c/deep/er/3.webp"]
    assert ran.complaint.endswith("2")


def test_a_folder_without_pictures_is_refused_and_keeps_its_place(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    picture = _write(tmp_path / "a.png", REAL)
    ran = run("check", "--json", "--models", tiny, tmp_path / "empty", picture, tmp_path / "empty")
    assert ran.code == 1
    assert [line.get("error") for line in ran.lines] == ["bad_image", None, "bad_image"]
    assert "holds no pictures" in ran.lines[0]["detail"]


NAMES = {
    b"with space.png": "with space.png",
    b"new\nline.png": r"new\nline.png",
    b"not-utf8-\xff\xe9.png": r"not-utf8-\xff\xe9.png",
    b"\x1b[31mred\x07.png": r"\x1b[31mred\x07.png",
    "überall-日本.png".encode(): "überall-日本.png",
    "back\u202ewards.png".encode(): r"back\u202ewards.png",
    b"back\\xff.png": r"back\\xff.png",
    b"--json.png": "--json.png",
}


def test_hostile_names_are_escaped_in_json_table_and_errors(tiny: Path, tmp_path: Path) -> None:
    for name in NAMES:
        _write(os.fsencode(tmp_path) + b"/" + name, b"")
    ran = run("check", "--json", "--models", tiny, tmp_path)
    assert ran.code == 1
    assert {line["path"].removeprefix(f"{tmp_path}/") for line in ran.lines} == set(NAMES.values())
    table = run("check", "--models", tiny, tmp_path)
    assert len(table.out.splitlines()) == 1 + len(NAMES)
    assert not {*(table.out + table.err.encode())} & {0x1B, 0x07, 0xFF}


def test_json_is_utf8_whatever_the_locale_and_the_table_never_fails(tiny: Path, tmp_path: Path) -> None:
    picture = _write(tmp_path / "é日本.png", REAL)
    for encoding in ("ascii", "latin-1"):
        ran = run("check", "--json", "--models", tiny, picture, PYTHONIOENCODING=encoding)
        assert (ran.code, ran.lines[0]["path"]) == (0, str(picture))
        table = run("check", "--models", tiny, picture, PYTHONIOENCODING=encoding)
        assert (table.code, b"real" in table.out) == (0, True)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.symlink_to("/nowhere/at/all"), "a broken symbolic link"),
        (os.mkfifo, "is not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "is not a regular file"),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_bytes(text_as_jpeg()), ""),
        (lambda path: path.write_bytes(truncated(jpeg())), "cut off"),
        (lambda path: path.write_bytes(png_header(30000, 30000)), "30000"),
        (lambda path: path.symlink_to(path), "symbolic link"),
    ],
    ids="link fifo device empty text truncated bomb loop".split(),
)
def test_what_is_no_picture_is_refused_by_name_and_in_a_folder(tiny: Path, tmp_path: Path, make: object, said: str) -> None:
    path = tmp_path / "in" / "x.jpg"
    path.parent.mkdir()
    make(path)  # type: ignore[operator]
    ran = run("check", "--json", "--models", tiny, path, path.parent, timeout=20)
    assert ran.code == 1
    by_name, found = ran.lines
    assert by_name == found
    assert (by_name["path"], by_name["error"]) == (str(path), "bad_image")
    assert said in by_name["detail"]
    assert ran.err == ""


def test_devices_sockets_and_names_that_are_too_long(tiny: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s.png"))
        ran = run("check", "--json", "--models", tiny, "/dev/zero", tmp_path / "s.png", "x" * 300, "", timeout=20)
    assert ran.code == 1
    assert [line["error"] for line in ran.lines] == ["bad_image"] * 4
    assert "too long" in ran.lines[2]["detail"]


def test_a_huge_file_is_refused_without_being_read(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "huge.jpg"
    with path.open("wb") as file:
        file.write(jpeg())
        file.truncate(200 * 1024 * 1024)
    ran = run("check", "--json", "--models", tiny, *[path] * 20, timeout=30)
    assert ran.code == 1
    assert {line["error"] for line in ran.lines} == {"bad_image"}
    assert "20971520 bytes" in ran.lines[0]["detail"]

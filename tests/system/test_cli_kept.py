"""What a run leaves: overlays, the page, kept verdicts and what a policy would make of them."""

from __future__ import annotations

import io
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from tests.pictures import jpeg
from tests.system.command import run
from tests.system.tiny_models import dark_picture, face_picture

HOSTILE = b'<script>alert(1)</script>"onload=\x1b[31m\xff.png'.replace(b"/", b"|")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five inputs: manipulated, synthetic under a hostile name, no face, no picture, and a tiny one."""
    place = tmp_path_factory.mktemp("pictures")
    (place / "a.png").write_bytes(face_picture(red=10, blue=210))
    Path(os.fsdecode(os.fsencode(place) + b"/" + HOSTILE)).write_bytes(face_picture(red=210, blue=10))
    (place / "dark.png").write_bytes(dark_picture())
    (place / "empty.jpg").write_bytes(b"")
    tiny = io.BytesIO()
    Image.new("RGB", (1, 1)).save(tiny, "PNG")
    (place / "one.png").write_bytes(tiny.getvalue())
    return place


class _Page(HTMLParser):
    """Every tag and address of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in {"src", "href", "action", "data", "srcset"}:
                self.addresses.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)


def test_overlays_and_the_page_are_whole_and_hold_nothing_foreign(tiny: Path, folder: Path, tmp_path: Path) -> None:
    marked, path = tmp_path / "new/marked", tmp_path / "new/page.html"
    ran = run("check", "--json", "--models", tiny, "--overlay", marked, "--report", path, folder)
    assert ran.code == 1
    assert sorted(path.parent.iterdir()) == [marked, path]
    names = sorted(file.name for file in marked.iterdir())
    assert len(names) == 4
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+-[0-9a-f]{8}\.png", name) for name in names)
    for name in names:
        with Image.open(marked / name) as image:
            image.load()
            assert (image.mode, max(image.size) >= 480) == ("RGB", True)
    text = path.read_text("utf-8")
    page = _Page(text)
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    assert page.handlers == []
    assert len(page.addresses) == 4
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)
    assert "url(" not in text
    assert "&lt;script&gt;alert(1)&lt;|script&gt;" in text
    assert "\x1b" not in text
    assert page.tags.count("article") == 5
    assert text.endswith("</html>\n")


def test_the_overlay_shows_what_was_found_where_it_was_found(tiny: Path, tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    source.write_bytes(face_picture(red=10, blue=210))
    ran = run("check", "--json", "--models", tiny, "--overlay", tmp_path / "out", source)
    (face,) = ran.lines[0]["faces"]
    (drawn,) = (tmp_path / "out").iterdir()
    before, after = Image.open(source).convert("RGB"), Image.open(drawn).convert("RGB")
    assert before.size == after.size
    x0, y0, x1, _ = (round(value) for value in face["box"])
    left, right = x0 + (x1 - x0) // 4, x1 - (x1 - x0) // 4
    assert after.getpixel((right, y0)) != before.getpixel((right, y0)), "the box is drawn"
    polygon = face["regions"][0]["polygon"]
    middle = tuple(round(sum(axis) / len(polygon)) for axis in zip(*polygon, strict=True))
    assert after.getpixel(middle) != before.getpixel(middle), "the region is tinted"
    corner = (before.width - 2, before.height - 2)
    assert after.getpixel(corner) == before.getpixel(corner)
    assert left < right


def test_overlays_below_the_searched_folder_are_no_inputs_of_the_next_run(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(dark_picture())
    for _ in range(2):
        ran = run("check", "--json", "--models", tiny, "--overlay", tmp_path / "marked", tmp_path)
        assert [Path(line["path"]).name for line in ran.lines] == ["a.png"]


def test_stdin_can_be_drawn(tiny: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    ran = run("check", "--models", tiny, "--overlay", tmp_path / "o", "--report", page, "-", stdin=jpeg())
    assert ran.code == 0
    assert len(list((tmp_path / "o").iterdir())) == 1
    assert "data:image/jpeg" in page.read_text()


def test_larger_limits_hold_for_drawing_too(tiny: Path, tmp_path: Path) -> None:
    wide = tmp_path / "wide.png"
    Image.new("L", (21000, 3)).save(wide)
    ran = run("check", "--json", "--models", tiny, "--overlay", tmp_path / "o", wide, UNMASK_MAX_SIDE="30000")
    assert (ran.code, len(list((tmp_path / "o").iterdir()))) == (0, 1)
    assert "not drawn" not in ran.err


@pytest.fixture(scope="module")
def state(tiny: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that kept its cases."""
    place = tmp_path_factory.mktemp("kept") / "state"
    assert run("check", "--json", "--models", tiny, "--state", place, folder).code == 1
    return place


def test_the_same_bytes_get_a_new_case_with_the_same_verdict(tiny: Path, tmp_path: Path) -> None:
    first, again = tmp_path / "first.png", tmp_path / "again.png"
    for path in (first, again):
        path.write_bytes(face_picture(red=210, blue=10))
    (one,) = run("check", "--json", "--models", tiny, "--state", tmp_path / "state", first).lines
    (two,) = run("check", "--json", "--models", tiny, "--state", tmp_path / "state", again).lines
    assert one["id"] != two["id"]
    assert (one["path"], two["path"]) == (str(first), str(again))
    own = {"id", "path", "timings_ms"}
    assert {k: v for k, v in one.items() if k not in own} == {k: v for k, v in two.items() if k not in own}
    assert "align" not in two["timings_ms"], "nothing was computed again"


def test_nothing_is_kept_without_a_state(tiny: Path, folder: Path, tmp_path: Path) -> None:
    assert run("check", "--json", "--models", tiny, folder, TMPDIR=str(tmp_path), HOME=str(tmp_path)).code == 1
    assert list(tmp_path.iterdir()) == []


BLOCK = """\
schema: unmask.policy/1
name: strict
rules:
  - when: {label: [synthetic, manipulated]}
    then: block
otherwise: allow
"""


def test_policy_test_says_what_would_change(tiny: Path, state: Path, tmp_path: Path) -> None:
    (tmp_path / "strict.yaml").write_text(BLOCK)
    ran = run("policy", "test", tmp_path / "strict.yaml", "--state", state, "--models", tiny, "--json")
    assert ran.code == 0
    changes = [(line["before"], line["after"]) for line in ran.lines]
    assert {(before["label"], before["action"], after["label"], after["action"]) for before, after in changes} == {
        ("synthetic", "review", "synthetic", "block"),
        ("manipulated", "review", "manipulated", "block"),
    }
    assert "2 review -> block" in ran.complaint
    people = run("policy", "test", tmp_path / "strict.yaml", "--state", state, "--models", tiny)
    assert people.out.decode().splitlines()[-1].startswith("unmask: strict: 2 review -> block")


def test_the_default_policy_changes_nothing_on_what_it_decided(tiny: Path, state: Path, tmp_path: Path) -> None:
    default = run("policy", "show")
    (tmp_path / "default.yaml").write_bytes(default.out)
    ran = run("policy", "test", tmp_path / "default.yaml", "--state", state, "--models", tiny)
    (line,) = ran.out.decode().splitlines()
    assert re.fullmatch(r"unmask: default: \d+ unchanged", line)


def test_policy_test_needs_a_state_and_a_right_policy(tiny: Path, state: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text(BLOCK.replace("block", "forgive"))
    ran = run("policy", "test", tmp_path / "wrong.yaml", "--state", state, "--models", tiny)
    assert (ran.code, "line 5" in ran.complaint) == (2, True)
    (tmp_path / "strict.yaml").write_text(BLOCK)
    for more in ((), ("--state", str(tmp_path / "gone")), ("--state", str(tmp_path))):
        ran = run("policy", "test", tmp_path / "strict.yaml", "--models", tiny, *more)
        assert (ran.code, ran.out) == (2, b""), more
        assert "--state" in ran.complaint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["strict.yaml", "wrong.yaml"]


def test_another_policy_judges_the_kept_pictures_anew(tiny: Path, state: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "strict.yaml").write_text(BLOCK)
    ran = run("check", "--json", "--models", tiny, "--state", state, "--policy", tmp_path / "strict.yaml", folder / "a.png")
    assert (ran.lines[0]["action"], ran.lines[0]["policy"]["name"]) == ("block", "strict")
    assert json.dumps(ran.lines[0])

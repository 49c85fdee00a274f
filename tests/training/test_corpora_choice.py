"""Which pictures of corpora are prepared: groups and splits that do not move, doubles, and what was prepared before."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.training.test_corpora import HEADER, tree
from unmask_training.data.corpora import read_all
from unmask_training.data.corpora_choice import Choice, choose, split_of


def choice_of(*roots: Path, share: float = 0.5, index: Sequence[Mapping[str, object]] = ()) -> Choice:
    """What is chosen of corpora."""
    return choose(read_all(list(roots)), share, "mine", index)


def test_the_same_bytes_share_a_group_and_splits_do_not_move(tmp_path: Path) -> None:
    root = tree(tmp_path / "c", *(f"real/{i}.png" for i in range(40)))
    shutil.copy(root / "real/7.png", root / "real/again.png")
    first = {one.path: one for one in choice_of(root).fresh}
    assert first["c/real/7.png"].group == first["c/real/again.png"].group and len({one.group for one in first.values()}) == 40
    assert {one.split for one in first.values()} == {"train", "val"} and all(one.licence == "mine" for one in first.values())
    more = {one.path: one for one in choice_of(tree(root, "real/more.png")).fresh}
    assert all(more[path].split == one.split for path, one in first.items() if path != "c/real/0.png")
    assert {one.split for one in choice_of(root, share=0.0).fresh} == {"train"}


def test_a_share_of_groups_is_held_out() -> None:
    held = sum(split_of(f"g{i}", 0.1) == "val" for i in range(5000))
    assert 400 < held < 600
    assert all(split_of(f"g{i}", 0.3) == "val" for i in range(2000) if split_of(f"g{i}", 0.1) == "val")


def test_doubles_leave_training_and_stay_held_out(tmp_path: Path) -> None:
    root = tree(tmp_path / "d", "train/real/a.png", "train/sdxl/b.png", "train/sdxl/c.png", "train/real/d.png")
    for new in ("test/real/held.png", "val/sdxl/false.png"):
        (root / new).parent.mkdir(parents=True)
        shutil.copy(root / "train/real/a.png" if "held" in new else root / "train/real/d.png", root / new)
    choice = choice_of(root)
    assert {one.path for one in choice.fresh} == {"d/test/real/held.png", "d/train/sdxl/b.png", "d/train/sdxl/c.png"}
    reasons = dict(choice.left_out)
    assert reasons["d/train/real/a.png"] == "the same bytes as d/test/real/held.png, which is held out"
    assert "several labels" in reasons["d/val/sdxl/false.png"] == reasons["d/train/real/d.png"]


def test_what_was_prepared_before_stays_and_is_held_against_new_pictures(tmp_path: Path) -> None:
    one, two = tree(tmp_path / "one", "real/train/a.png", "real/val/b.png"), tmp_path / "two"
    index = [
        {"path": p.path, "sha256": p.sha256, "label": p.label, "part": {"train": "fit"}.get(p.split, "val")}
        for p in choice_of(one).fresh
    ]
    for new, old in {
        "real/val/x.png": "train/a",
        "real/train/y.png": "val/b",
        "sdxl/val/z.png": "val/b",
        "real/val/w.png": "val/b",
    }.items():
        (two / new).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(one / f"real/{old}.png", two / new)
    choice = choice_of(one, two, index=index)
    assert sorted(choice.done) == ["one/real/train/a.png", "one/real/val/b.png"] and [p.path for p in choice.fresh] == []
    assert "prepared in part fit" in dict(choice.left_out)["two/real/val/x.png"]
    shutil.rmtree(two / "sdxl")
    choice = choice_of(one, two, index=index)
    assert [p.path for p in choice.fresh] == ["two/real/val/w.png"]
    assert "one/real/train/a.png" not in dict(choice.left_out)
    shutil.copy(one / "real/val/b.png", one / "real/train/a.png")
    assert "another file was prepared under this name" in dict(choice_of(one, index=index).left_out)["one/real/train/a.png"]


def test_a_file_that_is_not_there_is_left_out(tmp_path: Path) -> None:
    root = tree(tmp_path / "m", "a.png", texts={"manifest.csv": HEADER + "a.png,real,,mine,,,,\nb.png,real,,mine,,,,\n"})
    choice = choice_of(root)
    assert [one.path for one in choice.fresh] == ["m/a.png"] and choice.left_out == [
        ("m/b.png", "not read: No such file or directory")
    ]

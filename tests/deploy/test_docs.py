"""The documents: they build strictly, load nothing from elsewhere, and every command in them is one that there is."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT, missing
from tests.deploy.composed import FOLDER, compose
from tests.deploy.conftest import tool
from tests.deploy.documents import PAGES, blocks, commands, composed, exists, unmask_arguments
from tests.system.tiny_models import face_picture
from unmask.cli.main import parser

ALONE = [block for block in blocks() if block.tried == "alone"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [tool("mkdocs"), "build", "--strict", "--site-dir", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_it_builds_without_a_warning(site: Path) -> None:
    assert {path.with_suffix(".html").name for path in PAGES} <= {path.name for path in site.glob("*.html")}


def test_a_dead_link_or_anchor_does_not_build(tmp_path: Path) -> None:
    """That the check of links is one."""
    (tmp_path / "docs").mkdir()
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    (tmp_path / "mkdocs.yml").write_text(re.sub(r"nav:\n(  - .*\n)+", "", config), encoding="utf-8")
    for text in ("[x](gone.md)", "[x](#nowhere)", "[x](index.md#nowhere)"):
        (tmp_path / "docs/index.md").write_text(f"# A\n\n{text}\n", encoding="utf-8")
        command = [tool("mkdocs"), "build", "--strict", "--site-dir", tmp_path / "site"]
        assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode != 0, text


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    loads = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=["'](?:https?:)?//""")
    assert not [path.name for path in site.rglob("*.html") if loads.search(path.read_text(encoding="utf-8"))]


def test_every_command_of_unmask_is_one() -> None:
    found = [(page, told) for page, line in commands() if (told := unmask_arguments(line)) is not None and "…" not in line]
    assert len(found) > 30
    for page, told in found:
        try:
            parser().parse_args(told)
        except SystemExit as error:
            # In prose a verb may stand for itself: `unmask token create`.
            is_bare = len(told) <= 2 and not any(word.startswith("-") for word in told)
            assert is_bare and not _refused([*told, "--help"]), f"{page}: unmask {' '.join(told)}: {error}"


def _refused(arguments: list[str]) -> bool:
    try:
        parser().parse_args(arguments)
    except SystemExit as error:
        return error.code != 0
    return False


def test_every_command_of_unmask_train_is_one() -> None:
    python = ROOT / ".venv-training/bin/python"
    if not python.is_file():
        missing("the training environment is not there: run make setup-training")
    found = [line.split()[1:] for _, line in commands() if line.startswith("unmask-train ") and "…" not in line]
    assert found
    code = (
        "import json, sys; from unmask_training.cli import parser; [parser().parse_args(one) for one in json.load(sys.stdin)]"
    )
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'services'}:{ROOT / 'training'}"}
    done = subprocess.run([python, "-c", code], input=json.dumps(found), env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_target_of_make_is_one() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    found = {line.split()[1] for _, line in commands() if line.startswith("make ")}
    assert {"image", "secrets", "image-check"} <= found <= targets


def test_every_line_of_compose_names_files_and_services_that_there_are() -> None:
    known = set(compose("compose.split.yaml")["services"])
    found = [told for _, line in commands() if (told := composed(line)) is not None]
    assert len(found) > 8
    for files, verb, words in found:
        assert all(exists(file) for file in files), files
        assert verb in {"up", "run", "stop", "exec", "restart", "ps", "logs"}
        services = [word for word in words if word in known or (verb == "stop" and not word.startswith("-"))]
        assert set(services) <= known
        for scaled in re.findall(r"--scale (\w+)=", " ".join(words)):
            assert scaled in known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_it_names_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`((?:deploy|helm|locks|proto|bench|training|model_repository)/[\w./-]+)`", text)
    made = {"deploy/secrets", "deploy/.env", "deploy/secrets/grafana_admin_password", "model_repository/detector/4"}
    chart = {name for name in named if name.startswith("helm/")}
    assert not [name for name in set(named) - made - chart if not exists(name)]


@pytest.mark.parametrize("block", ALONE, ids=lambda block: f"{block.page}: {block.lines[0]}")
def test_what_is_marked_as_tried_alone_works(assembled: Path, models: Path, tmp_path: Path, block: object) -> None:
    """With the image's root and the models that come along."""
    (tmp_path / "photo.jpg").write_bytes(face_picture())
    env = {"PATH": f"{assembled / 'root/bin'}:/usr/bin:/bin", "HOME": str(tmp_path), "UNMASK_MODELS": str(models)}
    command = ["bash", "-euo", "pipefail", "-c", block.text]  # type: ignore[attr-defined]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def test_the_pages_have_blocks_that_are_tried() -> None:
    assert len(ALONE) >= 2 and len([block for block in blocks() if block.tried == "platform"]) >= 6
    assert {block.tried for block in blocks()} == {"", "alone", "platform"}


def test_ports_of_the_table_are_those_of_the_compose_file() -> None:
    table = (ROOT / "docs/install.md").read_text(encoding="utf-8")
    told = {int(port) for row in re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE) for port in row.split(",")}
    opened = {int(port.split(":")[-1]) for one in compose()["services"].values() for port in one.get("ports", ())}
    assert told == opened and (FOLDER / "compose.yaml").is_file()

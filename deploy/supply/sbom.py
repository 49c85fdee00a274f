"""Bill of materials (CycloneDX) of what the image runs: `python -m deploy.supply.sbom FOLDER OUT`, after `make image-root`.

cyclonedx-py reads the assembled root; added are the hashes that the lock allows, the wheel's own, and licences that the
metadata leave vague.  The same sources and lock give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

CHECKOUT: Final = Path(__file__).resolve().parents[2]
LOCK: Final = CHECKOUT / "locks/service.txt"
POLICY: Final = Path(__file__).with_name("policy.toml")


def bill(folder: Path) -> dict[str, Any]:
    """The bill of `folder`/root and the wheel in `folder`/dist; raises `SystemExit` with what cyclonedx-py said."""
    program = Path(sys.executable).with_name("cyclonedx-py")
    options = ["--output-reproducible", "--short-PURLs", "--mc-type", "application", "--output-file", "-", "--pyproject"]
    command: list[str | Path] = [program, "environment", *options, CHECKOUT / "pyproject.toml", folder / "root/bin/python"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"sbom: cyclonedx-py: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    [wheel] = (folder / "dist").glob("*.whl")
    told = found["metadata"]["component"]
    told["purl"] = f"pkg:pypi/{told['name']}@{told['version']}"
    told["hashes"] = [{"alg": "SHA-256", "content": hashlib.sha256(wheel.read_bytes()).hexdigest()}]
    allowed, stated = (
        locked_hashes(LOCK.read_text(encoding="utf-8")),
        tomllib.loads(POLICY.read_text(encoding="utf-8"))["stated"],
    )
    for component in found["components"]:
        _complete(component, allowed, stated)
    return found


def locked_hashes(lock: str) -> dict[str, list[str]]:
    """By `name==version` the sha256 of each file that the lock allows."""
    entries = re.findall(r"^([\w.-]+==\S+)((?:[^\n]*\\\n\s+--hash=sha256:[0-9a-f]{64})+)", lock, re.MULTILINE)
    return {name: re.findall(r"sha256:([0-9a-f]{64})", hashes) for name, hashes in entries}


def _complete(component: dict[str, Any], allowed: Mapping[str, list[str]], stated: Mapping[str, str]) -> None:
    """Adds the files that the lock allows, and the licence that is stated where the metadata give no SPDX one."""
    locked = f"{component['name'].lower().replace('_', '-')}=={component['version']}"
    if locked not in allowed:
        raise SystemExit(f"sbom: {locked} is in the image and not in {LOCK.name}")
    files = [{"alg": "SHA-256", "content": sha256} for sha256 in sorted(allowed[locked])]
    reference = {"type": "distribution", "url": component["purl"], "comment": f"files that {LOCK.name} allows", "hashes": files}
    component.setdefault("externalReferences", []).append(reference)
    if component["name"] in stated:
        component["licenses"] = [{"expression": stated[component["name"]], "acknowledgement": "concluded"}]


def main(folder: str, out: str) -> int:
    """Writes the bill."""
    found = bill(Path(folder))
    Path(out).write_text(json.dumps(found, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{out}: {len(found['components'])} components")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

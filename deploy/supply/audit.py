"""Known vulnerabilities of what the image's lock names: `python -m deploy.supply.audit [LOCK]` asks through pip-audit.

Exit code 0: every package was looked up and none is known to be vulnerable; 1: some are; 2: pip-audit is missing; 3: the
service did not answer for some, which is no answer at all.  pip-audit itself ends with 0 when it could look nothing up.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from deploy.supply.sbom import LOCK

_SECONDS: Final = 600
NOT_THERE: Final = 2
NO_ANSWER: Final = 3


def verdict(answer: dict[str, Any]) -> tuple[int, list[str]]:
    """The exit code for pip-audit's JSON, and what to say."""
    packages = answer["dependencies"]
    unknown = [one for one in packages if "skip_reason" in one]
    bad = [
        f"{one['name']} {one['version']}: {vuln['id']}, mended in {', '.join(vuln['fix_versions']) or 'no version yet'}"
        for one in packages
        for vuln in one.get("vulns", ())
    ]
    if unknown:
        bad.append(f"not looked up: {len(unknown)} of {len(packages)} packages, the first because: {unknown[0]['skip_reason']}")
    if not packages or unknown:
        return NO_ANSWER, bad or ["no package was looked up"]
    return (1, bad) if bad else (0, [f"{len(packages)} packages looked up, no vulnerability known"])


def ask(program: str, lock: str) -> tuple[int, list[str]]:
    """Asks for the packages of a lock."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as wanted:
        wanted.write("\n".join(re.findall(r"^[\w.-]+==[\w.+!-]+", lock, re.MULTILINE)))
        wanted.flush()
        command = [
            program,
            "--requirement",
            wanted.name,
            "--no-deps",
            "--disable-pip",
            "--format",
            "json",
            "--progress-spinner",
            "off",
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
            return verdict(json.loads(done.stdout))
        except subprocess.TimeoutExpired:
            return NO_ANSWER, [f"no answer within {_SECONDS} s"]
        except ValueError:
            reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            return NO_ANSWER, [f"the service of vulnerabilities cannot be reached: {reason}"]


def main(lock: str = str(LOCK)) -> int:
    """The command: one package first, since a service that cannot tell of one need not be asked for all."""
    beside = Path(sys.executable).with_name("pip-audit")
    program = str(beside) if beside.is_file() else shutil.which("pip-audit")
    if program is None:
        print("audit: pip-audit is not installed here: nothing was looked up", file=sys.stderr)
        return NOT_THERE
    text = Path(lock).read_text(encoding="utf-8")
    first = re.findall(r"^[\w.-]+==\S+", text, re.MULTILINE)[:1]
    code, lines = ask(program, "\n".join(first))
    if code in {0, 1}:
        code, lines = ask(program, text)
    for line in lines:
        print(f"audit: {line}", file=sys.stderr if code else sys.stdout)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

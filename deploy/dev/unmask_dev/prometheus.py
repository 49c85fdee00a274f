"""Prometheus of the machine (Debian: `apt install prometheus`), scraping what it is told of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode
from urllib.request import urlopen

from unmask_dev.ports import LOOPBACK, free_port
from unmask_dev.process import Process, Server, ServerFailed, ServerMissing

_ANSWER_SECONDS: Final = 30


class Prometheus(Server):
    """Scrapes `targets` (HOST:PORT of each job) every `every` seconds and evaluates the rule files as often.

    Its own pace is a test's or a developer's: whatever interval a rule file asks for becomes that one too.
    """

    name = "prometheus"

    def __init__(
        self, folder: Path, targets: Mapping[str, Sequence[str]], rules: Sequence[Path] = (), every: float = 1.0
    ) -> None:
        super().__init__(folder)
        self.port = self.kept.get("port", free_port)
        self._targets, self._rules, self._every = dict(targets), tuple(rules), every

    @property
    def url(self) -> str:
        """Of its pages and its API."""
        return f"http://{LOOPBACK}:{self.port}"

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query; raises `ServerFailed` for an expression that it does not take."""
        found: list[dict[str, Any]] = self._ask("query", query=expression)["result"]
        return found

    def parse(self, expression: str) -> None:
        """Raises `ServerFailed` unless the expression is PromQL."""
        self._ask("format_query", query=expression)

    def targets(self) -> list[dict[str, Any]]:
        """What it scrapes, each with its health."""
        found: list[dict[str, Any]] = self._ask("targets", state="active")["activeTargets"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        """The groups of rules, each rule with its health and state."""
        found: list[dict[str, Any]] = self._ask("rules")["groups"]
        return found

    def _ask(self, what: str, **told: str) -> Any:
        address = f"{self.url}/api/v1/{what}?{urlencode(told)}"
        try:
            with urlopen(address, timeout=_ANSWER_SECONDS) as answer:
                return json.load(answer)["data"]
        except OSError as error:
            reason = error.read().decode(errors="replace") if hasattr(error, "read") else str(error)
            raise ServerFailed(f"prometheus: {what} {told}: {reason}") from error

    def _process(self) -> Process:
        pace = f"{round(self._every * 1000)}ms"
        rules = [self._copied(path, pace) for path in self._rules]
        scrapes = [{"job_name": job, "static_configs": [{"targets": list(at)}]} for job, at in self._targets.items()]
        told = {
            "global": {"scrape_interval": pace, "scrape_timeout": pace, "evaluation_interval": pace},
            "rule_files": [str(path) for path in rules],
            "scrape_configs": scrapes,
        }
        # JSON is YAML.
        (self.folder / "prometheus.yml").write_text(json.dumps(told, indent=2))
        options = {
            "config.file": self.folder / "prometheus.yml",
            "storage.tsdb.path": self.folder / "data",
            "web.listen-address": f"{LOOPBACK}:{self.port}",
            "query.lookback-delta": "1m",
            "log.level": "warn",
        }
        argv: list[str | Path] = [binary(), *(f"--{name}={value}" for name, value in options.items())]
        return Process(argv, folder=self.folder, log=self.folder / "prometheus.log")

    def _copied(self, path: Path, pace: str) -> Path:
        """The rule file at this server's pace."""
        lines = path.read_text(encoding="utf-8").splitlines()
        own = [
            f"{line.partition('interval:')[0]}interval: {pace}" if line.strip().startswith("interval:") else line
            for line in lines
        ]
        copy = self.folder / path.name
        copy.write_text("\n".join(own) + "\n", encoding="utf-8")
        return copy

    def _use(self) -> object:
        with urlopen(f"{self.url}/-/ready", timeout=5) as answer:
            return answer.status == 200


def binary(name: str = "prometheus") -> Path:
    """The program, or `promtool` beside it; raises `ServerMissing`."""
    found = shutil.which(name)
    if found is None:
        raise ServerMissing(f"no {name}: apt install prometheus")
    return Path(found)

"""The compose file as a text: it keeps the specification, says nothing that our commands would refuse, opens one port."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deploy.image.assemble import CHECKOUT
from tests.conftest import ROOT, missing
from tests.deploy.composed import FOLDER, compose, filled, of_unmask, settings_of
from tests.deploy.conftest import TOOLS
from unmask.cli.main import parser
from unmask.cli.serve import SERVICES
from unmask.cli.work import KINDS
from unmask.working import work_of

FILES = ("compose.yaml", "compose.split.yaml", "compose.gpu.yaml")
WHOLE = {name: compose(*([] if name == "compose.yaml" else [name])) for name in FILES}
KNOWN_SETTINGS = set(re.findall(r'"(UNMASK_[A-Z0-9_]+)"', (ROOT / "services/unmask/settings.py").read_text(encoding="utf-8")))
EVERY = [(file, name) for file in FILES for name in WHOLE[file]["services"]]
OURS = [(file, name) for file in FILES for name in of_unmask(WHOLE[file])]
each_service = pytest.mark.parametrize(("file", "name"), EVERY, ids=lambda text: text)
each_of_ours = pytest.mark.parametrize(("file", "name"), OURS, ids=lambda text: text)


def told(file: str, name: str) -> dict[str, Any]:
    service: dict[str, Any] = WHOLE[file]["services"][name]
    return service


def command_of(service: dict[str, Any]) -> list[str]:
    return [str(word) for word in service.get("command", [])]


def names_in(service: dict[str, Any], key: str) -> set[str]:
    """Names of secrets, networks or services that it leans on, in the short or the long form."""
    return {item["source"] if isinstance(item, dict) else item for item in service.get(key, ())}


@pytest.mark.parametrize("file", FILES)
def test_it_keeps_to_the_compose_specification(file: str) -> None:
    """By the specification's own JSON schema, which check-jsonschema brings along."""
    found = TOOLS / "check-jsonschema"
    program = found if found.is_file() else shutil.which("check-jsonschema")
    if program is None:
        missing("check-jsonschema is not there: run make setup-deploy")
    command = [program, "--builtin-schema", "vendor.compose-spec", FOLDER / file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@each_of_ours
def test_every_command_is_one_of_the_command_line(file: str, name: str) -> None:
    service = told(file, name)
    if service.get("entrypoint"):
        assert service["entrypoint"] == ["install-models"] and command_of(service) == ["/models"]
        return
    if "admin" in service.get("profiles", ()):
        assert not command_of(service)
        return
    args = parser().parse_args(command_of(service))
    if command_of(service)[0] == "work":
        assert work_of(args.kinds, args.concurrency, ()).kinds


@pytest.mark.parametrize("file", FILES)
def test_every_service_and_every_kind_of_worker_is_there(file: str) -> None:
    running = [command_of(one) for one in of_unmask(WHOLE[file]).values() if one.get("scale") != 0 and one.get("command")]
    served = [word for command in running if command[0] == "serve" for word in command[1:] if word in SERVICES]
    worked = [word for command in running if command[0] == "work" for word in command[1:]]
    assert sorted(served) == sorted(SERVICES) and sorted(worked) == sorted(KINDS)


@each_of_ours
def test_every_variable_is_a_setting(file: str, name: str) -> None:
    found = {variable.removesuffix("_FILE") for variable in settings_of(told(file, name))}
    assert found <= KNOWN_SETTINGS and (found or name == "models")


@each_of_ours
def test_every_secret_that_a_variable_names_is_mounted_and_every_mounted_one_is_used(file: str, name: str) -> None:
    service = told(file, name)
    files = {
        value.removeprefix("/run/secrets/") for value in settings_of(service).values() if value.startswith("/run/secrets/")
    }
    assert files == names_in(service, "secrets")


@each_of_ours
def test_where_a_variable_leads_there_is_a_service_in_reach(file: str, name: str) -> None:
    service, others = told(file, name), WHOLE[file]["services"]
    for variable in ("UNMASK_S3", "UNMASK_TRITON"):
        if address := settings_of(service).get(variable):
            host = re.sub(r"^https?://", "", address).partition(":")[0]
            assert names_in(others[host], "networks") & names_in(service, "networks")


@each_of_ours
def test_ours_are_as_shut_in_as_they_can_be(file: str, name: str) -> None:
    service = told(file, name)
    assert (
        service["read_only"] is True and service["cap_drop"] == ["ALL"] and "no-new-privileges:true" in service["security_opt"]
    )
    assert service["init"] is True and service["tmpfs"] and "privileged" not in service and "user" not in service
    assert service["volumes"] == (["models:/models"] if name == "models" else ["models:/models:ro"])
    # Out go only those that callers reach, and those that fetch pictures or send webhooks.
    reach = {"serve", "stages", "deliver"} if file != "compose.split.yaml" else {name}
    assert "outside" not in names_in(service, "networks") or name in reach


@each_of_ours
def test_keys_of_webhooks_are_where_they_are_needed_alone(file: str, name: str) -> None:
    assert ("webhook_keys" in names_in(told(file, name), "secrets")) == (name in {"deliver", "admin"})


@each_service
def test_whatever_it_names_is_declared(file: str, name: str) -> None:
    whole, service = WHOLE[file], told(file, name)
    assert names_in(service, "secrets") <= whole["secrets"].keys()
    assert names_in(service, "networks") <= whole["networks"].keys() and names_in(service, "networks")
    assert set(service.get("depends_on", {})) <= whole["services"].keys()
    for volume in service.get("volumes", ()):
        source = volume.partition(":")[0]
        assert source in whole["volumes"] or (
            source.startswith(".") and (source.startswith("../helm") or (FOLDER / source).exists())
        )


@each_service
def test_what_it_waits_for_can_come_true(file: str, name: str) -> None:
    """Healthy needs a health check, completed a command that ends; nothing waits in a circle."""
    services = WHOLE[file]["services"]
    for other, wanted in told(file, name).get("depends_on", {}).items():
        check = services[other].get("healthcheck", {})
        ends = services[other].get("restart") == "on-failure"
        assert bool(check.get("test")) if wanted["condition"] == "service_healthy" else ends
    seen: set[str] = set()
    front = {name}
    while front := {other for one in front for other in services[one].get("depends_on", {})} - seen:
        assert name not in front
        seen |= front


@each_service
def test_nothing_but_grpc_is_public(file: str, name: str) -> None:
    ports = told(file, name).get("ports", [])
    public = [port for port in ports if not port.startswith("127.0.0.1:")]
    assert public == (["0.0.0.0:50051:50051"] if name == "serve" else [])
    if public:
        assert {"UNMASK_TLS_CERT_FILE", "UNMASK_TLS_CERT"} & settings_of(told(file, name)).keys()


@each_service
def test_every_image_is_an_exact_one(file: str, name: str) -> None:
    image = told(file, name)["image"]
    repository, tag = re.fullmatch(r"([\w./-]+):([\w.-]+)(?:@sha256:[0-9a-f]{64})?", image).groups()  # type: ignore[union-attr]
    assert tag != "latest" and re.search(r"\d+\.\d+", tag), image
    # The last two by tag alone: no digest of theirs is agreed on in public.
    assert "@sha256:" in image or repository in {"unmask", "rabbitmq", "nvcr.io/nvidia/tritonserver"}


def test_triton_is_new_enough_and_loads_only_what_it_is_told() -> None:
    triton = told("compose.yaml", "triton")
    assert tuple(map(int, re.findall(r":(\d+)\.(\d+)-py3", triton["image"])[0])) >= (26, 7)
    words = command_of(triton)
    loaded = {word.removeprefix("--load-model=") for word in words if word.startswith("--load-model=")}
    assert "--model-control-mode=explicit" in words
    assert loaded == {path.parent.name for path in (ROOT / "model_repository").glob("*/config.pbtxt")}


@each_service
def test_it_is_watched_unless_it_ends(file: str, name: str) -> None:
    service = told(file, name)
    check = service.get("healthcheck", {})
    assert check.get("disable") is True or len(check["test"]) > 1
    assert (check.get("disable") is True) == (name in {"models", "migrate", "admin"})


def test_no_password_stands_in_a_file() -> None:
    for path in (FOLDER / name for name in (*FILES, ".env.example")):
        for line in path.read_text(encoding="utf-8").splitlines():
            named = re.search(r"(?i)(password|secret_key|token|webhook_keys)\w*\s*[:=]\s*(\S+)", line.partition("#")[0])
            assert named is None or "/run/secrets/" in named[2] or "UNMASK_SECRETS" in named[2] or named[2].startswith("{"), (
                line
            )


def test_the_example_of_settings_names_every_variable_with_its_default() -> None:
    texts = "".join((FOLDER / name).read_text(encoding="utf-8") for name in FILES)
    defaults = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", texts))
    lines = [line for line in (FOLDER / ".env.example").read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    assert dict(line.split("=", 1) for line in lines) == defaults


def test_variables_of_the_example_are_taken() -> None:
    assert filled("${A:-b}/${C:-}", {"A": "x"}) == "x/"
    assert compose(UNMASK_PORT="443", UNMASK_BIND="192.0.2.1")["services"]["serve"]["ports"] == ["192.0.2.1:443:50051"]


def test_the_image_is_of_this_version() -> None:
    version = re.search(r'^version = "(.+)"', (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert version is not None
    assert told("compose.yaml", "serve")["image"] == f"unmask:{version[1]}"
    assert told("compose.yaml", "models")["image"] == f"unmask:{version[1]}-models"
    dockerfile = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    assert f"ARG VERSION={version[1]}\n" in dockerfile
    for name in ("models", "migrate"):
        assert f" AS {told('compose.yaml', name)['build']['target']}\n" in dockerfile


def _checked(program: str, *arguments: str | Path) -> str:
    if shutil.which(program) is None:
        missing(f"{program} is not there: install the system's prometheus and prometheus-alertmanager")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_takes_the_configuration() -> None:
    assert "SUCCESS" in _checked("promtool", "check", "config", FOLDER / "prometheus/prometheus.yml")


def test_amtool_takes_the_configuration() -> None:
    assert "1 receivers" in _checked("amtool", "check-config", FOLDER / "alertmanager/alertmanager.yml")


def test_prometheus_looks_for_every_process_of_ours_and_every_server_that_has_figures() -> None:
    import yaml

    config = yaml.safe_load((FOLDER / "prometheus/prometheus.yml").read_text(encoding="utf-8"))
    [ours] = next(job for job in config["scrape_configs"] if job["job_name"] == "unmask")["dns_sd_configs"]
    lasting = {name for file, name in OURS if not told(file, name)["healthcheck"].get("disable")}
    assert set(ours["names"]) == lasting and ours["port"] == 9464
    targets = {target for job in config["scrape_configs"] for one in job.get("static_configs", []) for target in one["targets"]}
    assert {target.partition(":")[0] for target in targets} - {"localhost"} <= WHOLE["compose.yaml"]["services"].keys()


def test_grafana_is_given_folders_that_its_provisioning_names() -> None:
    import yaml

    provider = yaml.safe_load((FOLDER / "grafana/provisioning/dashboards/unmask.yaml").read_text(encoding="utf-8"))[
        "providers"
    ][0]
    source = yaml.safe_load((FOLDER / "grafana/provisioning/datasources/prometheus.yaml").read_text(encoding="utf-8"))[
        "datasources"
    ][0]
    mounts = [volume.split(":")[1] for volume in told("compose.yaml", "grafana")["volumes"]]
    assert provider["options"]["path"] in mounts and "/etc/grafana/provisioning" in mounts
    assert source["url"] == "http://prometheus:9090" and source["uid"] == "prometheus"

"""Secrets are named and never given; certificates and what comes from outside stores fit together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.helm.binaries import ROOT
from tests.helm.rendering import Rendering, case, containers, environment, leaves, main_of, pod_of, render

SECRET = {"UNMASK_DATABASE", "UNMASK_BROKER", "UNMASK_S3_ACCESS_KEY", "UNMASK_S3_SECRET_KEY", "UNMASK_WEBHOOK_KEYS"}
# A URL with a password in it, a private key, a token of ours.
LOOKS_SECRET = re.compile(r"://[^/\s:@]+:[^/\s@]+@|-----BEGIN|unm_[A-Za-z0-9]{8}")


def test_no_rendering_holds_a_secret(rendering: Rendering) -> None:
    assert rendering.kind("Secret") == []
    for document in rendering.documents:
        assert not [path for path, value in leaves(document) if isinstance(value, str) and LOOKS_SECRET.search(value)]


def test_secret_variables_come_from_the_named_secrets(rendering: Rendering) -> None:
    for workload in rendering.workloads():
        for container in containers(workload):
            env = environment(container)
            for name in SECRET & env.keys():
                assert env[name].keys() == {"secretKeyRef"} and env[name]["secretKeyRef"].keys() == {"name", "key"}
            assert all(isinstance(env[name], str) for name in env.keys() - SECRET)


def test_each_secret_goes_only_to_who_uses_it(rendering: Rendering) -> None:
    shares = {"UNMASK_DATABASE", "UNMASK_BROKER", "UNMASK_S3_ACCESS_KEY", "UNMASK_S3_SECRET_KEY"}
    for name, deployment in rendering.processes().items():
        own = {"UNMASK_WEBHOOK_KEYS"} if name == "delivery-work" and rendering.kind("NetworkPolicy") else set()
        assert SECRET & environment(main_of(deployment)).keys() == shares | own
    for job in rendering.kind("Job"):
        assert SECRET & environment(main_of(job)).keys() == {"UNMASK_DATABASE"}
    for container in (c for w in rendering.workloads() for c in pod_of(w).get("initContainers", [])):
        assert SECRET & environment(container).keys() == {"UNMASK_S3_ACCESS_KEY", "UNMASK_S3_SECRET_KEY"}


def test_operators_secrets_are_taken_as_they_are(production: Rendering) -> None:
    env = environment(main_of(production.processes()["sweeper-work"]))
    assert env["UNMASK_DATABASE"] == {"secretKeyRef": {"name": "unmask-postgres-app", "key": "uri"}}
    assert env["UNMASK_BROKER"] == {"secretKeyRef": {"name": "unmask-rabbitmq-default-user", "key": "connection_string"}}


def test_servers_hold_a_certificate_and_ask_callers_for_one_where_told() -> None:
    for name, asks in (("default", False), ("production", True)):
        for process, deployment in case(name).processes().items():
            if not process.endswith("-serve"):
                continue
            env = environment(main_of(deployment))
            assert env["UNMASK_TLS_CERT"] == "/etc/unmask/tls/tls.crt" and env["UNMASK_TLS_KEY"] == "/etc/unmask/tls/tls.key"
            assert ("UNMASK_TLS_CA" in env) == asks
            assert _tls_secret(deployment) == "unmask-tls"


def test_triton_and_who_asks_it_show_each_other_certificates(production: Rendering) -> None:
    for deployment in production.processes().values():
        env = environment(main_of(deployment))
        if "UNMASK_TRITON" in env:
            assert env.keys() >= {"UNMASK_TRITON_CA", "UNMASK_TLS_CERT", "UNMASK_TLS_KEY"}
    triton = production.one("Deployment", "unmask-triton")
    assert {"--grpc-use-ssl=1", "--grpc-use-ssl-mutual=1"} <= set(main_of(triton)["args"])
    assert _tls_secret(triton) == "unmask-tls"
    # And a worker that needs no certificate has none.
    assert _tls_secret(production.processes()["sweeper-work"]) is None


def _tls_secret(deployment: dict[str, Any]) -> str | None:
    found = [volume["secret"]["secretName"] for volume in pod_of(deployment)["volumes"] if "secret" in volume]
    return found[0] if found else None


def test_cert_managers_certificate_is_the_secret_and_names_every_service(production: Rendering) -> None:
    (certificate,) = production.kind("Certificate")
    spec = certificate["spec"]
    assert spec["secretName"] == "unmask-tls" and spec["issuerRef"] == {"name": "internal", "kind": "ClusterIssuer"}
    services = {service["metadata"]["name"] for service in production.kind("Service")}
    assert services <= set(spec["dnsNames"]) and {f"{name}.unmask.svc" for name in services} <= set(spec["dnsNames"])
    assert "unmask.example.net" in spec["dnsNames"]
    # Triton is asked by a name that the certificate holds.
    asked = environment(main_of(production.processes()["classification-work"]))["UNMASK_TRITON"]
    assert asked.rpartition(":")[0] in spec["dnsNames"]


def test_an_external_secret_makes_keys_that_are_used(production: Rendering) -> None:
    (external,) = production.kind("ExternalSecret")
    made = {entry["secretKey"] for entry in external["spec"]["data"]}
    name = external["spec"]["target"]["name"]
    used = {
        value["secretKeyRef"]["key"]
        for workload in production.workloads()
        for container in containers(workload)
        for value in environment(container).values()
        if isinstance(value, dict) and value["secretKeyRef"]["name"] == name
    }
    assert made == used


def test_hooks_come_in_the_order_that_each_needs_the_one_before(production: Rendering) -> None:
    """Secret, then the way to the database, then the migration; made again, the secret is never gone in between."""
    hooks = [d for d in production.documents if "helm.sh/hook" in d["metadata"].get("annotations", {})]
    order = sorted(hooks, key=lambda d: int(d["metadata"]["annotations"]["helm.sh/hook-weight"]))
    assert [d["kind"] for d in order] == ["ExternalSecret", "NetworkPolicy", "Job"]
    assert {d["metadata"]["annotations"]["helm.sh/hook"] for d in hooks} == {"pre-install,pre-upgrade"}
    assert order[0]["spec"]["target"]["creationPolicy"] == "Orphan"
    (job,) = production.kind("Job")
    assert main_of(job)["args"] == ["db", "upgrade"] and pod_of(job)["restartPolicy"] == "Never"
    # What the chart makes later is not there yet when the job runs.
    assert pod_of(job)["serviceAccountName"] == "default"
    assert production.kind("ServiceAccount")[0]["metadata"]["name"] == "unmask"


def test_a_release_and_a_policy_reach_the_pods_and_roll_them(tmp_path: Path) -> None:
    release, policy = ROOT / "model_repository/release.json", tmp_path / "policy.yaml"
    policy.write_text("rules: []\n", encoding="utf-8")
    plain, told = render(), render("--set-file", f"models.release={release}", "--set-file", f"policy={policy}")
    (first,) = told.kind("ConfigMap")
    # Byte for byte: a release is known by its sha256.
    assert first["data"] == {"release.json": release.read_text(encoding="utf-8"), "policy.yaml": "rules: []\n"}
    worker = told.processes()["classification-work"]
    mounts = {mount["mountPath"]: mount.get("subPath") for mount in main_of(worker)["volumeMounts"]}
    assert mounts["/models/release.json"] == "release.json"
    assert environment(main_of(worker))["UNMASK_POLICY"] == "/etc/unmask/first/policy.yaml"
    stamp = [r.processes()["classification-work"]["spec"]["template"]["metadata"]["annotations"] for r in (plain, told)]
    assert stamp[0] != stamp[1]
    assert plain.kind("ConfigMap") == []

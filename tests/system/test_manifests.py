"""The manifests say what the program understands. Their form is checked by deploy/check.sh."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from session_service.addresses import Address
from session_service.config import Settings, parse

BASE = Path(__file__).parents[2] / "deploy" / "base"


def load(name: str) -> dict[str, Any]:
    manifest: dict[str, Any] = yaml.safe_load((BASE / name).read_text("utf-8"))
    return manifest


def settings_of(manifest: dict[str, Any]) -> tuple[str, Settings]:
    """Parse a pod's arguments and variables as the program would."""
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    environment = {
        variable["name"]: variable.get("value", "postgresql://user@database/sessions") for variable in container["env"]
    }
    return parse(container["args"], environment)


def test_the_deployment_serves_on_the_ports_it_declares() -> None:
    manifest = load("deployment.yaml")
    command, settings = settings_of(manifest)
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert command == "serve"
    assert settings.database_url is not None
    assert ports == {
        "grpc": Address.parse(settings.listen).port,
        "ops": Address.parse(settings.ops_listen).port,
    }
    assert container["readinessProbe"]["grpc"]["port"] == ports["grpc"]


def test_the_job_migrates() -> None:
    command, settings = settings_of(load("migration-job.yaml"))
    assert command == "migrate"
    assert settings.database_url is not None


def test_the_job_and_the_deployment_have_secrets_of_their_own() -> None:
    secrets = {
        variable["valueFrom"]["secretKeyRef"]["name"]
        for name in ("deployment.yaml", "migration-job.yaml")
        for variable in load(name)["spec"]["template"]["spec"]["containers"][0]["env"]
        if "valueFrom" in variable
    }
    assert len(secrets) == 2


def test_a_pod_has_the_time_to_drain() -> None:
    pod = load("deployment.yaml")["spec"]["template"]["spec"]
    _, settings = settings_of(load("deployment.yaml"))
    (program, seconds) = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "sleep"
    assert pod["terminationGracePeriodSeconds"] > int(seconds) + settings.drain_timeout


def test_the_service_reaches_servers_and_not_the_job() -> None:
    selector = load("service.yaml")["spec"]["selector"].items()
    assert selector <= load("deployment.yaml")["spec"]["template"]["metadata"]["labels"].items()
    assert not selector <= load("migration-job.yaml")["spec"]["template"]["metadata"]["labels"].items()


@pytest.mark.parametrize("name", ["deployment.yaml", "migration-job.yaml"])
def test_pods_fit_the_restricted_profile(name: str) -> None:
    pod = load(name)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


@pytest.mark.parametrize("name", ["deployment.yaml", "migration-job.yaml"])
def test_kubernetes_adds_no_settings(name: str) -> None:
    """Service links would set SESSION_SERVICE_PORT and others: the prefix of the program's settings."""
    assert load(name)["spec"]["template"]["spec"]["enableServiceLinks"] is False

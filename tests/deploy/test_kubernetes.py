"""deploy/kubernetes: what the schemas allow, and what the manifests say of one another."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # nor are there stubs
import pytest
import yaml

from promo_service.settings import Settings
from tests.support.service import ROOT

Document = dict[str, Any]

FOLDER = ROOT / "deploy" / "kubernetes"
FILES = sorted(FOLDER.rglob("*.yaml"))
# The oldest that somebody may still run, and one of those that are maintained.
VERSIONS = ("1.27", "1.34")


def manifest(name: str) -> Document:
    """Return one manifest."""
    document: Document = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    return document


@pytest.fixture(scope="module")
def deployment() -> Document:
    """Provide the Deployment."""
    return manifest("deployment")


@pytest.fixture(scope="module")
def pods() -> list[Document]:
    """Provide the specification of every kind of pod."""
    cron = manifest("reconcile")["spec"]["jobTemplate"]
    owners = [manifest("deployment"), manifest("migrate"), cron]
    return [owner["spec"]["template"]["spec"] for owner in owners]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_manifest_is_what_the_schema_allows(path: Path, version: str) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        assert kubernetes_validate.validate(document, version, strict=True) == version


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("deployment", "readinessProbe", "readynessProbe"),
        ("deployment", "readOnlyRootFilesystem", "readOnlyRootFileSystem"),
        ("horizontalpodautoscaler", "averageUtilization: 60", "averageUtilization: 60%"),
        ("poddisruptionbudget", "maxUnavailable", "maxUnavailabel"),
        ("reconcile", "concurrencyPolicy", "concurrentPolicy"),
    ],
)
def test_a_field_that_is_wrong_is_seen(name: str, right: str, wrong: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text()
    assert right in text
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(
            yaml.safe_load(text.replace(right, wrong)), VERSIONS[-1], strict=True
        )


def test_selectors_find_the_pods_of_the_service_and_no_others(deployment: Document) -> None:
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert manifest("service")["spec"]["selector"] == labels
    assert manifest("poddisruptionbudget")["spec"]["selector"]["matchLabels"] == labels
    for job in (manifest("migrate"), manifest("reconcile")["spec"]["jobTemplate"]):
        assert job["spec"]["template"]["metadata"]["labels"] != labels


def test_names_that_are_referred_to_exist(deployment: Document, pods: list[Document]) -> None:
    target = manifest("horizontalpodautoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    names = {
        "configMapRef": manifest("configmap")["metadata"]["name"],
        "secretRef": manifest("example/secret")["metadata"]["name"],
    }
    for pod in pods:
        (container,) = pod["containers"]
        sources = {kind: ref["name"] for each in container["envFrom"] for kind, ref in each.items()}
        assert sources == names
    assert len({container["image"] for pod in pods for container in pod["containers"]}) == 1


def test_no_pod_runs_as_root_or_writes_to_its_image(pods: list[Document]) -> None:
    user = next(
        line.split()[1]
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.startswith("USER ")
    )
    for pod in pods:
        (container,) = pod["containers"]
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True
        assert f"{context['runAsUser']}:{context['runAsGroup']}" == user
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_a_pod_has_the_time_that_it_needs(deployment: Document) -> None:
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    graceful = runpy.run_path(str(ROOT / "gunicorn.conf.py"))["graceful_timeout"]
    _, before_sigterm = container["lifecycle"]["preStop"]["exec"]["command"]
    assert pod["terminationGracePeriodSeconds"] >= int(before_sigterm) + graceful + 5
    deadline = Settings("mongodb://db").request_timeout
    for probe in ("livenessProbe", "readinessProbe"):
        assert container[probe]["timeoutSeconds"] > deadline


def test_probes_and_services_reach_the_port_of_the_image(deployment: Document) -> None:
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (port,) = container["ports"]
    exposed = f"EXPOSE {port['containerPort']}"
    assert exposed in (ROOT / "Dockerfile").read_text().splitlines()
    assert manifest("service")["spec"]["ports"][0]["targetPort"] == port["name"]
    paths = {probe: container[probe]["httpGet"] for probe in container if probe.endswith("Probe")}
    assert {get["port"] for get in paths.values()} == {port["name"]}
    assert paths["livenessProbe"]["path"] == paths["startupProbe"]["path"] == "/healthz"
    assert paths["readinessProbe"]["path"] == "/readyz"


def test_there_is_memory_to_write_to(deployment: Document) -> None:
    pod = deployment["spec"]["template"]["spec"]
    (mount,) = pod["containers"][0]["volumeMounts"]
    assert mount["mountPath"] == "/dev/shm"  # noqa: S108 - where gunicorn.conf.py writes
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == mount["name"]]
    assert volume["emptyDir"]["medium"] == "Memory"

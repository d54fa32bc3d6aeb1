"""deploy/compose.yaml: what its schema allows, and what its parts say of one another."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from pymongo.uri_parser import parse_uri

from tests.support.service import ROOT

Document = dict[str, Any]

DEPLOY = ROOT / "deploy"
NAMED_SETTING = re.compile(r'"((?:PROMO_|MONGODB_|WEB_|PORT)\w*)"')


@pytest.fixture
def compose() -> Document:
    """Provide the file as Compose reads it, with its anchors resolved."""
    document: Document = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return document


@pytest.fixture
def services(compose: Document) -> dict[str, Document]:
    """Provide its services by name."""
    found: dict[str, Document] = compose["services"]
    return found


def complaints(compose: Document, folder: Path) -> str:
    """Return what the schema of Compose has against a document."""
    instance = folder / "compose.json"
    instance.write_text(json.dumps(compose))
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    checked = subprocess.run(
        [*command, str(instance)], capture_output=True, text=True, timeout=60, check=False
    )
    assert checked.returncode in (0, 1), checked.stderr
    return checked.stdout if checked.returncode else ""


def test_it_is_what_the_schema_allows(compose: Document, tmp_path: Path) -> None:
    assert complaints(compose, tmp_path) == ""


@pytest.mark.parametrize("field", ["read_only", "stop_grace_period", "depends_on", "healthcheck"])
def test_a_field_that_is_misspelt_is_seen(
    compose: Document, services: dict[str, Document], field: str, tmp_path: Path
) -> None:
    service = next(each for each in services.values() if field in each)
    service[field + "s"] = service.pop(field)
    assert field + "s" in complaints(compose, tmp_path)


def test_services_networks_and_volumes_that_are_named_exist(
    compose: Document, services: dict[str, Document]
) -> None:
    for service in services.values():
        assert set(service.get("depends_on", [])) <= set(services)
        assert set(service["networks"]) <= set(compose["networks"])
        sources = [volume.split(":")[0] for volume in service.get("volumes", [])]
        named = {source for source in sources if not source.startswith("./")}
        assert named <= set(compose["volumes"])
        assert all((DEPLOY / source).exists() for source in sources if source.startswith("./"))


def test_the_uri_names_the_members_of_the_replica_set(services: dict[str, Document]) -> None:
    uri = parse_uri(services["promo-1"]["environment"]["MONGODB_URI"])
    members = {name for name in services if re.fullmatch(r"mongo-\d", name)}
    assert {host for host, _ in uri["nodelist"]} == members
    assert len(members) == 3
    name = uri["options"]["replicaSet"]
    assert all(name in services[member]["command"] for member in members)
    assert f'_id: "{name}"' in (DEPLOY / "mongo" / "replica-set.js").read_text()


def test_nginx_names_the_instances_which_believe_its_address(
    services: dict[str, Document],
) -> None:
    conf = (DEPLOY / "nginx" / "servers.conf").read_text()
    servers = set(re.findall(r"^server (\S+):8000 ", conf, re.MULTILINE))
    assert servers == {"promo-1", "promo-2"} <= set(services)
    address = services["nginx"]["networks"]["service"]["ipv4_address"]
    for server in servers:
        assert services[server]["environment"]["PROMO_TRUSTED_PROXIES"] == address


def test_prometheus_asks_the_instances_and_reconcile_where_they_answer(
    services: dict[str, Document],
) -> None:
    configuration = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())
    asked = {
        job["job_name"]: [t for group in job["static_configs"] for t in group["targets"]]
        for job in configuration["scrape_configs"]
    }
    _, _, port = " ".join(services["reconcile"]["command"]).partition("--metrics-port ")
    assert asked == {
        "promo": ["promo-1:8000", "promo-2:8000"],
        "promo-reconcile": [f"reconcile:{port}"],
    }
    for target in chain(*asked.values()):
        shared = {*services[target.partition(":")[0]]["networks"]}
        assert shared & {*services["prometheus"]["networks"]}


def test_only_what_people_use_can_be_reached_and_only_from_here(
    services: dict[str, Document],
) -> None:
    ports = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert set(ports) == {"nginx", "prometheus", "grafana"}
    assert all(port.startswith("127.0.0.1:") for of_one in ports.values() for port in of_one)


def test_every_setting_is_one_that_the_service_reads(services: dict[str, Document]) -> None:
    readers = [ROOT / "promo_service" / "settings.py", ROOT / "gunicorn.conf.py"]
    known = {name for path in readers for name in NAMED_SETTING.findall(path.read_text())}
    manifest = yaml.safe_load((DEPLOY / "kubernetes" / "configmap.yaml").read_text())
    secret = yaml.safe_load((DEPLOY / "kubernetes" / "example" / "secret.yaml").read_text())
    assert set(services["promo-1"]["environment"]) <= known
    assert set(manifest["data"]) | set(secret["stringData"]) <= known

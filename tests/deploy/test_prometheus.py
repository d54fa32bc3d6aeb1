"""A real Prometheus reads the service as configured, and every query of ours has an answer."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml
from pymongo import MongoClient
from pymongo.database import Database

from promo_service.embedded import EmbeddedMongod, die_with_parent, free_port
from tests.conftest import StartService
from tests.support import unique_code
from tests.support.client import get, post
from tests.support.documents import promo_document, user
from tests.support.faults import failing
from tests.support.reconciling import ReconcileProcess
from tests.support.sale import Sale
from tests.support.service import ROOT, Service

Document = dict[str, Any]

CONFIGURATION = ROOT / "deploy" / "prometheus"
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "promo.json").read_text())
ALERTS = [
    rule
    for group in yaml.safe_load((CONFIGURATION / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target) for panel in PANELS for target in panel["targets"]]
# Enough to be in the range of a rate twice, with some to spare.
SCRAPES = 4
# mongod's MaxTimeMSExpired, which the driver does not try again.
OUT_OF_TIME = 50


def command(name: str) -> str:
    """Return the path of a command of Debian's package `prometheus`; its absence is a failure."""
    path = shutil.which(name)
    assert path, f"{name} is missing: apt-get install --no-install-recommends prometheus"
    return path


def promtool(*arguments: object) -> None:
    """Have a file checked."""
    done = subprocess.run(
        [command("promtool"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


class Prometheus:
    """A server that asks one service and reconcile every second, with our rules."""

    def __init__(self, url: str) -> None:
        self._url = url

    def api(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer of its HTTP API."""
        answer = get(f"{self._url}/api/v1/{path}?{urlencode(parameters)}")
        assert answer.status == 200, answer.text
        return answer.json["data"]

    def query(self, expression: str) -> dict[frozenset[tuple[str, str]], float]:
        """Evaluate an expression now; return the values by their labels."""
        result = self.api("query", query=expression)["result"]
        return {frozenset(s["metric"].items()): float(s["value"][1]) for s in result}


@contextmanager
def running_prometheus(ports: Mapping[str, int], folder: Path) -> Iterator[Prometheus]:
    """Run Prometheus with our configuration, except whom it asks, by job, and how often."""
    configuration = yaml.safe_load((CONFIGURATION / "prometheus.yaml").read_text())
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    configuration["rule_files"] = [str(CONFIGURATION / "alerts.yaml")]
    for job in configuration["scrape_configs"]:
        job["static_configs"] = [{"targets": [f"127.0.0.1:{ports[job['job_name']]}"]}]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
    address = f"127.0.0.1:{free_port()}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                command("prometheus"),
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - it makes one system call
        )
    try:
        wait_until_ready(f"http://{address}", process, folder / "log")
        yield Prometheus(f"http://{address}")
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when Prometheus answers; fail with its log otherwise."""
    deadline = time.monotonic() + 60
    while True:
        with suppress(OSError):
            if get(f"{url}/-/ready", timeout=5).status == 200:
                return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


@pytest.fixture(scope="module")
def shop(
    start_service: StartService, service_database: Database[Document]
) -> tuple[Service, Sale, Sale]:
    """Provide a service of two workers, a code on sale and one that cannot be understood."""
    # A deadline that a machine that does other work too can keep.
    service = start_service(workers=2, environ={"PROMO_REQUEST_TIMEOUT_MS": "20000"})
    on_sale = Sale.open(service_database, [service], maxUses=100_000)
    malformed = Sale.open(service_database, [service], maxUses="many")
    return service, on_sale, malformed


@pytest.fixture(scope="module")
def prometheus(
    shop: tuple[Service, Sale, Sale],
    client: MongoClient[Document],
    mongod: EmbeddedMongod,
    service_database: Database[Document],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Prometheus]:
    """Provide a Prometheus that has seen the service under a little load, and reconcile run."""
    service, folder = shop[0], tmp_path_factory.mktemp("prometheus")
    with (
        ReconcileProcess(mongod.uri, service_database.name, folder / "reconcile.log") as reconcile,
        running_prometheus(
            {"promo": service.port, "promo-reconcile": reconcile.port}, folder
        ) as prometheus,
    ):
        deadline = time.monotonic() + 90
        users = iter(range(1_000_000))
        while True:
            play(shop, client, users)
            seen = [
                min(prometheus.query(f"min(count_over_time({name}[1m]))").values(), default=0)
                for name in ("promo_database_failures_total", "promo_reconcile_runs_total")
            ]
            if min(seen) >= SCRAPES:
                break
            assert time.monotonic() < deadline, prometheus.api("targets")
            time.sleep(0.5)
        yield prometheus


def play(
    shop: tuple[Service, Sale, Sale], client: MongoClient[Document], users: Iterator[int]
) -> None:
    """Ask for everything once: what is accepted, refused, repeated, and what fails."""
    service, on_sale, malformed = shop
    mine = next(users)
    for _ in range(2):
        assert on_sale.ask(mine, orderId=f"order-{mine}").status == 200
    assert on_sale.ask(mine).json["code"] == "USER_LIMIT_REACHED"
    assert malformed.ask(mine).json["code"] == "INVALID_CODE"
    order = {"code": on_sale.promo["code"], "userId": user(next(users)), "orderAmount": 1}
    assert post(f"{service.api}/validate", order).status == 200
    assert get(f"{service.api}/{on_sale.promo['code']}").status == 200
    # The service's, not one of reconcile, which counts uses meanwhile.
    codes = f"{on_sale.database.name}.promo_codes"
    with failing(client, "aggregate", times=1, errorCode=OUT_OF_TIME, namespace=codes):
        assert on_sale.ask(next(users)).status == 503


def test_the_configuration_is_valid() -> None:
    promtool("check", "config", CONFIGURATION / "prometheus.yaml")


def test_each_alert_fires_when_it_should_and_not_when_all_is_well() -> None:
    promtool("test", "rules", CONFIGURATION / "alerts_test.yaml")


def test_each_alert_is_in_the_rule_tests() -> None:
    tested = (CONFIGURATION / "alerts_test.yaml").read_text()
    fires = set(re.findall(r'alertname="(\w+)", severity=', tested))
    assert fires == {rule["alert"] for rule in ALERTS}


def test_prometheus_evaluates_every_rule(prometheus: Prometheus) -> None:
    groups = prometheus.api("rules")["groups"]
    health = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
    assert health == {rule["alert"]: "ok" for rule in ALERTS}


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_what_an_alert_watches_is_there(prometheus: Prometheus, rule: Document) -> None:
    expression = without_threshold(rule["expr"])
    found = prometheus.query(expression)
    assert found, expression
    assert not any(math.isnan(value) for value in found.values())
    used = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
    for labels in found:
        assert used <= dict(labels).keys()


def without_threshold(expression: str) -> str:
    """Return what an alert compares with a number."""
    compared = re.fullmatch(r"(.+) (?:==|<|>) [\d.]+\s*", expression, re.DOTALL)
    assert compared, expression
    return compared[1]


@pytest.mark.parametrize(
    ("title", "target"), QUERIES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_panel_shows_what_its_legend_says(
    prometheus: Prometheus, title: str, target: Document
) -> None:
    expression = target["expr"].replace("$__rate_interval", "1m")
    found = prometheus.query(expression)
    assert found, f"{title}: {expression}"
    assert not any(math.isnan(value) for value in found.values())
    named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
    for labels in found:
        # `up` has no sum around it, and brings its job and name along.
        assert dict(labels).keys() - {"__name__", "job"} == named


def test_the_panels_tell_what_has_happened(
    prometheus: Prometheus, shop: tuple[Service, Sale, Sale]
) -> None:
    def labels(title: str, label: str) -> set[str]:
        (target,) = (target for panel, target in QUERIES if panel == title)
        found = prometheus.query(target["expr"].replace("$__rate_interval", "1m"))
        return {dict(each)[label] for each in found}

    _, on_sale, _ = shop
    assert labels("Answers to apply", "code") == {
        "OK", "USER_LIMIT_REACHED", "INVALID_CODE", "UNAVAILABLE",
    }  # fmt: skip
    assert labels("Answered 503", "reason") == {"queue", "deadline", "database"}
    assert labels("Commands", "command") >= {"aggregate", "update", "insert", "find"}
    assert labels("Uses left", "code") == {on_sale.promo["code"]}
    (left,) = prometheus.query("min by (code) (promo_uses_left)").values()
    # As the worker that was asked has last read it.
    assert 100_000 - on_sale.books().taken <= left <= 100_000


def test_what_reconcile_gives_back_is_seen(
    prometheus: Prometheus, service_database: Database[Document]
) -> None:
    (before,) = prometheus.query("sum(promo_reconcile_uses_given_back_total)").values()
    leaky = promo_document(unique_code(), currentUses=3)
    service_database["promo_codes"].insert_one(leaky)
    deadline = time.monotonic() + 60
    while True:
        (now,) = prometheus.query("sum(promo_reconcile_uses_given_back_total)").values()
        if now == before + 3:
            break
        assert time.monotonic() < deadline, f"{now - before} of 3 uses"
        time.sleep(0.2)


def test_the_dashboard_has_the_data_source_that_is_provisioned() -> None:
    folder = ROOT / "deploy" / "grafana" / "provisioning" / "datasources"
    (source,) = yaml.safe_load((folder / "prometheus.yaml").read_text())["datasources"]
    asked = {target["datasource"]["uid"] for _, target in QUERIES}
    assert asked == {source["uid"]}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])

"""What is counted as what, and that labels stay few."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Response
from prometheus_client.parser import text_string_to_metric_families
from pymongo import monitoring
from pymongo.monitoring import _EventListeners

from promo_service.errors import DatabaseUnavailable, Unavailable
from promo_service.metrics import Metrics, driver
from promo_service.metrics.on_sale import FORGOTTEN_AFTER, MOST_CODES, REMEMBERED, OnSale
from promo_service.observe import measure_requests, shed_reason
from promo_service.web import Service

ROOT = Path(__file__).parents[2]
SERVER = ("127.0.0.1", 27017)
TOOK = timedelta(milliseconds=3)


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    """Return the value of one series, None where there is none."""
    return read(metrics.exposition().decode(), name, **labels)


def read(page: str, name: str, **labels: str) -> float | None:
    """Return the value of one series of a page, None where there is none."""
    for family in text_string_to_metric_families(page):
        for each in family.samples:
            if each.name == name and each.labels == labels:
                return each.value
    return None


# --- requests


def test_a_request_is_counted_and_timed_by_endpoint_and_outcome() -> None:
    metrics = Metrics()
    metrics.count_request("promos.apply", "200 OK", "OK", 0.02)
    metrics.count_request("promos.apply", "400 BAD REQUEST", "EXPIRED", 0.02)
    metrics.count_request("promos.apply", "503 SERVICE UNAVAILABLE", "UNAVAILABLE", 0.001)
    count, bucket = "promo_request_seconds_count", "promo_request_seconds_bucket"
    endpoint = "promos.apply"
    assert sample(metrics, count, endpoint=endpoint, outcome="answered") == 2
    assert sample(metrics, count, endpoint=endpoint, outcome="failed") == 1
    assert sample(metrics, bucket, endpoint=endpoint, outcome="answered", le="0.01") == 0
    assert sample(metrics, bucket, endpoint=endpoint, outcome="answered", le="0.025") == 2
    for status, code in (("200", "OK"), ("400", "EXPIRED"), ("503", "UNAVAILABLE")):
        labels = {"endpoint": endpoint, "status": status, "code": code}
        assert sample(metrics, "promo_requests_total", **labels) == 1


COUNTING = """
from prometheus_client import values
from promo_service.metrics import Metrics
for metrics in (Metrics(), Metrics()):
    metrics.count_request("promos.apply", "200 OK", "OK", 0.02)
    metrics.queue_length.set(7)
# What was patched twice would count twice.
assert len([each for each in values.ValueClass.__mro__ if "inc" in vars(each)]) == 2
print(Metrics().exposition().decode())
"""


def test_what_is_counted_in_files_is_there_for_every_worker(tmp_path: Path) -> None:
    pages = [
        subprocess.run(
            [sys.executable, "-c", COUNTING],
            env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    ]
    answered = {"endpoint": "promos.apply", "outcome": "answered"}
    ok = {"endpoint": "promos.apply", "status": "200", "code": "OK"}
    for times, page in enumerate(pages, 1):
        assert read(page, "promo_requests_total", **ok) == 2 * times
        assert read(page, "promo_request_seconds_count", **answered) == 2 * times
        assert read(page, "promo_request_seconds_bucket", **answered, le="0.025") == 2 * times


def test_unknown_paths_share_one_label() -> None:
    app, metrics = Service("test"), Metrics()
    measure_requests(app, metrics)
    for path in ("/a", "/b", "/c"):
        app.test_client().get(path)
    labels = {"endpoint": "none", "status": "404", "code": "OK"}
    assert sample(metrics, "promo_requests_total", **labels) == 3


def test_a_request_is_timed_from_its_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 10.3])
    monkeypatch.setattr("promo_service.web.time.perf_counter", lambda: next(times))
    app, metrics = Service("test"), Metrics()
    measure_requests(app, metrics)
    app.add_url_rule("/", "index", lambda: Response(b""))
    app.test_client().get("/")
    seconds = sample(metrics, "promo_request_seconds_sum", endpoint="index", outcome="answered")
    assert seconds == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("cause", "seconds", "reason"),
    [
        (DatabaseUnavailable("away"), 0.1, "database"),
        (DatabaseUnavailable("away"), 2.1, "database"),
        (None, 0.0, "queue"),
        (None, 2.0, "deadline"),
    ],
)
def test_a_503_is_counted_by_its_reason(
    cause: Exception | None, seconds: float, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = Unavailable("no")
    error.__cause__ = cause
    monkeypatch.setattr("promo_service.web.time.perf_counter", lambda: 5 + seconds)
    request: Any = SimpleNamespace(environ={"promo.started": 5.0})
    assert shed_reason(request, error, timeout=2.0) == reason


def test_counters_of_known_reasons_begin_with_zero() -> None:
    metrics = Metrics()
    for reason in ("queue", "deadline", "database"):
        assert sample(metrics, "promo_sheds_total", reason=reason) == 0
    for name in ("replays", "uses_given_back", "uses_in_doubt", "malformed_documents"):
        assert sample(metrics, f"promo_{name}_total") == 0


# --- the codes on sale


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Provide the clock of `on_sale`."""
    return Clock()


@pytest.fixture
def on_sale(clock: Clock) -> OnSale:
    """Provide what a worker remembers."""
    return OnSale(clock)


def test_the_uses_left_are_those_read_last(on_sale: OnSale) -> None:
    on_sale.seen("A", 10, 3)
    on_sale.seen("B", 5, 1)
    on_sale.seen("A", 7, 1)
    assert on_sale.left() == {"A": 7, "B": 5}


def test_codes_that_are_seldom_asked_for_have_no_series(on_sale: OnSale) -> None:
    for number in range(REMEMBERED):
        on_sale.seen(f"CODE-{number % 100}", 1, 1)
    assert on_sale.left() == {}
    on_sale.seen("HOT", 3, REMEMBERED // MOST_CODES)
    assert on_sale.left() == {"HOT": 3}


def test_there_are_never_more_series_than_stated(on_sale: OnSale) -> None:
    most = 0
    for codes in range(1, 60):
        for number in range(REMEMBERED):
            on_sale.seen(f"CODE-{codes}-{number % codes}", 1, 1)
        most = max(most, len(on_sale.left()))
    assert most == MOST_CODES


def test_what_nobody_asks_for_any_more_is_forgotten(on_sale: OnSale, clock: Clock) -> None:
    on_sale.seen("OVER", 3, 10)
    clock.now += FORGOTTEN_AFTER
    on_sale.seen("NOW", 4, 1)
    assert on_sale.left() == {"OVER": 3, "NOW": 4}
    clock.now += 1
    assert on_sale.left() == {"NOW": 4}


def test_the_uses_left_are_exposed_by_code() -> None:
    metrics = Metrics()
    metrics.on_sale.seen('A "quoted"\n code', 3, 1)
    assert sample(metrics, "promo_uses_left", code='A "quoted"\n code') == 3


# --- the driver


@pytest.fixture
def metrics() -> Metrics:
    """Provide what the driver's events are counted in."""
    return Metrics()


@pytest.fixture
def events(metrics: Metrics) -> _EventListeners:
    """Provide what a client of PyMongo reports its events to."""
    return _EventListeners([driver.DriverListener(metrics)])


def test_commands_are_timed_by_kind(events: _EventListeners, metrics: Metrics) -> None:
    for name in ("find", "find", "update"):
        events.publish_command_success(TOOK, {"ok": 1}, name, 1, SERVER, None)
    assert sample(metrics, "promo_database_seconds_count", command="find") == 2
    assert sample(metrics, "promo_database_seconds_sum", command="update") == 0.003


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        ({"ok": 0, "code": 10107, "codeName": "NotWritablePrimary"}, "NotWritablePrimary"),
        ({"errmsg": "connection closed", "errtype": "AutoReconnect"}, "AutoReconnect"),
        ({"ok": 0, "errmsg": "a text that differs each time"}, "unknown"),
    ],
)
def test_failures_are_counted_by_their_name(
    events: _EventListeners, metrics: Metrics, failure: dict[str, Any], error: str
) -> None:
    events.publish_command_failure(TOOK, failure, "update", 1, SERVER, None)
    assert sample(metrics, "promo_database_failures_total", command="update", error=error) == 1
    assert sample(metrics, "promo_database_seconds_count", command="update") is None


def test_the_use_of_the_pool_is_known_and_its_peak(
    events: _EventListeners, metrics: Metrics
) -> None:
    for number in range(3):
        events.publish_connection_created(SERVER, number)
        events.publish_connection_checked_out(SERVER, number, 0.0)
    for number in range(2):
        events.publish_connection_checked_in(SERVER, number)
    events.publish_connection_closed(SERVER, 0, "stale")
    events.publish_connection_check_out_failed(SERVER, "timeout", 1.0)
    assert sample(metrics, "promo_pool_connections") == 2
    assert sample(metrics, "promo_pool_most_in_use") == 3
    assert sample(metrics, "promo_pool_failures_total") == 1


EVERY_POOL_EVENT: list[Callable[[_EventListeners], None]] = [
    lambda events: events.publish_pool_created(SERVER, {}),
    lambda events: events.publish_pool_ready(SERVER),
    lambda events: events.publish_pool_cleared(SERVER, None),
    lambda events: events.publish_pool_closed(SERVER),
    lambda events: events.publish_connection_ready(SERVER, 1, 0.0),
    lambda events: events.publish_connection_check_out_started(SERVER),
]


@pytest.mark.parametrize("publish", EVERY_POOL_EVENT)
def test_no_other_event_of_the_pool_is_an_error(
    events: _EventListeners,
    publish: Callable[[_EventListeners], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    # The driver prints what a listener raises, and goes on.
    publish(events)
    assert capsys.readouterr().err == ""


def test_one_listener_counts_for_the_application_made_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registered: list[Any] = []
    monkeypatch.setattr(monitoring, "register", registered.append)
    monkeypatch.setattr(driver, "_listeners", [])
    first, second = Metrics(), Metrics()
    driver.watch_driver(first)
    driver.watch_driver(second)
    (listener,) = registered
    _EventListeners([listener]).publish_command_success(TOOK, {}, "find", 1, SERVER, None)
    assert sample(first, "promo_database_seconds_count", command="find") is None
    assert sample(second, "promo_database_seconds_count", command="find") == 1

"""A line of the log is one line, whatever is in it, and a request id is harmless."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Response
from pymongo.errors import BulkWriteError
from werkzeug.test import TestResponse

from promo_service.errors import SettingsError
from promo_service.logs import MAX_STACK, JsonFormatter, TextFormatter, request_id, shown
from promo_service.observe import SECONDS_PER_LINE, SlowLog, log_requests, measure_requests
from promo_service.phases import Phases, phases, timed
from promo_service.settings import Settings
from promo_service.web import Service

NASTY = "a\nb\r\n{} \x1b[31m \x00 \u2028 \x85 \ud800 %s"
URI = "mongodb://db.example:27017"


def record(message: str, *arguments: object, **options: Any) -> logging.LogRecord:
    """Return what a logger hands to a formatter."""
    logger = logging.getLogger("promo_service.test")
    made = logger.makeRecord(
        logger.name, logging.ERROR, "file", 1, message, arguments, options.get("exc_info")
    )
    if "details" in options:
        made.details = options["details"]
    return made


def raised(error: Exception) -> Any:
    """Return what `exc_info` holds when an error has been raised."""
    try:
        raise error
    except type(error) as caught:
        return (type(caught), caught, caught.__traceback__)


# --- formats


def test_a_json_line_says_when_where_and_what() -> None:
    line = json.loads(JsonFormatter().format(record("%d of %s", 3, "x", details={"a": 1})))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert isinstance(line.pop("pid"), int)
    assert line == {
        "level": "error",
        "logger": "promo_service.test",
        "message": "3 of x",
        "a": 1,
    }


def test_nothing_can_end_a_json_line() -> None:
    made = record("%s", NASTY, details={NASTY: NASTY}, exc_info=raised(ValueError(NASTY)))
    text = JsonFormatter().format(made)
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text)["message"] == NASTY


def test_a_detail_that_json_does_not_know_is_shown_as_text() -> None:
    line = json.loads(JsonFormatter().format(record("m", details={"error": ValueError("no")})))
    assert line["error"] == "no"


def test_nothing_can_forge_a_text_line() -> None:
    text = TextFormatter().format(record("%s", NASTY, details={"path": NASTY}))
    assert len(text.splitlines()) == 1
    assert "\x1b" not in text
    assert re.match(r"\[.+\] \[\d+\] \[ERROR\] a\\nb", text)


def test_a_traceback_in_text_is_indented() -> None:
    forged = "x\n[2026-01-01 00:00:00,000] [1] [INFO] all is well"
    text = TextFormatter().format(record("m", exc_info=raised(ValueError(forged))))
    first, *others = text.splitlines()
    assert first.startswith("[")
    assert others
    assert all(line.startswith("  ") for line in others)


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()], ids=["json", "text"])
def test_a_stack_tells_the_error_and_not_what_the_server_replied(
    formatter: logging.Formatter,
) -> None:
    error = BulkWriteError({"writeErrors": [{"op": {"orderId": "order-of-somebody"}}]})
    text = formatter.format(record("m", exc_info=raised(error)))
    assert "BulkWriteError: batch op errors occurred" in text
    assert "order-of-somebody" not in text


def test_a_stack_is_bounded() -> None:
    text = JsonFormatter().format(record("m", exc_info=raised(ValueError("x" * 100_000))))
    assert len(json.loads(text)["stack"]) == MAX_STACK


# --- request ids


@pytest.mark.parametrize(
    "given",
    ["a", "order-17:3", "f9c1e0e4-7a52-4e0c-9b3f-1d2c3b4a5968", "Root=1-67891233-abc", "x" * 128],
)
def test_a_request_id_that_is_given_is_kept(given: str) -> None:
    assert request_id({"HTTP_X_REQUEST_ID": given}) == given


@pytest.mark.parametrize("given", ["", " ", "a b", "a\nb", "a\n", 'a"b', "é", "x" * 129, "<b>"])
def test_one_that_could_do_harm_is_replaced(given: str) -> None:
    assert re.fullmatch(r"[0-9a-f]{16}", request_id({"HTTP_X_REQUEST_ID": given}))


def test_requests_without_one_get_one_each_and_keep_it() -> None:
    environs: list[dict[str, Any]] = [{} for _ in range(1000)]
    first = [request_id(environ) for environ in environs]
    assert len(set(first)) == 1000
    assert [request_id(environ) for environ in environs] == first


def test_a_path_is_shown_cut_and_escaped() -> None:
    assert shown("/a\r\nb" + "c" * 1000) == "/a\\r\\nb" + "c" * 195


# --- slow requests


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    """Provide a function that returns the details of the lines logged so far."""
    caplog.set_level(logging.INFO)

    def details() -> list[dict[str, Any]]:
        return [{"message": r.message, **vars(r).get("details", {})} for r in caplog.records]

    return details


def serve(
    seconds: float, path: str, monkeypatch: pytest.MonkeyPatch, endpoint: str = "index"
) -> TestResponse:
    """Answer one request that takes so long, with the default settings."""
    times = iter([100.0, *[100 + seconds] * 9])
    monkeypatch.setattr("promo_service.web.time.perf_counter", lambda: next(times))
    app = Service("test")
    measured: Any = type("Uncounted", (), {"count_request": lambda *_: None})()
    measure_requests(app, measured)
    log_requests(app, Settings(URI))
    app.add_url_rule("/<path:response>", endpoint, Response, methods=["POST"])
    headers = {"X-Request-ID": "id-1", "Authorization": "Bearer s3cret"}
    return app.test_client().post(path, headers=headers, data="a body")


@pytest.mark.parametrize(("seconds", "logged"), [(0.499, 0), (0.5, 1), (30, 1)])
def test_a_slow_request_is_logged_with_its_id_and_time(
    seconds: float,
    logged: int,
    lines: Callable[[], list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = serve(seconds, "/x%1By?token=s3cret", monkeypatch)
    assert answer.headers["X-Request-ID"] == "id-1"
    assert len(lines()) == logged
    for line in lines():
        assert line == {
            "message": "slow request",
            "request_id": "id-1",
            "method": "POST",
            "path": "/x\\x1by",
            "endpoint": "index",
            "status": 200,
            "code": "OK",
            "ms": {"total": seconds * 1000},
        }


@pytest.mark.parametrize("endpoint", ["promos.create", "promos.deactivate"])
def test_what_admins_do_is_logged_without_their_token_or_body(
    endpoint: str, lines: Callable[[], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(0.01, "/x", monkeypatch, endpoint)
    (line,) = lines()
    assert (line["message"], line["endpoint"]) == ("admin operation", endpoint)
    assert "s3cret" not in str(line)
    assert "a body" not in str(line)


def test_the_line_says_where_the_time_went(lines: Callable[[], list[dict[str, Any]]]) -> None:
    phases.set(Phases(queue=0.1, batch={"read": 0.2, "take": 0.3, "record": 0.4}))
    SlowLog(0.5).write(1.0, {})
    (line,) = lines()
    assert line["ms"] == {"total": 1000, "queue": 100, "read": 200, "take": 300, "record": 400}


def test_who_was_in_no_batch_has_waited_all_the_time(
    lines: Callable[[], list[dict[str, Any]]],
) -> None:
    phases.set(Phases())
    SlowLog(0.5).write(2.0, {})
    assert lines()[0]["ms"] == {"total": 2000, "queue": 2000}


def test_when_everything_is_slow_few_lines_stand_for_all(
    lines: Callable[[], list[dict[str, Any]]],
) -> None:
    now = [50.0]
    slow_log = SlowLog(0.5, clock=lambda: now[0])
    for _ in range(1000):
        slow_log.write(1.0, {})
    assert len(lines()) == 1
    now[0] += SECONDS_PER_LINE
    slow_log.write(1.0, {})
    slow_log.write(1.0, {})
    assert [line.get("left_out") for line in lines()] == [None, 999]
    now[0] += SECONDS_PER_LINE
    slow_log.write(1.0, {})
    assert lines()[2]["left_out"] == 1


def test_a_phase_that_fails_has_taken_its_time_too() -> None:
    spent: dict[str, float] = {}
    with pytest.raises(ValueError, match="no"), timed(spent, "read"):
        raise ValueError("no")
    assert spent["read"] >= 0


# --- the setting


def test_what_counts_as_slow_is_a_setting() -> None:
    env = {"MONGODB_URI": URI}
    assert Settings.from_env(env).slow_request_ms == 500
    assert Settings.from_env({**env, "PROMO_SLOW_REQUEST_MS": "50"}).slow_request_ms == 50


@pytest.mark.parametrize("text", ["0", "60001", "1.5", "fast"])
def test_a_wrong_one_stops_the_start(text: str) -> None:
    with pytest.raises(SettingsError, match="PROMO_SLOW_REQUEST_MS"):
        Settings.from_env({"MONGODB_URI": URI, "PROMO_SLOW_REQUEST_MS": text})

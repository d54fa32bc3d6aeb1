"""What must not get out: tokens into logs, stacks and documents into answers, input into lines."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest
from flask.testing import FlaskClient
from pymongo.database import Database

from promo_service import app as composition
from promo_service.settings import Settings
from tests.support import unique_code
from tests.support.client import Request, post, send
from tests.support.documents import USER
from tests.support.raw import exchange, http
from tests.support.service import ADMIN_TOKEN, PREFIX, Service

Document = dict[str, Any]

TOKENS = ("token-one-of-two", "token-two-of-two")
GUESS = "a-guess-that-is-wrong"
REVEALING = "what a broken driver might say"
ORDER = {"code": "CODE", "userId": USER, "orderAmount": 100}


class Broken:
    """A store with a bug in everything, which tells what it should not."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __getattr__(self, name: str) -> NoReturn:
        raise RuntimeError(f"{REVEALING}: {name}")


@pytest.fixture
def broken() -> Iterator[FlaskClient]:
    """Provide the service in this process, with a store that is broken."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(composition, "Store", Broken)
        patch.setattr(composition, "connect", Broken)
        settings = Settings("mongodb://127.0.0.1:1", admin_tokens=TOKENS)
        yield composition.create_app(settings).test_client()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}


def logged(records: pytest.LogCaptureFixture) -> str:
    """Return all that was logged, with its tracebacks."""
    formatter = logging.Formatter("%(name)s %(message)s")
    return "\n".join(map(formatter.format, records.records))


@pytest.mark.parametrize("token", [*TOKENS, GUESS, TOKENS[0][:-1], "\xe9"])
def test_a_token_is_compared_with_each_in_constant_time(
    broken: FlaskClient, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    compared, in_constant_time = [], hmac.compare_digest

    def compare_digest(given: bytes, known: bytes) -> bool:
        compared.append((given, known))
        return in_constant_time(given, known)

    monkeypatch.setattr(hmac, "compare_digest", compare_digest)
    answer = broken.post(PREFIX, data=b"{", headers=bearer(token))
    assert answer.status_code == (400 if token in TOKENS else 403)
    assert compared == [(token.encode(), known.encode()) for known in TOKENS]


def test_tokens_are_never_logged(broken: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    path = f"{PREFIX}/{'0' * 24}/deactivate"
    statuses = {
        broken.post(path, headers=bearer(token)).status_code
        for token in (*TOKENS, GUESS, f"{GUESS}\xe9")
    }
    assert statuses == {500, 403}
    text = logged(caplog)
    assert REVEALING in text, "nothing is logged at all"
    assert not [token for token in (*TOKENS, GUESS) if token in text]


def test_a_served_worker_does_not_log_tokens_either(start_service: Callable[..., Service]) -> None:
    service = start_service()
    for token in (ADMIN_TOKEN, GUESS):
        post(service.api, {}, bearer(token))
        exchange(service.port, http("POST", PREFIX, f"Authorization: Bearer {token}", "X"))
    log = service.log.read_text()
    assert "Booting worker" in log
    assert ADMIN_TOKEN not in log
    assert GUESS not in log


def test_a_bug_is_answered_without_its_text_or_stack(broken: FlaskClient) -> None:
    for method, path in (("POST", "/apply"), ("POST", "/validate"), ("GET", "/CODE"), ("GET", "")):
        answer = broken.open(f"{PREFIX}{path}", method=method, json=ORDER)
        assert answer.status_code == 500
        assert answer.json == {
            "success": False,
            "error": "Internal server error",
            "code": "INTERNAL",
        }


def test_what_a_client_sends_begins_no_line_in_the_log(
    broken: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    assert broken.get(f"{PREFIX}/%0dFORGED%1b[2J%c2%85").status_code == 500
    (record,) = (r for r in caplog.records if r.name == "promo_service.app")
    assert "FORGED" in record.getMessage()
    assert record.getMessage().isprintable()


def test_rubbish_is_not_logged_so_that_nobody_can_fill_the_disk(service: Service) -> None:
    before = service.log.read_text()
    for sent in (b"FORGED\n", http("GET", "/healthz", "FORGED"), http("GET", "/FORGED")):
        exchange(service.port, sent)
    assert service.log.read_text() == before


@pytest.mark.parametrize(
    "request_of",
    [
        lambda url: Request(f"{url}/%0d%0aX-Forged:%201%0d%0a%0d%0aHTTP/1.1", None, {}, "GET"),
        lambda url: Request(f"{url}{PREFIX}/%0d%0aX-Forged:%201", None, {}, "GET"),
        lambda url: Request(f"{url}{PREFIX}/apply", {**ORDER, "code": "\r\nX-Forged: 1"}),
        lambda url: Request(
            f"{url}{PREFIX}/apply", {**ORDER, "orderId": None}, {"Idempotency-Key": "X-Forged: 1"}
        ),
        lambda url: Request(f"{url}{PREFIX}/apply", ORDER, {"X-Request-ID": "X-Forged: 1"}),
    ],
    ids=["path", "code in the path", "code", "key", "request id"],
)
def test_nothing_that_is_sent_gets_into_a_header(
    service: Service, request_of: Callable[[str], Request]
) -> None:
    answer = send(request_of(service.url))
    assert answer.status in (400, 404)
    assert answer.json["success"] is False
    assert "Forged" not in str(answer.headers)


def test_a_document_that_cannot_be_understood_is_not_shown(
    service: Service, service_database: Database[Document]
) -> None:
    code = unique_code()
    service_database.promo_codes.insert_one(
        {
            "code": code,
            "isActive": True,
            "discountValue": {"secret": REVEALING},
            "validFrom": "never",
        }
    )
    answer = post(f"{service.api}/apply", {**ORDER, "code": code})
    assert answer.json == {"success": False, "error": "Invalid promo code", "code": "INVALID_CODE"}
    assert REVEALING not in service.log.read_text()

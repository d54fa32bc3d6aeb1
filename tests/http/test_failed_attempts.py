"""Guessing codes and tokens: a client that fails too often is refused, and nobody else is."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from pymongo.database import Database

from tests.support import unique_code
from tests.support.client import Request, Response, send
from tests.support.documents import USER
from tests.support.sale import Sale
from tests.support.service import ADMIN_TOKEN, Service

Document = dict[str, Any]

LIMIT = 5
ADDRESSES = (f"198.51.100.{number}" for number in count(1))
ADMIN = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
WRONG = {"Authorization": "Bearer wrong"}


@pytest.fixture(scope="module")
def limited(start_service: Callable[..., Service]) -> Service:
    """Provide a service behind a balancer on the loopback, with a limit."""
    environ = {
        "PROMO_MAX_FAILED_ATTEMPTS": str(LIMIT),
        "PROMO_TRUSTED_PROXIES": "127.0.0.0/8",
        "PROMO_REQUEST_TIMEOUT_MS": "20000",
    }
    return start_service(environ=environ)


@pytest.fixture(scope="module")
def promo(limited: Service, service_database: Database[Document]) -> Document:
    """Provide a promo that is for sale."""
    return Sale.open(service_database, [limited]).promo


def ask(
    service: Service, client: str, method: str, path: str, body: object, **headers: str
) -> Response:
    sent = {"X-Forwarded-For": client, **headers}
    return send(Request(f"{service.api}{path}", body, sent, method))


def order(code: str) -> Document:
    return {"code": code, "userId": USER, "orderAmount": 100}


GUESSES: dict[str, Callable[[Service, str], Response]] = {
    "apply": lambda s, c: ask(s, c, "POST", "/apply", order(unique_code())),
    "validate": lambda s, c: ask(s, c, "POST", "/validate", order(unique_code())),
    "read": lambda s, c: ask(s, c, "GET", f"/{unique_code()}", None),
    "read its headers": lambda s, c: ask(s, c, "HEAD", f"/{unique_code()}", None),
    "create": lambda s, c: ask(s, c, "POST", "", {}, **WRONG),
    "deactivate": lambda s, c: ask(s, c, "POST", f"/{'0' * 24}/deactivate", None, **WRONG),
}


@pytest.mark.parametrize("guess", GUESSES.values(), ids=GUESSES)
def test_who_guesses_is_refused_after_the_limit_and_others_are_not(
    limited: Service, promo: Document, guess: Callable[[Service, str], Response]
) -> None:
    guesser, other = next(ADDRESSES), next(ADDRESSES)
    tried = [guess(limited, guesser) for _ in range(LIMIT)]
    assert {answer.status for answer in tried} <= {400, 403, 404}
    # The right code is not found out either.
    for method, path, body in (
        ("POST", "/validate", order(promo["code"])),
        ("POST", "/apply", order(promo["code"])),
        ("GET", f"/{promo['code']}", None),
        ("POST", "", {}),
    ):
        refused = ask(limited, guesser, method, path, body, **ADMIN)
        assert (refused.status, refused.json["code"]) == (429, "TOO_MANY_ATTEMPTS")
        assert list(refused.json) == ["success", "error", "code"]
        assert 1 <= int(refused.headers["Retry-After"]) <= 60 / LIMIT
    assert ask(limited, other, "POST", "/validate", order(promo["code"])).status == 200


def test_whoever_does_not_guess_is_never_refused(limited: Service, promo: Document) -> None:
    client = next(ADDRESSES)
    for _ in range(3 * LIMIT):
        assert ask(limited, client, "POST", "/validate", order(promo["code"])).status == 200
        assert ask(limited, client, "GET", f"/{promo['code']}", None).status == 200
        unreadable = ask(limited, client, "POST", "/validate", {})
        assert unreadable.json["code"] == "INVALID_REQUEST"
        no_token = ask(limited, client, "POST", "", {})
        assert no_token.json["code"] == "UNAUTHORIZED"
        gone = ask(limited, client, "POST", f"/{'0' * 24}/deactivate", None, **ADMIN)
        assert gone.json["code"] == "NOT_FOUND"


def test_a_client_cannot_pass_for_another_one(limited: Service) -> None:
    guesser = next(ADDRESSES)
    for number in range(LIMIT):
        assert GUESSES["read"](limited, f"192.0.2.{number}, {guesser}").status == 404
    assert GUESSES["read"](limited, f"192.0.2.99, {guesser}").status == 429


def test_health_and_metrics_are_not_limited(limited: Service) -> None:
    guesser = next(ADDRESSES)
    for _ in range(LIMIT):
        GUESSES["read"](limited, guesser)
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
        request = Request(f"{limited.url}{path}", None, {"X-Forwarded-For": guesser}, "GET")
        assert send(request).status == 200


def test_without_trusted_proxies_the_peer_counts(start_service: Callable[..., Service]) -> None:
    exposed = start_service(environ={"PROMO_MAX_FAILED_ATTEMPTS": str(LIMIT)})
    tried = [GUESSES["read"](exposed, f"192.0.2.{number}").status for number in range(LIMIT + 1)]
    assert tried == [404] * LIMIT + [429]


def test_by_default_nothing_is_limited(service: Service) -> None:
    statuses = {GUESSES["read"](service, "192.0.2.1").status for _ in range(100)}
    assert statuses == {404}

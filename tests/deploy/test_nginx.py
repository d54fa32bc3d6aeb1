"""What nginx passes on, and what it answers itself, with the configuration of deploy/nginx."""

from __future__ import annotations

import re
from collections.abc import Sequence

from promo_service.embedded import HOST, free_port
from promo_service.settings import Settings
from promo_service.worker import IDLE_SECONDS
from tests.support.balancer import DEPLOYED, Balancer
from tests.support.client import Request, get, post, send
from tests.support.documents import user
from tests.support.sale import Sale
from tests.support.service import PREFIX, Service
from tests.support.upstream import LosesAnswers


def test_headers_tell_the_service_who_asks(instances: Sequence[Service], sale: Sale) -> None:
    claimed = {"X-Forwarded-For": "203.0.113.7", "X-Request-ID": "shop-1", "Idempotency-Key": "k"}
    upstream = LosesAnswers(instances[0].url)
    with upstream.running(), Balancer([upstream.address, upstream.address]) as balancer:
        for headers in ({}, claimed):
            post(f"{balancer.api}/apply", sale.click(1).body, headers)
    anonymous, named = upstream.headers[0], upstream.headers[-1]
    assert re.fullmatch("[0-9a-f]{32}", anonymous["X-Request-ID"])
    assert anonymous["Idempotency-Key"] == anonymous["X-Request-ID"]
    assert (named["X-Request-ID"], named["Idempotency-Key"]) == ("shop-1", "k")
    assert {headers["X-Forwarded-For"] for headers in upstream.headers} == {HOST}


def test_without_any_instance_the_answer_is_one_of_the_contract() -> None:
    nobody = [f"{HOST}:{free_port()}" for _ in range(2)]
    with Balancer(nobody) as balancer:
        answers = [post(f"{balancer.api}/apply", {}), get(f"{balancer.api}/SUMMER")]
    for answer in answers:
        assert (answer.status, answer.json["code"]) == (503, "UNAVAILABLE")
        assert answer.headers["Retry-After"] == "1"


def test_what_nginx_refuses_itself_is_json_too(balancer: Balancer) -> None:
    too_large = Request(f"{balancer.api}/apply", b" " * (3 << 20))
    malformed = Request(balancer.api, None, {"Host": "two words"}, "GET")
    internal = Request(f"{balancer.url}/metrics", None, {}, "GET")
    answers = [send(request) for request in (too_large, malformed, internal)]
    assert [answer.status for answer in answers] == [413, 400, 404]
    codes = ["REQUEST_ENTITY_TOO_LARGE", "INVALID_REQUEST", "NOT_FOUND"]
    assert [answer.json["code"] for answer in answers] == codes


def test_the_service_answers_under_its_own_paths(balancer: Balancer, sale: Sale) -> None:
    body = {"code": sale.promo["code"], "userId": user(1), "orderAmount": 100}
    assert post(f"{balancer.api}/validate", body).status == 200
    assert get(f"{balancer.api}/{sale.promo['code']}").json["code"] == sale.promo["code"]
    assert get(f"{balancer.url}/readyz").status == 200
    assert get(f"{balancer.url}/nothing").json["code"] == "NOT_FOUND"


def test_the_timeouts_fit_those_of_the_service() -> None:
    conf = (DEPLOYED / "promo.conf").read_text()
    seconds = {name: float(s) for name, s in re.findall(r"^ *(\w+) (\d+)s;", conf, re.MULTILINE)}
    answered_by_then = Settings("mongodb://db").request_timeout
    assert answered_by_then < seconds["proxy_read_timeout"]
    assert seconds["proxy_read_timeout"] < seconds["proxy_next_upstream_timeout"]
    assert seconds["keepalive_timeout"] < IDLE_SECONDS
    assert f"{PREFIX}/(apply|validate)" in conf

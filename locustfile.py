"""Load as a shop sees it: `locust --headless --load flash-sale --admin-token TOKEN -H URL`.

The codes under test are created when the test starts; the tail is whatever active codes the
database holds. Every answer that the contract names is a success, everything else a failure. The
rate is held by pacing: each user offers one step a second, so the number of users is the rate.
"""

from __future__ import annotations

import bisect
import itertools
import random
import time
import uuid
from argparse import ArgumentParser, Namespace
from typing import Any

import gevent
import msgspec
import requests
from geventhttpclient.client import HTTPClientPool
from locust import FastHttpUser, LoadTestShape, events, task
from locust.env import Environment

PREFIX = "/api/promo-codes"
HEADERS = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
# A shop's backend keeps a pool of connections to the service, not one for each customer.
CONNECTIONS = 1024
TIMEOUT_SECONDS = 10
# How many requests one step of a user makes on average, by the weights of the tasks below.
TASK_WEIGHTS = {
    "hot": 50,
    "tail": 20,
    "validate_then_apply": 10,
    "double_click": 5,
    "sold_out": 5,
    "expired": 2,
    "unknown": 2,
    "bad_input": 1,
}
_TWO_REQUESTS = ("validate_then_apply", "double_click")
REQUESTS_PER_STEP = 1 + sum(TASK_WEIGHTS[name] for name in _TWO_REQUESTS) / sum(
    TASK_WEIGHTS.values()
)
# What a seeded code may answer to a user, an amount and an order type drawn at random.
ELIGIBILITY = {
    "USAGE_LIMIT_REACHED",
    "USER_LIMIT_REACHED",
    "MINIMUM_NOT_MET",
    "ORDER_TYPE_NOT_ELIGIBLE",
    "MERCHANT_NOT_ELIGIBLE",
    "EXPIRED",
    "NOT_YET_ACTIVE",
}


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--load",
        choices=["normal", "flash-sale", "soak"],
        default="normal",
        help="normal: 50/s. flash-sale: ramp to the peak, hold, back. soak: 50/s for 8 hours",
    )
    parser.add_argument("--rate", type=float, default=50, help="requests/s of normal and soak")
    parser.add_argument("--peak", type=float, default=2000, help="requests/s of the flash sale")
    parser.add_argument("--ramp", type=float, default=15, help="seconds up, and down again")
    parser.add_argument("--hold", type=float, default=60, help="seconds at the peak")
    parser.add_argument("--duration", type=float, default=60, help="seconds of normal")
    parser.add_argument("--soak-duration", type=float, default=8 * 3600, help="seconds of soak")
    parser.add_argument(
        "--admin-token",
        default="",
        env_var="PROMO_LOAD_ADMIN_TOKEN",
        is_secret=True,
        help="a token of PROMO_ADMIN_TOKENS, to create the codes under test",
    )


class Profile(LoadTestShape):
    """The number of users over time, which is the number of steps a second."""

    def tick(self) -> tuple[int, float] | None:
        """Return users and spawn rate for this second, None at the end."""
        if self.runner is None or self.runner.environment.parsed_options is None:
            return None
        if not Load.hot:
            # Here, because locust would begin a second test while the first one still starts.
            Load.create(self.runner.environment)
            self.reset_time()  # type: ignore[no-untyped-call]
        seconds = self.get_run_time()  # type: ignore[no-untyped-call]
        rate = _rate(self.runner.environment.parsed_options, seconds)
        if rate is None:
            return None
        users = max(1, round(rate / REQUESTS_PER_STEP))
        return users, max(50.0, users / 2)


def _rate(options: Namespace, seconds: float) -> float | None:
    """Return the requests/s that a profile offers at a time; None when it is over."""
    if options.load == "normal":
        return options.rate if seconds < options.duration else None
    if options.load == "soak":
        return options.rate if seconds < options.soak_duration else None
    end = 2 * options.ramp + options.hold
    if seconds >= end:
        return None
    slope = min(seconds, end - seconds) / options.ramp if options.ramp else 1.0
    return float(options.peak) * min(1.0, slope)


class Load:
    """The codes under test."""

    hot = sold_out = expired = ""
    tail: tuple[str, ...] = ()
    cumulative: tuple[float, ...] = ()

    @classmethod
    def create(cls, environment: Environment) -> None:
        """Create codes through the service, and find out which others there are."""
        base = str(environment.host).rstrip("/") + PREFIX
        token = environment.parsed_options.admin_token if environment.parsed_options else ""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        run = uuid.uuid4().hex[:8].upper()

        def create(name: str, **changes: Any) -> str:
            promo = {
                "code": f"LOAD-{name}-{run}",
                "discountType": "percentage",
                "discountValue": 10,
                "validFrom": "2020-01-01",
                "validUntil": "2099-01-01",
                "adminId": "load",
                **changes,
            }
            requests.post(base, json=promo, headers=headers, timeout=10).raise_for_status()
            return str(promo["code"])

        cls.expired = create("EXPIRED", validUntil="2020-02-01")
        cls.sold_out = create("SOLDOUT", maxUses=1)
        body = _order(cls.sold_out)
        requests.post(f"{base}/apply", json=body, timeout=10).raise_for_status()
        cls.hot = create("HOT", maxUses=100_000_000)
        active = requests.get(base, timeout=60).json()
        cls.tail = tuple(p["code"] for p in active if not p["code"].startswith("LOAD-"))
        cls.tail = cls.tail or (cls.hot,)
        cls.cumulative = tuple(itertools.accumulate(1 / n for n in range(1, len(cls.tail) + 1)))

    @classmethod
    def from_tail(cls) -> str:
        """Draw a code of the tail, Zipf-distributed with s = 1: few are popular, most are not."""
        point = random.random() * cls.cumulative[-1]
        return cls.tail[bisect.bisect_left(cls.cumulative, point)]


def _order(code: str) -> dict[str, Any]:
    return {
        "code": code,
        "userId": f"{random.getrandbits(96):024x}",
        "orderAmount": random.randrange(500, 50_000) / 100,
        "orderType": "delivery",
        "orderId": f"O-{random.getrandbits(64):016x}",
    }


class Shopper(FastHttpUser):
    """A customer at the checkout: one step a second."""

    client_pool = HTTPClientPool(
        concurrency=CONNECTIONS,
        connection_timeout=TIMEOUT_SECONDS,
        network_timeout=TIMEOUT_SECONDS,
    )

    def on_start(self) -> None:
        """Keep no cookies: there are none, and looking for them takes a tenth of locust's CPU."""
        self.client.client.cookiejar = None
        self._due = time.monotonic()
        gevent.sleep(self.wait_time())

    def wait_time(self) -> float:
        """Return the seconds until the next step, one second after the last on average.

        At random, because users who were kept waiting together would come together ever after.
        """
        self._due += random.uniform(0, 2)
        return max(0.0, self._due - time.monotonic())

    @task(TASK_WEIGHTS["hot"])
    def hot(self) -> None:
        """Apply the code that everybody has."""
        self._send("apply", _order(Load.hot), set(), "apply hot")

    @task(TASK_WEIGHTS["tail"])
    def tail(self) -> None:
        """Apply one of the many other codes."""
        self._send("apply", _order(Load.from_tail()), ELIGIBILITY, "apply tail")

    @task(TASK_WEIGHTS["validate_then_apply"])
    def validate_then_apply(self) -> None:
        """Look at the discount, then order."""
        order = _order(Load.hot)
        self._send("validate", order, set(), "validate hot")
        self._send("apply", order, set(), "apply hot")

    @task(TASK_WEIGHTS["double_click"])
    def double_click(self) -> None:
        """Send the same order twice at the same moment: both are answered with the same use."""
        order = _order(Load.hot)
        twice = [
            gevent.spawn(self._send, "apply", order, set(), "apply hot, double click")
            for _ in range(2)
        ]
        gevent.joinall(twice)

    @task(TASK_WEIGHTS["sold_out"])
    def sold_out(self) -> None:
        """Come too late."""
        self._send("apply", _order(Load.sold_out), {"USAGE_LIMIT_REACHED"}, "apply sold out")

    @task(TASK_WEIGHTS["expired"])
    def expired(self) -> None:
        """Come much too late."""
        self._send("apply", _order(Load.expired), {"EXPIRED"}, "apply expired")

    @task(TASK_WEIGHTS["unknown"])
    def unknown(self) -> None:
        """Mistype the code."""
        self._send("apply", _order("NO-SUCH-CODE"), {"INVALID_CODE"}, "apply unknown")

    @task(TASK_WEIGHTS["bad_input"])
    def bad_input(self) -> None:
        """Send what no checkout should."""
        order = {**_order(Load.hot), "userId": {"$gt": ""}}
        self._send("apply", order, {"INVALID_REQUEST"}, "apply bad input")

    def _send(self, path: str, order: dict[str, Any], refusals: set[str], name: str) -> None:
        """Send a request; a 200 or one of `refusals` is a success.

        Where refusals are expected and 200 is not, a use more than there should be is a failure.
        """
        with self.client.post(
            f"{PREFIX}/{path}",
            data=msgspec.json.encode(order).decode(),
            headers=HEADERS,
            name=name,
            catch_response=True,
        ) as response:
            taken = response.status_code == 200 and (not refusals or refusals is ELIGIBILITY)
            refused = response.status_code == 400 and response.json()["code"] in refusals
            if taken or refused:
                response.success()
            else:
                response.failure(f"{response.status_code} {response.text or ''}"[:200])

"""Failed attempts: how many a client has, who the client is, and how much is remembered."""

from __future__ import annotations

import tracemalloc
from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promo_service.attempts import PERIOD_SECONDS, ClientAddresses, FailedAttempts
from promo_service.errors import TooManyAttempts

patient = settings(deadline=None)


class Clock:
    """A time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def wait_of(attempts: FailedAttempts, client: str) -> int:
    """Return the seconds that a client is told to wait, 0 where it is let in."""
    try:
        attempts.check(client)
    except TooManyAttempts as error:
        return int(error.headers["Retry-After"])
    return 0


def try_until_refused(attempts: FailedAttempts, client: str, at_most: int = 10_000) -> int:
    """Fail until the client is refused; return how often it could."""
    for failures in range(at_most):
        if wait_of(attempts, client):
            return failures
        attempts.count(client)
    raise AssertionError("the client is never refused")


@pytest.mark.parametrize("limit", [1, 3, 7, 60, 1000])
def test_a_client_has_as_many_failures_at_once_as_the_limit(limit: int) -> None:
    attempts = FailedAttempts(limit, clock=Clock())
    assert try_until_refused(attempts, "a") == limit
    assert try_until_refused(attempts, "b") == limit


def test_who_only_asks_is_never_refused() -> None:
    attempts = FailedAttempts(1, clock=Clock())
    assert all(wait_of(attempts, "a") == 0 for _ in range(100))
    assert len(attempts) == 0


@pytest.mark.parametrize("limit", [1, 3, 7, 60])
def test_after_the_time_that_is_told_one_more_is_let_in(limit: int) -> None:
    clock = Clock()
    attempts = FailedAttempts(limit, clock=clock)
    try_until_refused(attempts, "a")
    for _ in range(5):
        told = wait_of(attempts, "a")
        assert 1 <= told <= PERIOD_SECONDS / limit + 1
        clock.now += told
        assert try_until_refused(attempts, "a") >= 1
    clock.now += PERIOD_SECONDS
    assert try_until_refused(attempts, "a") == limit


@patient
@given(st.integers(1, 50), st.lists(st.floats(0, 30), min_size=1, max_size=200))
def test_no_client_has_more_than_the_limit_on_average(limit: int, pauses: list[float]) -> None:
    clock = Clock()
    attempts = FailedAttempts(limit, clock=clock)
    failures, started = 0, clock.now
    for pause in pauses:
        clock.now += pause
        failures += try_until_refused(attempts, "a")
        assert failures <= limit + (clock.now - started) * limit / PERIOD_SECONDS + 1e-3


def test_what_was_let_in_together_is_paid_for_too() -> None:
    clock = Clock()
    attempts = FailedAttempts(10, clock=clock)
    for _ in range(100):  # all were asked before the first had failed
        attempts.count("a")
    clock.now += 9 * PERIOD_SECONDS
    assert wait_of(attempts, "a") > 0
    clock.now += PERIOD_SECONDS
    assert wait_of(attempts, "a") == 0


def test_the_clients_that_are_remembered_are_bounded_and_the_oldest_forgotten() -> None:
    attempts = FailedAttempts(1, max_clients=100, clock=Clock())
    for number in range(1000):
        attempts.count(str(number))
        attempts.count("always")
        assert len(attempts) <= 100
    assert wait_of(attempts, "always")
    assert wait_of(attempts, "999")
    assert not wait_of(attempts, "0")


def test_what_is_remembered_takes_little_memory() -> None:
    tracemalloc.start()
    try:
        attempts = FailedAttempts(10)
        for number in range(100_000):
            attempts.count(f"2001:db8:{number:x}::/64")
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 16_000_000


# --- who the client is

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        # Nobody but a proxy is believed.
        ("203.0.113.9", "", "203.0.113.9"),
        ("203.0.113.9", "198.51.100.7", "203.0.113.9"),
        ("203.0.113.9", "10.0.0.1", "203.0.113.9"),
        ("10.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "", "10.0.0.1"),
        # What the client has written itself is left of what the proxy has added.
        ("10.0.0.1", "1.2.3.4, 198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "10.0.0.9,198.51.100.7 , 10.0.0.2", "198.51.100.7"),
        ("10.0.0.1", "1.2.3.4, rubbish", "10.0.0.1"),
        ("10.0.0.1", "1.2.3.4,", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.7" + " " * 99, "10.0.0.1"),
        ("10.0.0.1", "1.2.3.4, unknown, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        # As balancers write them.
        ("10.0.0.1", "198.51.100.7:4711", "198.51.100.7"),
        ("10.0.0.1", "[2001:db8:1:2:3::4]:4711", "2001:db8:1:2::/64"),
        ("10.0.0.1", "2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fd00::1", "::1", "::/64"),
        ("::ffff:10.0.0.1", "::ffff:198.51.100.7", "198.51.100.7"),
        # One site has 2**64 addresses.
        ("2001:db8:1:2:ffff::1", "", "2001:db8:1:2::/64"),
        # A Unix socket has none.
        ("", "198.51.100.7", ""),
    ],
)
def test_the_client_is_the_last_address_that_is_no_proxy(
    peer: str, forwarded: str, client: str
) -> None:
    assert ClientAddresses(PROXIES).client(peer, forwarded) == client


@patient
@given(st.text())
def test_without_proxies_nothing_but_the_peer_counts(forwarded: str) -> None:
    assert ClientAddresses(()).client("203.0.113.9", forwarded) == "203.0.113.9"


@patient
@given(st.text())
def test_no_client_can_choose_who_it_is(written: str) -> None:
    forwarded = f"{written}, 198.51.100.7"
    assert ClientAddresses(PROXIES).client("10.0.0.1", forwarded) == "198.51.100.7"

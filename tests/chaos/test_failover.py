"""What a request is promised while there is no primary; `tests.chaos.failover` measures more."""

from __future__ import annotations

import pytest

from tests.chaos.failover import Round, judge, longest_gap, measure, summary
from tests.chaos.run import stage

# A tenth of it is what a machine may take that does other work too.
REQUEST_SECONDS = 4.0
# With a frozen primary the election takes longer.
OUT_SECONDS = 2.5 * REQUEST_SECONDS


@pytest.mark.timeout(300)
def test_requests_keep_their_deadline_and_are_refused_at_once_without_a_primary() -> None:
    with stage(REQUEST_SECONDS) as on:
        frozen = measure(on, "primary frozen", OUT_SECONDS)
        killed = measure(on, "primary killed", REQUEST_SECONDS)

    assert [*frozen.violations(), *killed.violations()] == []
    assert len(frozen.refused) > 0


def test_an_outage_is_the_longest_time_without_a_success_from_the_last_one_before() -> None:
    ends = [1.0, 9.0, 10.0, 10.2, 13.2, 13.3]  # what was before the fault does not count
    assert longest_gap(reversed(ends), 10.1) == (10.2, 13.2)
    assert longest_gap(ends, 10.3) == (10.2, 13.2)


def a_round(ratio: float = 1.0, waited: float = 0.01, longest: float = 1.0, up: int = 2) -> Round:
    """Return a failover in which the bare writer was out for 3 s."""
    return Round("primary killed", 2.0, 3 * ratio, 3.0, [waited] * 3, longest, up, 2)


def test_what_is_promised_is_judged() -> None:
    assert judge([a_round(ratio=1.1, waited=0.19, longest=2.19)] * 3) == []
    assert judge([a_round(ratio=1.5), a_round(), a_round()]) == []
    assert judge([a_round(ratio=1.5), a_round(ratio=1.3), a_round()]) == [
        "primary killed: out 1.30 times as long as the bare writer (median)"
    ]
    assert judge([a_round(longest=2.21), a_round(waited=0.21), a_round(up=1)]) == [
        "primary killed: a request took 2.21 s of 2 s",
        "primary killed: without a primary, requests waited 0.21 s (median)",
        "primary killed: 1 of 2 services serve again",
    ]


def test_the_table_has_medians_of_the_rounds_and_the_longest_request_of_all() -> None:
    rounds = [a_round(ratio=1), a_round(ratio=1.2, longest=2.0), a_round(ratio=1.1, waited=0.05)]
    assert summary(rounds)[2:] == [
        "| killed | 3 | 3.30 s | 3.00 s | 1.10x | 9, after 0.010 s | 2.00 s |"
    ]

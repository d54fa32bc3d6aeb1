"""What is read of locust's history, and how the peak is judged."""

from __future__ import annotations

from math import inf
from pathlib import Path

import pytest

from evaluation.shop import Meters, Profile, Second, judge, read_history

HEADER = "Timestamp,User Count,Type,Name,Requests/s,95%,Total Request Count,Total Failure Count\n"


def test_only_the_lines_of_all_requests_together_are_read(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    path.write_text(
        HEADER
        + "100,1,,Aggregated,0.0,N/A,0,0\n"
        + "101,1,POST,apply hot,9.0,40,9,0\n"
        + "101,1,,Aggregated,9.0,50,9,1\n"
    )
    assert read_history(path) == [Second(100, 0, 0, 0), Second(101, 9, 1, 50)]


def history(rate: float, p95: float = 50, failures: int = 0) -> list[Second]:
    """Return a history of 3 s without load, 2 s up, 10 s at a rate and 2 s down."""
    idle = [Second(1000 + n, 0, failures, 0) for n in range(3)]
    served = [1, *(round(1 + rate * max(0, min(n - 1, 11))) for n in range(1, 15))]
    return idle + [Second(1003 + n, total, failures, p95) for n, total in enumerate(served)]


BEGIN = Meters(1000, {"service": 1.0, "mongod": 2.0}, {0.025: 900, 0.05: 1000, inf: 1000})
END = Meters(3000, {"service": 1.8, "mongod": 2.4}, {0.025: 1700, 0.05: 3000, inf: 3000})


def test_the_rate_is_that_of_the_peak_alone() -> None:
    peak = judge(history(1990), Profile(2000, ramp=2, hold=10), BEGIN, END)
    assert (peak.offered, peak.served, peak.failures, peak.p95) == (2000, 1990, 0, 50)
    assert peak.of_service == pytest.approx(25 + 25 * 1100 / 1200)
    assert peak.us == pytest.approx({"service": 400, "mongod": 200})
    assert peak.holds


@pytest.mark.parametrize("seen", [history(1970), history(2000, p95=100), history(2000, failures=1)])
def test_less_slower_or_failing_is_not_enough(seen: list[Second]) -> None:
    assert not judge(seen, Profile(2000, ramp=2, hold=10), BEGIN, END).holds


def test_a_profile_has_two_corners() -> None:
    profile = Profile(2000, ramp=2, hold=10)
    assert [profile.phase(seconds) for seconds in (0, 1.9, 2, 11.9, 12, 14)] == [0, 0, 1, 1, 2, 2]

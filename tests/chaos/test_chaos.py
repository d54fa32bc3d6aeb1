"""A short schedule of faults, on a replica set of three; `make chaos` plays longer ones."""

from __future__ import annotations

import pytest

from tests.chaos.run import play, stage

# One of each kind: the service, the network, the servers.
FAULTS = ["worker killed", "replies lost", "primary stepped down"]


@pytest.mark.timeout(300)
def test_no_fault_makes_the_books_and_the_answers_differ() -> None:
    with stage() as on:
        [result] = play(on, {"a short one": FAULTS})

    assert result.violations == []
    assert result.outcomes["ok"] > 100
    assert result.sold_out > 0

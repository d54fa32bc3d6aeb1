"""The ambiguity matrix is played, judged, and compared with the page that describes it."""

from __future__ import annotations

from typing import Any

import pytest
from pymongo.database import Database

from promo_service.embedded import EmbeddedMongod
from tests.chaos.ambiguity import PAGE, Row, page, play
from tests.chaos.steps import matrix

Document = dict[str, Any]

# What fails after its deadline is waited for, one row after the other.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def rows(mongod: EmbeddedMongod, service_database: Database[Document]) -> list[Row]:
    """Play every command and every fault once."""
    return play(mongod.members[0].port, service_database, matrix())


def test_every_fault_has_hit_its_command_as_often_as_it_should(rows: list[Row]) -> None:
    assert {row.name: row.hits for row in rows} == {row.name: row.fault.times for row in rows}


def test_no_row_loses_an_acknowledged_use_oversells_or_leaks(rows: list[Row]) -> None:
    assert {row.name: row.violations for row in rows if row.violations} == {}


def test_reconcile_gives_back_exactly_what_is_taken_and_not_recorded(rows: list[Row]) -> None:
    expected = {row.name: (row.after.recorded, row.after.recorded) for row in rows}
    assert {row.name: row.reconciled for row in rows} == expected


def test_every_order_that_is_repeated_is_answered(rows: list[Row]) -> None:
    assert [row.name for row in rows if any(a.reason == "UNAVAILABLE" for a in row.repeated)] == []


def test_the_page_in_the_documents_shows_what_was_seen(rows: list[Row]) -> None:
    seen = page(rows).splitlines()
    assert PAGE.read_text().splitlines() == seen, "python -m tests.chaos.ambiguity writes it again"

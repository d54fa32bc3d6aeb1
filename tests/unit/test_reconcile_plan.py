"""What reconcile concludes from what it reads, and that it is right whatever happens meanwhile."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import cast

import pytest
from bson import ObjectId
from hypothesis import example, given, settings
from hypothesis import strategies as st

from promo_service.errors import DatabaseUnavailable
from promo_service.metrics import ReconcileMetrics
from promo_service.reconcile import Counts, at_rest, differing, run, run_once, wait_for
from promo_service.store import Store, Taken

A, B, C = ObjectId(), ObjectId(), ObjectId()

# In ticks of the simulation. No request outlives LIFETIME.
LIFETIME = 10
WAIT = 30


def test_a_code_is_suspected_when_uses_are_missing_or_too_many() -> None:
    taken = {A: Taken("A", 3, 7), B: Taken("B", 2, None), C: Taken("C", 0, 1)}
    assert differing(taken, {A: 2, B: 2}) == {A: taken[A]}
    assert differing(taken, {A: 4, B: 2, C: 1}).keys() == {A, C}


def test_a_code_without_recorded_uses_has_none() -> None:
    assert differing({A: Taken("A", 0, 1)}, {}) == {}
    assert differing({A: Taken("A", 1, 1)}, {}).keys() == {A}


def test_only_a_code_with_the_same_moves_is_at_rest() -> None:
    before = {A: Taken("A", 3, 7), B: Taken("B", 3, 7), C: Taken("C", 3, 7)}
    # B has been taken and given back: its count alone would not tell.
    assert at_rest(before, {A: Taken("A", 3, 7), B: Taken("B", 3, 9)}) == {A: before[A]}


def test_the_wait_is_many_lifetimes_of_a_request_and_never_short() -> None:
    assert wait_for(2.0) == 30
    assert wait_for(0.05) == 30
    assert wait_for(10.0) == 150


def test_counts_are_of_codes_and_of_uses() -> None:
    counts = Counts(codes=1234, suspected=3, moved=1)
    counts.correct(10, 7)
    counts.correct(5, 6)
    assert (counts.lowered, counts.uses_given_back) == (1, 3)
    assert (counts.raised, counts.uses_added) == (1, 1)
    assert str(counts) == (
        "1,234 codes read, 3 suspected, 1 in use; "
        "3 uses of 1 codes given back, 1 uses of 1 codes added"
    )


@dataclass(frozen=True)
class Request:
    """A request that takes a use at a time and ends so many ticks later."""

    at: int
    lives: int
    ending: str


class Shop:
    """One code of a store in memory, with requests that go on while reconcile looks at it."""

    def __init__(self, requests: list[Request], steps: Iterator[int]) -> None:
        self._steps = steps
        self._now = 0
        self._order = count()
        self._due: list[tuple[int, int, str]] = []
        self.taken_uses = self.moves = self.recorded_uses = 0
        for request in requests:
            self._at(request.at, "take")
            self._at(request.at + request.lives, request.ending)

    def _at(self, time: int, event: str) -> None:
        heapq.heappush(self._due, (time, next(self._order), event))

    def advance(self, ticks: float) -> None:
        """Let time pass, and happen what is due."""
        self._now += int(ticks)
        while self._due and self._due[0][0] <= self._now:
            self._happen(heapq.heappop(self._due)[2])

    def _happen(self, event: str) -> None:
        change = {"take": 1, "give back": -1}.get(event, 0)
        self.taken_uses += change
        self.moves += abs(change)
        self.recorded_uses += event == "record"
        assert self.recorded_uses <= self.taken_uses, "a use in flight was given back"

    def taken(self, _codes: object = ()) -> dict[ObjectId, Taken]:
        """Answer as Store.taken does."""
        self.advance(next(self._steps))
        return {A: Taken("A", self.taken_uses, self.moves)}

    def recorded(self, _promo_ids: object = None) -> dict[ObjectId, int]:
        """Answer as Store.recorded does."""
        self.advance(next(self._steps))
        return {A: self.recorded_uses} if self.recorded_uses else {}

    def settle(self, _promo_id: ObjectId, seen: Taken) -> int | None:
        """Do what Store.settle does, with time passing between its commands."""
        self.advance(next(self._steps))
        if (self.taken_uses, self.moves) != (seen.uses, seen.moves):
            return None
        self.moves += 1
        self.advance(next(self._steps))
        uses = self.recorded_uses
        self.advance(next(self._steps))
        if (self.taken_uses, self.moves) != (seen.uses, (seen.moves or 0) + 1):
            return None
        self.taken_uses, self.moves = uses, self.moves + 1
        assert self.recorded_uses <= self.taken_uses, "a use in flight was given back"
        return uses


def requests(latest: int) -> st.SearchStrategy[list[Request]]:
    """Return requests that begin until then."""
    ending = st.sampled_from(["record", "give back", "die"])
    each = st.builds(Request, st.integers(0, latest), st.integers(1, LIFETIME), ending)
    return st.lists(each, max_size=6)


STEPS = st.lists(st.integers(0, 3), min_size=20, max_size=20)


# The count is the same at both reads, and yet a use is in flight.
MOVED = [Request(0, 1, "die"), Request(4, 10, "give back"), Request(30, 10, "record")]


@settings(max_examples=1000)
@example(MOVED, 5, [0] * 20)
@given(requests(latest=60), st.integers(0, 10), STEPS)
def test_a_use_in_flight_is_never_given_back(
    wanted: list[Request], start: int, steps: list[int]
) -> None:
    shop = Shop(wanted, iter(steps))
    shop.advance(start)
    run_once(cast(Store, shop), wait_seconds=WAIT, sleep=shop.advance)
    shop.advance(1000)


@given(requests(latest=20), STEPS)
def test_every_leak_is_given_back_once_the_code_is_at_rest(
    wanted: list[Request], steps: list[int]
) -> None:
    shop = Shop(wanted, iter(steps))
    shop.advance(20)
    # A use that is given back by its own request is a move: then it takes a second run.
    runs = [run_once(cast(Store, shop), wait_seconds=WAIT, sleep=shop.advance) for _ in range(2)]
    assert shop.taken_uses == shop.recorded_uses
    leaked = sum(request.ending == "die" for request in wanted)
    assert sum(counts.uses_given_back for counts in runs) == leaked


def test_nobody_waits_where_nothing_is_suspected() -> None:
    shop = Shop([Request(0, 1, "record")], iter([5] * 20))
    shop.advance(5)

    def sleep(_: float) -> None:
        raise AssertionError("there is nothing to wait for")

    assert run_once(cast(Store, shop), wait_seconds=WAIT, sleep=sleep) == Counts(codes=1)


def test_a_dry_run_counts_and_changes_nothing() -> None:
    shop = Shop([Request(0, 1, "die")], iter([5] * 20))
    shop.advance(5)
    counts = run_once(cast(Store, shop), wait_seconds=WAIT, dry_run=True, sleep=shop.advance)
    assert (counts.lowered, counts.uses_given_back) == (1, 1)
    assert (shop.taken_uses, shop.moves) == (1, 1)


def test_it_goes_on_after_the_database_was_away() -> None:
    class Down(Shop):
        down = True

        def taken(self, _codes: object = ()) -> dict[ObjectId, Taken]:
            if self.down:
                self.down = False
                raise DatabaseUnavailable("no primary")
            return super().taken(_codes)

    class Enough(Exception):
        """Ends what runs for ever."""

    shop = Down([Request(0, 1, "die")], iter([5] * 20))
    lines: list[str] = []
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        shop.advance(seconds)
        if len(lines) == 2:
            raise Enough

    with pytest.raises(Enough):
        run(
            cast(Store, shop),
            every=60,
            wait_seconds=WAIT,
            report=lines.append,
            metrics=ReconcileMetrics(),
            sleep=sleep,
        )
    assert lines[0] == "the database is not available: no primary"
    assert lines[1].endswith("1 uses of 1 codes given back, 0 uses of 0 codes added")
    assert slept[0] == pytest.approx(60, abs=1)
    assert slept[1:] == [WAIT, pytest.approx(60, abs=1)]

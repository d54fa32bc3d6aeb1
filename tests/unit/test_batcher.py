"""Group commit, staged: batches begin when they can, and end when the test says so."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from unittest import mock

import gevent
import pytest
from gevent.event import AsyncResult
from gevent.queue import Empty, Queue
from hypothesis import given, settings
from hypothesis import strategies as st

from promo_service import batcher as module
from promo_service.batcher import Batcher, Ticket
from promo_service.errors import NoAnswer, Unavailable

Tickets = dict[str, list[Ticket[int, str]]]
StageFactory = Callable[..., "Stage"]


class HandlerError(Exception):
    """Raised by a handler because the test wants it to."""


@dataclass
class Batch:
    """One call of the handler, which returns or raises when the test says so."""

    tickets: Tickets
    lane: gevent.Greenlet
    _end: AsyncResult[None] = field(default_factory=AsyncResult)

    @property
    def items(self) -> dict[str, list[int]]:
        """What is handled, by key."""
        return {key: [ticket.item for ticket in of_key] for key, of_key in self.tickets.items()}

    def run(self) -> None:
        """Wait, in the lane, for the test."""
        self._end.get()

    def answer(self, *items: int) -> None:
        """Answer these items, or all, and return from the handler."""
        for ticket in [ticket for of_key in self.tickets.values() for ticket in of_key]:
            if not items or ticket.item in items:
                ticket.answer(f"answer {ticket.item}")
        self.leave()

    def leave(self) -> None:
        """Return from the handler."""
        self._end.set()
        gevent.idle()

    def fail(self, error: Exception) -> None:
        """Raise from the handler."""
        self._end.set_exception(error)
        gevent.idle()


class Clock:
    """The batcher's time; it stands still unless a test moves it."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        """Tell the time."""
        return self.seconds


class Stage:
    """A batcher whose handler shows each batch to the test."""

    def __init__(
        self, clock: Clock, *, lanes: int = 4, max_batch: int = 100, max_waiting: int = 100
    ) -> None:
        self.clock = clock
        self.lanes = lanes
        self.batcher: Batcher[str, int, str] = Batcher(
            self._handle, lanes=lanes, max_batch=max_batch, max_waiting=max_waiting
        )
        self.greenlets: list[gevent.Greenlet] = []
        self._started: Queue[Batch] = Queue()

    def _handle(self, tickets: Tickets) -> None:
        batch = Batch(dict(tickets), gevent.getcurrent())
        self.greenlets.append(batch.lane)
        self._started.put(batch)
        batch.run()

    def submit(self, key: str, *items: int, seconds: float = 60) -> list[gevent.Greenlet]:
        """Submit each item from a greenlet of its own; its value is the answer or the error."""
        deadline = self.clock.seconds + seconds
        waiters = [gevent.spawn(self._outcome, key, item, deadline) for item in items]
        self.greenlets += waiters
        gevent.idle()
        return waiters

    def _outcome(self, key: str, item: int, deadline: float) -> str | Exception:
        try:
            return self.batcher.submit(key, item, deadline)
        except (Unavailable, HandlerError) as error:
            return error

    def submit_together(self, key: str, *items: int) -> list[gevent.Greenlet]:
        """Submit items so that they are in one batch: that of a lane, which nobody leads."""
        self.submit("", 0)
        waiters = self.submit(key, *items)
        self.next().answer()
        return waiters

    def next(self) -> Batch:
        """Return the batch that has begun; fails when none has: nothing here takes time."""
        try:
            batch: Batch = self._started.get_nowait()
        except Empty:
            raise AssertionError("no batch has begun") from None
        return batch

    @property
    def silent(self) -> bool:
        """Whether no batch has begun that the test has not seen."""
        return bool(self._started.empty())

    def is_empty(self) -> bool:
        """Whether the batcher is as it was built."""
        b = self.batcher
        kept = [b._waiting, b._ready, b._running, b.waiting]
        return not any(kept) and b._free_lanes == self.lanes


@pytest.fixture
def staged(monkeypatch: pytest.MonkeyPatch) -> Iterator[StageFactory]:
    """Provide batchers with a clock; what a test leaves running ends with it."""
    stages: list[Stage] = []
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "MOST_GATHER_SECONDS", 0)

    def build(**bounds: int) -> Stage:
        stages.append(Stage(clock, **bounds))
        return stages[-1]

    yield build
    for stage in stages:
        stage.batcher._ready.clear()  # or a lane that is killed would start another one
        gevent.killall(stage.greenlets)


def values(waiters: list[gevent.Greenlet]) -> list[object]:
    """Return the outcomes, which must be there."""
    assert all(waiter.ready() for waiter in waiters)
    return [waiter.value for waiter in waiters]


# --- when a batch begins, and what is in it


def test_a_lone_request_goes_at_once(staged: StageFactory) -> None:
    stage = staged()
    # The loop turns until it has nothing to do, and no timer that was set now can have fired.
    waiters = stage.submit("A", 1)
    batch = stage.next()
    assert batch.items == {"A": [1]}
    batch.answer()
    assert values(waiters) == ["answer 1"]
    assert stage.is_empty()


def test_what_arrives_during_a_batch_goes_together_in_the_next_one_at_once(
    staged: StageFactory,
) -> None:
    stage = staged()
    first = stage.submit("A", 1)
    running = stage.next()
    later = stage.submit("A", 2, 3) + stage.submit("A", 4)
    assert stage.silent, "two batches of one key at a time"
    running.answer()
    assert values(first) == ["answer 1"]
    batch = stage.next()
    assert batch.items == {"A": [2, 3, 4]}
    batch.answer()
    assert values(later) == ["answer 2", "answer 3", "answer 4"]
    assert stage.is_empty()


def test_several_keys_go_in_one_batch(staged: StageFactory) -> None:
    stage = staged(lanes=1)
    stage.submit("A", 1)
    running = stage.next()
    stage.submit("B", 2, 3)
    stage.submit("C", 4)
    stage.submit("B", 5)
    running.answer()
    assert stage.next().items == {"B": [2, 3, 5], "C": [4]}


def test_other_keys_run_beside_a_batch_in_the_lanes_that_are_free(staged: StageFactory) -> None:
    stage = staged(lanes=2)
    stage.submit("A", 1)
    stage.submit("B", 2)
    in_a, in_b = stage.next(), stage.next()
    stage.submit("C", 3)
    stage.submit("D", 4)
    assert stage.silent, "more batches than lanes"
    in_b.answer()
    assert stage.next().items == {"C": [3], "D": [4]}
    assert stage.silent
    assert in_a.items == {"A": [1]}


def test_other_keys_wait_for_the_batch_that_runs_as_long_as_one_takes(
    staged: StageFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the database, one batch of all that waits is cheaper than several."""
    later: list[tuple[float, Callable[[], None]]] = []
    monkeypatch.setattr(gevent, "spawn_later", lambda *call: later.append(call))
    stage = staged(max_batch=4)
    a_slow_batch(stage)
    stage.submit("A", 1, seconds=1000)
    in_a = stage.next()
    stage.submit("B", 2, seconds=1000)
    stage.submit("C", 3, seconds=1000)
    assert stage.silent
    # One is enough to see to it that nobody waits for a batch that hangs.
    ((seconds, look),) = later
    assert seconds == module.PATIENCE * 50
    stage.clock.seconds += module.PATIENCE * 50 - 1
    look()
    gevent.idle()
    assert stage.silent, "another batch beside one that takes no longer than usual"
    seconds, look = later[1]
    assert seconds == 1
    stage.clock.seconds += 1
    look()
    gevent.idle()
    assert stage.next().items == {"B": [2], "C": [3]}
    stage.submit("D", 4, seconds=1000)
    assert len(later) == 3
    assert in_a.items == {"A": [1]}


def test_what_begins_and_ends_in_time_needs_no_help(
    staged: StageFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What counts is when a batch was last heard of, not for how long a request has waited."""
    later: list[tuple[float, Callable[[], None]]] = []
    monkeypatch.setattr(gevent, "spawn_later", lambda *call: later.append(call))
    stage = staged()
    a_slow_batch(stage)
    stage.submit("A", 1, seconds=1000)
    stage.submit("A", 2, seconds=1000)
    stage.clock.seconds += 60
    stage.next().answer()
    in_a = stage.next()
    stage.submit("B", 3, seconds=1000)
    stage.clock.seconds += module.PATIENCE * 50 - 10  # the look that request 2 had asked for
    ((_, look),) = later
    look()
    gevent.idle()
    assert stage.silent
    assert in_a.items == {"A": [2]}


def test_a_lane_beside_one_that_is_heard_of_again_ends(staged: StageFactory) -> None:
    stage = staged()
    a_slow_batch(stage)
    stage.submit("A", 1, seconds=1000)
    hanging = stage.next()
    stage.submit("B", 2, seconds=1000)
    stage.clock.seconds += module.PATIENCE * 50
    stage.batcher._relieve()
    gevent.idle()
    beside = stage.next()
    stage.submit("A", 3, seconds=1000)
    hanging.answer()
    assert stage.silent, "two batches, though one of them has only just begun"
    beside.answer()
    assert stage.next().items == {"A": [3]}


def test_a_batch_that_is_full_waits_for_no_other(
    staged: StageFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gevent, "spawn_later", lambda *_: None)
    stage = staged(max_batch=2)
    stage.submit("A", 1)
    stage.next()
    stage.submit("B", 2)
    assert stage.silent
    stage.submit("C", 3)
    assert stage.next().items == {"B": [2], "C": [3]}


def test_a_batch_is_bounded_and_takes_the_first_that_came(staged: StageFactory) -> None:
    stage = staged(lanes=1, max_batch=3)
    waiters = stage.submit_together("A", 1, 2, 3, 4, 5, 6, 7)
    sizes = []
    while not stage.is_empty():
        batch = stage.next()
        sizes.append(batch.items["A"])
        batch.answer()
    assert sizes == [[1, 2, 3], [4, 5, 6], [7]]
    assert values(waiters) == [f"answer {n}" for n in range(1, 8)]


def test_a_busy_key_does_not_keep_the_others_from_their_turn(staged: StageFactory) -> None:
    stage = staged(lanes=1, max_batch=2)
    stage.submit_together("HOT", 1, 2, 3, 4, 5, 6)
    stage.submit("B", 7, 8)
    stage.submit("C", 9)
    order = []
    while not stage.is_empty():
        batch = stage.next()
        order.append(batch.items)
        batch.answer()
    assert order[:3] == [{"HOT": [1, 2]}, {"B": [7, 8]}, {"C": [9], "HOT": [3]}]
    assert order[3:] == [{"HOT": [4, 5]}, {"HOT": [6]}]


# --- who is not answered


def test_those_left_unanswered_go_first_into_the_next_batch(staged: StageFactory) -> None:
    stage = staged(lanes=1, max_batch=3)
    waiters = stage.submit_together("A", 1, 2, 3)
    running = stage.next()
    stage.submit("A", 4, 5)
    running.answer(2)
    assert [waiter.ready() for waiter in waiters] == [False, True, False]
    batch = stage.next()
    assert batch.items == {"A": [1, 3, 4]}
    batch.answer()
    assert values(waiters) == ["answer 1", "answer 2", "answer 3"]
    assert stage.next().items == {"A": [5]}


def test_a_batch_that_answered_nobody_pauses_before_the_next_try(
    staged: StageFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(gevent, "sleep", pauses.append)
    stage = staged()
    waiters = stage.submit("A", 1, 2)
    stage.next().answer(1)
    assert module.PAUSE_SECONDS not in pauses
    stage.next().leave()
    assert pauses.count(module.PAUSE_SECONDS) == 1
    stage.next().answer()
    assert pauses.count(module.PAUSE_SECONDS) == 1
    assert values(waiters) == ["answer 1", "answer 2"]


def test_after_a_crowd_the_next_batch_waits_for_others_to_arrive(
    staged: StageFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(gevent, "sleep", pauses.append)
    stage = staged()
    monkeypatch.setattr(module, "MOST_GATHER_SECONDS", 0.25)
    stage.submit_together("A", *range(module.CROWD - 1))
    stage.next().answer()
    assert pauses == [0]
    stage.submit_together("B", *range(module.CROWD))
    stage.clock.seconds += 0.125
    stage.next().answer()
    for seconds in (0.125, 100, 100):  # then it is what most of the last batches took
        stage.submit("C", 0, seconds=1000)
        stage.clock.seconds += seconds
        stage.next().answer()
    assert pauses[:2] == [0, 0]  # no batch has taken any time yet, but one
    stage.submit_together("D", *range(module.CROWD))
    stage.next().answer()
    assert pauses[2:] == [0.125]


def test_who_is_unanswered_at_the_deadline_is_told_so(staged: StageFactory) -> None:
    stage = staged()
    stage.submit("A", 1)
    stage.next()
    (waiter,) = stage.submit("A", 2, seconds=0.05)
    waiter.join(timeout=5)
    assert isinstance(waiter.value, Unavailable)


def test_who_is_unanswered_at_the_deadline_is_not_tried_again(
    staged: StageFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0)
    stage = staged()
    stage.submit("A", 1, seconds=5)
    batch = stage.next()
    (patient,) = stage.submit("A", 2, seconds=15)
    stage.clock.seconds += 10
    batch.leave()
    batch = stage.next()
    assert batch.items == {"A": [2]}
    batch.answer()
    assert values([patient]) == ["answer 2"]
    assert stage.is_empty()


def test_who_waited_beyond_the_deadline_is_never_handled(staged: StageFactory) -> None:
    stage = staged()
    stage.submit("A", 1)
    running = stage.next()
    stage.submit("A", 2, seconds=5)
    stage.submit("A", 3, seconds=15)
    stage.clock.seconds += 10
    running.answer()
    batch = stage.next()
    assert batch.items == {"A": [3]}
    batch.answer()
    assert stage.is_empty()


def test_a_batch_of_nothing_but_expired_requests_is_not_handled(staged: StageFactory) -> None:
    stage = staged()
    stage.submit("A", 1)
    running = stage.next()
    stage.submit("A", 2, seconds=5)
    stage.clock.seconds += 10
    running.answer()
    assert stage.silent
    assert stage.is_empty()


@pytest.mark.parametrize("seconds", [0, -1])
def test_a_request_without_time_is_refused_at_once(staged: StageFactory, seconds: float) -> None:
    stage = staged()
    (late,) = stage.submit("A", 1, seconds=seconds)
    late.join(timeout=5)
    assert isinstance(late.value, Unavailable)
    assert stage.silent
    assert stage.is_empty()


def test_nobody_is_given_up_before_the_deadline() -> None:
    """However long the loop has not looked at the clock."""
    gevent.sleep(0.001)  # what an event wakes up finds the loop's time as it was then
    busy_until = time.monotonic() + 0.05
    while time.monotonic() < busy_until:
        pass
    ticket: Ticket[int, str] = Ticket(1, deadline=time.monotonic() + 0.04)
    with pytest.raises(Unavailable):
        ticket.wait()
    assert time.monotonic() >= ticket.deadline


def test_an_answer_at_the_last_moment_counts() -> None:
    ticket: Ticket[int, str] = Ticket(1, deadline=time.monotonic() - 1)
    ticket.answer("yes")
    assert ticket.wait() == "yes"


def test_more_than_max_waiting_are_refused_at_once(staged: StageFactory) -> None:
    stage = staged(max_waiting=2)
    stage.submit("A", 1)
    running = stage.next()  # it does not wait any more, and does not count
    waiting = stage.submit("A", 2) + stage.submit("B", 3)
    in_b = stage.next()
    waiting += stage.submit("A", 4)
    (refused,) = stage.submit("A", 5)
    assert isinstance(refused.value, Unavailable)
    (refused,) = stage.submit("C", 6)
    assert isinstance(refused.value, Unavailable)
    running.answer()
    in_b.answer()
    batch = stage.next()
    assert batch.items == {"A": [2, 4]}
    welcome = stage.submit("C", 7)
    batch.answer()
    stage.next().answer()
    assert values(waiting + welcome) == ["answer 2", "answer 3", "answer 4", "answer 7"]
    assert stage.is_empty()


# --- errors


def test_an_error_of_the_handler_answers_everybody_who_is_not_answered(
    staged: StageFactory,
) -> None:
    stage = staged(lanes=1)
    stage.submit("X", 0)
    blocking = stage.next()
    waiters = stage.submit("A", 1, 2) + stage.submit("B", 3)
    blocking.answer()
    batch = stage.next()
    batch.tickets["A"][0].answer("before the error")
    error = HandlerError()
    batch.fail(error)
    assert values(waiters) == ["before the error", error, error]
    assert stage.is_empty()


def test_the_batch_after_an_error_is_handled_as_any_other(staged: StageFactory) -> None:
    stage = staged()
    stage.submit("A", 1)
    batch = stage.next()
    waiters = stage.submit("A", 2)
    batch.fail(HandlerError())
    stage.next().answer()
    assert values(waiters) == ["answer 2"]
    assert stage.is_empty()


def test_a_killed_lane_answers_everybody_and_leaves_the_others_to_another(
    staged: StageFactory,
) -> None:
    stage = staged(lanes=1)
    in_batch = stage.submit_together("A", 1, 2)
    batch = stage.next()
    waiting = stage.submit("A", 3) + stage.submit("B", 4)
    batch.lane.kill()
    gevent.idle()
    assert [type(value) for value in values(in_batch)] == [Unavailable, Unavailable]
    stage.next().answer()
    assert values(waiting) == ["answer 3", "answer 4"]
    assert stage.is_empty()


def test_who_leads_and_is_killed_leaves_the_others_to_a_lane(staged: StageFactory) -> None:
    stage = staged(lanes=1)
    (leader,) = stage.submit("A", 1)
    batch = stage.next()
    waiting = stage.submit("A", 3) + stage.submit("B", 4)
    assert batch.lane is leader
    leader.kill()
    gevent.idle()
    stage.next().answer()
    assert values(waiting) == ["answer 3", "answer 4"]
    assert stage.is_empty()


# --- shedding


def a_slow_batch(stage: Stage) -> None:
    """Have a batch take 50 seconds."""
    stage.submit("SLOW", 0, seconds=1000)
    batch = stage.next()
    stage.clock.seconds += 50
    batch.answer()


def test_who_cannot_be_answered_in_time_is_refused_at_once(staged: StageFactory) -> None:
    stage = staged()
    a_slow_batch(stage)
    stage.submit("A", 1)
    running = stage.next()
    (hasty,) = stage.submit("A", 2, seconds=10)
    assert isinstance(hasty.value, Unavailable)
    stage.submit("A", 3, seconds=1000)
    running.answer()
    assert stage.next().items == {"A": [3]}


def test_who_comes_when_every_lane_is_busy_waits_for_a_batch_too(staged: StageFactory) -> None:
    stage = staged(lanes=1)
    a_slow_batch(stage)
    stage.submit("A", 1)
    (hasty,) = stage.submit("B", 2, seconds=10)
    assert isinstance(hasty.value, Unavailable)


def test_more_batches_ahead_take_more_time(staged: StageFactory) -> None:
    stage = staged(max_batch=2)
    a_slow_batch(stage)
    stage.submit("A", *range(11), seconds=10_000)
    (late,) = stage.submit("A", 11, seconds=200)
    assert isinstance(late.value, Unavailable)
    assert stage.next().items == {"A": [0]}


def test_who_can_go_at_once_is_never_refused(staged: StageFactory) -> None:
    stage = staged()
    a_slow_batch(stage)
    (hasty,) = stage.submit("A", 1, seconds=0.5)
    stage.next().answer()
    assert values([hasty]) == ["answer 1"]


def test_requests_that_expired_do_not_make_batches_look_quick(staged: StageFactory) -> None:
    stage = staged()
    a_slow_batch(stage)
    stage.submit("A", 1)
    running = stage.next()
    stage.submit("A", 2, seconds=70)
    stage.clock.seconds += 100
    running.answer()
    assert stage.silent
    stage.submit("A", 3)
    stage.next()
    (hasty,) = stage.submit("A", 4, seconds=70)
    assert isinstance(hasty.value, Unavailable)


def test_who_is_only_just_in_time_is_refused(staged: StageFactory) -> None:
    """Batches do not all take the same time: a margin is left for those that take more."""
    stage = staged()
    a_slow_batch(stage)
    stage.submit("A", 1)
    (hasty,) = stage.submit("A", 2, seconds=101)
    assert isinstance(hasty.value, Unavailable)
    (patient,) = stage.submit("A", 3, seconds=126)
    assert not patient.ready()


def test_a_batch_that_hung_says_nothing_of_the_next(staged: StageFactory) -> None:
    stage = staged()
    for seconds in (1, 1, 50):
        stage.submit("A", 0, seconds=1000)
        batch = stage.next()
        stage.clock.seconds += seconds
        batch.answer()
    stage.submit("A", 1)
    running = stage.next()
    (hasty,) = stage.submit("A", 2, seconds=10)
    running.answer()
    stage.next().answer()
    assert hasty.value == "answer 2"


def test_what_has_run_of_a_batch_need_not_be_waited_for(staged: StageFactory) -> None:
    stage = staged()
    a_slow_batch(stage)
    stage.submit("A", 1)
    stage.clock.seconds += 45
    (patient,) = stage.submit("A", 2, seconds=80)
    assert not patient.ready()


def test_nothing_is_begun_for_who_cannot_be_answered_in_time(staged: StageFactory) -> None:
    stage = staged()
    a_slow_batch(stage)
    stage.submit("A", 1)
    running = stage.next()
    (hasty,) = stage.submit("A", 2, seconds=130)
    stage.submit("A", 3, seconds=1000)
    stage.clock.seconds += 100
    running.answer()
    assert isinstance(hasty.value, Unavailable)
    assert stage.next().items == {"A": [3]}


def test_where_nobody_seems_to_be_in_time_all_are_tried(staged: StageFactory) -> None:
    """Or a batch that was slow once would be the last one that was ever begun."""
    stage = staged()
    a_slow_batch(stage)
    stage.submit("A", 1)
    running = stage.next()
    stage.submit("A", 2, 3, seconds=130)
    stage.clock.seconds += 100
    running.answer()
    assert stage.next().items == {"A": [2, 3]}


# --- when batches get no answer


def a_silence(stage: Stage) -> None:
    """Run a batch that is given up at its deadline."""
    stage.submit("A", 0, seconds=10)
    batch = stage.next()
    stage.clock.seconds += 9
    batch.fail(HandlerError())


def test_while_batches_get_no_answer_one_at_a_time_finds_out_and_others_are_refused(
    staged: StageFactory,
) -> None:
    stage = staged()
    a_silence(stage)
    (probe,) = stage.submit("A", 1)
    others = stage.submit("A", 2) + stage.submit("B", 3)
    assert [type(other.value) for other in others] == [NoAnswer, NoAnswer]
    stage.next().answer()
    assert probe.value == "answer 1"
    waiters = stage.submit("B", 4) + stage.submit("B", 5)
    stage.next().answer()
    stage.next().answer()
    assert values(waiters) == ["answer 4", "answer 5"]
    assert stage.is_empty()


def test_who_waits_already_when_there_is_no_answer_is_tried(staged: StageFactory) -> None:
    stage = staged()
    stage.submit("A", 0, seconds=10)
    batch = stage.next()
    (waiting,) = stage.submit("A", 1)
    stage.clock.seconds += 9
    batch.fail(HandlerError())
    (other,) = stage.submit("A", 2)
    assert isinstance(other.value, NoAnswer)
    stage.next().answer()
    assert waiting.value == "answer 1"


def test_an_error_that_comes_at_once_is_an_answer(staged: StageFactory) -> None:
    stage = staged()
    stage.submit("A", 0, seconds=10)
    batch = stage.next()
    stage.clock.seconds += 1
    batch.fail(HandlerError())
    waiters = stage.submit("A", 1) + stage.submit("A", 2)
    stage.next().answer()
    stage.next().answer()
    assert values(waiters) == ["answer 1", "answer 2"]


def test_one_batch_without_an_answer_beside_others_is_no_silence(staged: StageFactory) -> None:
    stage = staged()
    stage.submit("A", 0, seconds=10)
    hanging = stage.next()
    stage.clock.seconds += 5
    stage.submit("B", 1)
    gevent.sleep(0)
    stage.next().answer()
    stage.clock.seconds += 4
    hanging.fail(HandlerError())
    waiters = stage.submit("A", 2) + stage.submit("A", 3)
    stage.next().answer()
    stage.next().answer()
    assert values(waiters) == ["answer 2", "answer 3"]


# --- over time


def test_nothing_is_kept_of_requests_that_were_answered() -> None:
    def answer(tickets: Tickets) -> None:
        gevent.sleep(0)
        for ticket in (ticket for of_key in tickets.values() for ticket in of_key):
            ticket.answer("done")

    batcher: Batcher[str, int, str] = Batcher(answer, lanes=2, max_batch=10, max_waiting=100)
    for number in range(50):
        deadline = time.monotonic() + 60
        waiters = [
            gevent.spawn(batcher.submit, f"key {number}", item, deadline) for item in range(3)
        ]
        assert [waiter.get() for waiter in waiters] == ["done"] * 3
    gevent.idle()
    gc.collect()
    # Not isinstance: it would look through weak proxies whose object is gone.
    tickets = [o for o in gc.get_objects() if type(o) is Ticket and o.item in range(3)]
    assert len(tickets) < 50, "of 150"
    assert not any([batcher._waiting, batcher._ready, batcher._running, batcher.waiting])


@settings(deadline=None, max_examples=60)
@given(
    keys=st.lists(st.sampled_from("ABC"), min_size=1, max_size=30),
    lanes=st.integers(1, 3),
    max_batch=st.integers(1, 5),
    seed=st.integers(0, 2**32),
)
def test_whatever_handlers_do_everybody_gets_his_answer(
    keys: list[str], lanes: int, max_batch: int, seed: int
) -> None:
    chance = Random(seed)
    running: list[set[str]] = []

    def handle(tickets: Tickets) -> None:
        assert sum(map(len, tickets.values())) <= max_batch
        assert not any(busy & set(tickets) for busy in running), "two batches of one key"
        running.append(set(tickets))
        assert len(running) <= lanes
        try:
            act(tickets, chance)
        finally:
            running.remove(set(tickets))

    batcher: Batcher[str, int, str] = Batcher(
        handle, lanes=lanes, max_batch=max_batch, max_waiting=100
    )
    with mock.patch.object(module, "MOST_GATHER_SECONDS", 0):
        assert outcomes(batcher, keys, chance) <= {"answered", "failed"}
    kept = [batcher._waiting, batcher._ready, batcher._running, batcher.waiting]
    assert not any(kept)
    assert batcher._free_lanes == lanes


def act(tickets: Tickets, chance: Random) -> None:
    """Answer some, after some turns of the loop, and now and then fail for the others."""
    for _ in range(chance.randrange(3)):
        gevent.sleep(0)
    for key, of_key in tickets.items():
        for ticket in of_key:
            if chance.random() < 0.6:
                ticket.answer(f"{key} {ticket.item}")
    if chance.random() < 0.1:
        raise HandlerError


def outcomes(batcher: Batcher[str, int, str], keys: list[str], chance: Random) -> set[str]:
    """Submit an item for each key, some at once and some later, and say how they ended."""

    def submit(number: int, key: str) -> str:
        for _ in range(chance.randrange(4)):
            gevent.sleep(0)
        try:
            answer = batcher.submit(key, number, time.monotonic() + 60)
        except HandlerError:
            return "failed"
        return "answered" if answer == f"{key} {number}" else f"got {answer!r}"

    waiters = [gevent.spawn(submit, *each) for each in enumerate(keys)]
    ended = {waiter.get() for waiter in waiters}
    gevent.idle()
    return ended

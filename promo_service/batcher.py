"""Group commit: while one batch is at the database, everything that arrives waits for the next.

A request that finds nothing running goes at once, as a batch of one, in its own greenlet. The
window in which others are collected is the time that the batch before them takes, and a little more
where many are at it. The same idea as `DBImpl::Write` in LevelDB and `DB.Batch` in bbolt. Knows
gevent, knows no promo.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable
from itertools import accumulate
from statistics import median_low
from typing import Generic, TypeVar

import gevent
from gevent.event import AsyncResult

from promo_service.errors import NoAnswer, Unavailable

K = TypeVar("K", bound=Hashable)
I = TypeVar("I")  # noqa: E741 - the item
R = TypeVar("R")

Handler = Callable[["dict[K, list[Ticket[I, R]]]"], None]

# How long a batch that answered nobody waits before it is tried again: about one database write.
PAUSE_SECONDS = 0.005
# Batches do not take as long as the last one did. Without a margin, half of those who are just let
# in would be answered too late, and in a lasting overload everybody is just let in.
MARGIN = 1.25
# How many times as long as usual nothing may be heard of batches until another one is started
# beside them. To the database, two small batches cost nearly twice as much as one large one.
PATIENCE = 2
# After a batch of so many, the next one waits for others to arrive: as long as batches take of
# late, but not longer than this. Where CPU is what there is too little of, batches take longer,
# more arrive meanwhile, and a request costs less. With fewer requests it would only make them wait.
CROWD = 4
MOST_GATHER_SECONDS = 0.02
# A batch that failed after so much of the time that it had was not refused: it got no answer.
SILENCE_SHARE = 0.5


class Ticket(Generic[I, R]):
    """One waiting request: its item, its deadline (monotonic seconds) and its answer to be.

    `answered` tells whether an answer or an error has been given.
    """

    __slots__ = ("_result", "answered", "deadline", "item")

    def __init__(self, item: I, deadline: float) -> None:
        self.item = item
        self.deadline = deadline
        self.answered = False
        self._result: AsyncResult[R] = AsyncResult()

    def answer(self, result: R) -> None:
        """Answer the request that waits."""
        self.answered = True
        self._result.set(result)

    def fail(self, error: Exception) -> None:
        """End the request that waits with an error."""
        self.answered = True
        self._result.set_exception(error)

    def wait(self) -> R:
        """Return the answer; raises Unavailable when the deadline passes before it comes."""
        # Not get(timeout=…): gevent's Timeout is a BaseException and would escape error handlers,
        # and it takes more CPU.
        timer = gevent.get_hub().loop.timer(max(0.0, self.deadline - time.monotonic()))
        # It counts from now, not from when the loop last looked at the clock: never too early.
        timer.start(self._give_up, update=True)
        try:
            result: R = self._result.get()
        finally:
            timer.close()
        return result

    def _give_up(self) -> None:
        # The batch that it is in, if any, goes on with it: its outcome counts, answered or not.
        if not self.answered:
            self._result.set_exception(Unavailable("The request could not be answered in time"))


class Batcher(Generic[K, I, R]):
    """Runs batches of tickets, at most one at a time for a key and `lanes` in all.

    While batches take as long as usual, one is enough: it takes along what waits, of all keys.
    `handle` gets tickets by key and answers them; those it leaves unanswered go first into the
    next batch of their key, until their deadline. Every ticket is answered on every path.
    """

    def __init__(
        self, handle: Handler[K, I, R], *, lanes: int, max_batch: int, max_waiting: int
    ) -> None:
        self._handle = handle
        self._free_lanes = lanes
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        # Shared between greenlets, without a lock: no method below switches greenlets while it
        # changes these. A key is in `_ready` when it has waiting tickets and no running batch.
        self._waiting: dict[K, deque[Ticket[I, R]]] = {}
        self._ready: deque[K] = deque()
        self._running: dict[K, float] = {}  # and since when
        self.waiting = 0
        # How long a batch takes of late: the median, as one that hung says nothing of the next.
        self._batch_seconds = 0.0
        self._last_batches: deque[float] = deque(maxlen=5)
        self._lanes = lanes
        self._watched = False  # whether somebody looks if another lane is needed
        self._last_heard = 0.0  # when a batch began or ended
        # Whether batches get no answer. Then one at a time finds out whether they do again, and
        # who comes meanwhile is refused at once (a "circuit breaker").
        self._silent = False
        self._last_success = 0.0

    def submit(self, key: K, item: I, deadline: float) -> R:
        """Have `item` handled with the next batch of its key and return the answer.

        Raises Unavailable at once when so many wait already that the deadline (monotonic seconds)
        cannot be met, NoAnswer at once while batches get none, Unavailable when the deadline
        passes, and whatever the handler raised.
        """
        if self._silent and self._free_lanes < self._lanes:
            raise NoAnswer("The database does not answer")
        left = deadline - time.monotonic()
        if self.waiting >= self._max_waiting or self._expected_seconds(key) * MARGIN > left:
            raise Unavailable("Too many requests are waiting")
        ticket: Ticket[I, R] = Ticket(item, deadline)
        self._enqueue(key, ticket)
        if self._free_lanes == self._lanes:
            self._lead()
        elif self._is_a_batch_ready():
            self._start_lane()
        elif not self._watched:
            self._watch()
        return ticket.wait()

    def _is_a_batch_ready(self) -> bool:
        """Tell whether a whole batch waits for a lane, and not for a running batch of its key."""
        if self.waiting < self._max_batch:
            return False
        ready = accumulate(len(self._waiting[key]) for key in self._ready)
        return any(number >= self._max_batch for number in ready)

    def _watch(self) -> None:
        """Look after a while whether those at work take longer than usual, and may hang."""
        self._watched = True
        gevent.spawn_later(max(0.0, self._quiet_until() - time.monotonic()), self._relieve)

    def _relieve(self) -> None:
        """Start another lane where nothing is heard of those at work; otherwise go on watching."""
        self._watched = False
        if self._quiet_until() <= time.monotonic():
            self._start_lane()
        elif self._ready:
            self._watch()

    def _quiet_until(self) -> float:
        return self._last_heard + PATIENCE * self._batch_seconds

    def _lead(self) -> None:
        """Run a batch here: where nobody else waits, it takes several turns of the loop less."""
        self._free_lanes -= 1
        try:
            self._run_batch(self._next_batch())
        finally:
            self._free_lanes += 1
            self._start_lane()  # for those who have come meanwhile

    def _expected_seconds(self, key: K) -> float:
        """Estimate how long a request that comes now will take; 0 when it can go at once."""
        ahead, running = self.waiting // self._lanes, 0.0
        if key in self._running:
            ahead = len(self._waiting.get(key, ()))
            running = self._batch_seconds - (time.monotonic() - self._running[key])
        elif self._free_lanes:
            return 0.0
        return max(0.0, running) + (1 + ahead // self._max_batch) * self._batch_seconds

    def _enqueue(self, key: K, ticket: Ticket[I, R]) -> None:
        queue = self._waiting.get(key)
        if queue is None:
            queue = self._waiting[key] = deque()
            if key not in self._running:
                self._ready.append(key)
        queue.append(ticket)
        self.waiting += 1

    def _start_lane(self) -> None:
        if self._free_lanes and self._ready:
            self._free_lanes -= 1
            gevent.spawn(self._run_lane)

    def _run_lane(self) -> None:
        try:
            while self._ready and not self._is_surplus():
                batch = self._next_batch()
                self._run_batch(batch)
                # Answers go out first, and what arrives meanwhile joins the next batch.
                crowded = sum(map(len, batch.values())) >= CROWD
                gevent.sleep(min(MOST_GATHER_SECONDS, self._batch_seconds) if crowded else 0)
        finally:
            self._free_lanes += 1
            if not self._is_surplus():
                self._start_lane()  # a lane that was killed leaves its work to another one
            elif self._ready and not self._watched:
                self._watch()

    def _is_surplus(self) -> bool:
        """Tell whether a batch runs that takes no longer than usual, and one is enough."""
        since = time.monotonic() - PATIENCE * self._batch_seconds
        return any(s > since for s in self._running.values()) and not self._is_a_batch_ready()

    def _next_batch(self) -> dict[K, list[Ticket[I, R]]]:
        batch: dict[K, list[Ticket[I, R]]] = {}
        room, now = self._max_batch, time.monotonic()
        while self._ready and room:
            key = self._ready.popleft()
            queue = self._waiting[key]
            batch[key] = [queue.popleft() for _ in range(min(room, len(queue)))]
            room -= len(batch[key])
            if not queue:
                del self._waiting[key]
            self._running[key] = now
        self.waiting -= self._max_batch - room
        return batch

    def _run_batch(self, batch: dict[K, list[Ticket[I, R]]]) -> None:
        now = self._last_heard = time.monotonic()
        live = self._in_time(batch, now)
        try:
            if live:
                self._handle(live)
                self._silent, self._last_success = False, time.monotonic()
                if not any(t.answered for tickets in live.values() for t in tickets):
                    gevent.sleep(PAUSE_SECONDS)
        except BaseException as error:
            failure = error if isinstance(error, Exception) else Unavailable("Shutting down")
            self._silent = self._silent or (failure is error and self._was_silence(live, now))
            for tickets in batch.values():
                for ticket in tickets:
                    if not ticket.answered:
                        ticket.fail(failure)
            if failure is not error:
                raise
        finally:
            self._last_heard = time.monotonic()
            if live:
                self._last_batches.append(self._last_heard - now)
                self._batch_seconds = median_low(self._last_batches)
            self._requeue(batch)

    def _was_silence(self, batch: dict[K, list[Ticket[I, R]]], since: float) -> bool:
        """Tell whether a batch that failed was given up, and no other has succeeded meanwhile."""
        had = max(t.deadline for tickets in batch.values() for t in tickets) - since
        lasted = time.monotonic() - since
        return lasted >= SILENCE_SHARE * had and self._last_success < since

    def _in_time(
        self, batch: dict[K, list[Ticket[I, R]]], now: float
    ) -> dict[K, list[Ticket[I, R]]]:
        """Return those who can still be answered in time: nothing may be taken for the others.

        Where it looks as if nobody can, those who still wait are tried: it may look wrong.
        """
        waiting = [ticket for tickets in batch.values() for ticket in tickets]
        soon = now + self._batch_seconds
        if not any(ticket.deadline > soon for ticket in waiting):
            soon = now
        for ticket in waiting:
            if ticket.deadline <= soon:
                ticket.fail(Unavailable("The request could not be answered in time"))
        live = {key: [t for t in batch[key] if not t.answered] for key in batch}
        return {key: tickets for key, tickets in live.items() if tickets}

    def _requeue(self, batch: dict[K, list[Ticket[I, R]]]) -> None:
        now = time.monotonic()
        for key, tickets in batch.items():
            self._running.pop(key, None)
            left = [t for t in tickets if not t.answered and t.deadline > now]
            if left:
                self._waiting.setdefault(key, deque()).extendleft(reversed(left))
                self.waiting += len(left)
            if key in self._waiting:
                self._ready.append(key)

"""Redeeming promo codes: the rules on one side, the store on the other, batches in between."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from bson import ObjectId
from msgspec import Struct

from promo_service.batcher import Batcher, Ticket
from promo_service.claims import Claim, Seen
from promo_service.database import deadline
from promo_service.errors import DatabaseUnavailable, Rejection, Unavailable
from promo_service.metrics import Metrics
from promo_service.phases import Phases, phases, timed
from promo_service.promos import Number, Promo
from promo_service.rules import Grant, Order, Replay, claim_token, decide_batch, is_running
from promo_service.store import Snapshot, Store
from promo_service.wire import ApplyRequest

Clock = Callable[[], datetime]

# How many requests go to the database together: enough that the cost of its commands is shared
# out, few enough that nobody waits long for the others of his batch.
MAX_BATCH = 128


class Redemption(Struct, frozen=True):
    """The amounts that an accepted request is answered with."""

    promo_code: str
    discount_type: str
    discount_value: Number
    discount_amount: Number
    final_amount: Number
    replayed: bool


Answer = Redemption | Rejection


class _Asked(Order, frozen=True):
    """An order, with where the time of its request goes."""

    phases: Phases


Waiting = Ticket[_Asked, Answer]


class _Wish(Struct):
    """A use that one request is granted by the rules, on its way to being taken and recorded."""

    ticket: Waiting
    promo: Promo
    seen: Seen
    grant: Grant
    token: bytes


class Redeemer:
    """Applies and validates promo codes, all requests that wait at a time in one batch."""

    def __init__(
        self,
        store: Store,
        metrics: Metrics,
        now: Clock,
        *,
        timeout: float,
        lanes: int,
        max_waiting: int,
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._now = now
        self._timeout = timeout
        self._batcher: Batcher[str, _Asked, Answer] = Batcher(
            self._run, lanes=lanes, max_batch=MAX_BATCH, max_waiting=max_waiting
        )

    def apply(self, request: ApplyRequest) -> Answer:
        """Check the code and record one use; raises Unavailable when the outcome is not known."""
        return self._submit(request, consume=True)

    def validate(self, request: ApplyRequest) -> Answer:
        """Answer what apply would, and consume nothing."""
        return self._submit(request, consume=False)

    def _submit(self, request: ApplyRequest, *, consume: bool) -> Answer:
        asked = _Asked(request, consume, Phases())
        phases.set(asked.phases)
        until = time.monotonic() + self._timeout
        try:
            return self._batcher.submit(request.code, asked, until)
        except DatabaseUnavailable as error:
            raise Unavailable("The database could not answer in time") from error

    def _run(self, batch: dict[str, list[Waiting]]) -> None:
        tickets = [ticket for of_code in batch.values() for ticket in of_code]
        spent = self._observe(tickets)
        # No member is worked for beyond its deadline, so the batch ends with its youngest one's.
        with deadline(max(t.deadline for t in tickets) - time.monotonic()):
            users = {
                code: {t.item.request.user_id for t in of_code} for code, of_code in batch.items()
            }
            with timed(spent, "read"):
                snapshots = self._store.read(users)
            now = self._now()
            wishes: list[_Wish] = []
            replays: list[tuple[Waiting, Promo, Replay]] = []
            for code, of_code in batch.items():
                self._decide(snapshots[code], of_code, now, wishes, replays)
            if wishes:
                self._claim_or_doubt(wishes, now, spent)
            if replays:
                with timed(spent, "replay"):
                    self._replay(replays)
        self._metrics.queue_length.set(self._batcher.waiting)

    def _observe(self, tickets: Sequence[Waiting]) -> dict[str, float]:
        """Measure what a batch begins with; return where its requests look for its phases."""
        self._metrics.batch_size.observe(len(tickets))
        now, spent = time.monotonic(), dict[str, float]()
        for ticket in tickets:
            # Its deadline counts from its arrival.
            waited = max(0.0, now - ticket.deadline + self._timeout)
            ticket.item.phases.queue, ticket.item.phases.batch = waited, spent
        self._metrics.queue_wait.observe(max(t.item.phases.queue or 0.0 for t in tickets))
        return spent

    def _decide(
        self,
        snapshot: Snapshot,
        tickets: Sequence[Waiting],
        now: datetime,
        wishes: list[_Wish],
        replays: list[tuple[Waiting, Promo, Replay]],
    ) -> None:
        """Answer what needs no more of the database, and collect the rest."""
        if snapshot.malformed:
            self._metrics.malformed.inc()
        promo, seen = snapshot.promo, snapshot.seen
        if promo is not None and promo.current_uses is None and is_running(promo, now):
            self._store.count_once(promo.id)
            return  # decided with the next batch, on the count
        if promo is not None and promo.max_uses is not None and is_running(promo, now):
            left = max(0, promo.max_uses - (promo.current_uses or 0))
            self._metrics.on_sale.seen(tickets[0].item.request.code, left, len(tickets))
        orders = [ticket.item for ticket in tickets]
        in_flight = seen.elsewhere if seen is not None else frozenset()
        decisions = decide_batch(promo, snapshot.uses, orders, now, in_flight)
        for ticket, decision in zip(tickets, decisions, strict=True):
            if isinstance(decision, Rejection):
                ticket.answer(decision)
            elif promo and seen and isinstance(decision, (Grant, Replay)):
                if not ticket.item.consume:
                    ticket.answer(_redemption(ticket, promo, decision))
                elif isinstance(decision, Grant):
                    token = claim_token(ticket.item.request.user_id, decision.slot)
                    wishes.append(_Wish(ticket, promo, seen, decision, token))
                else:
                    replays.append((ticket, promo, decision))

    def _claim_or_doubt(
        self, wishes: Sequence[_Wish], now: datetime, spent: dict[str, float]
    ) -> None:
        try:
            self._claim(wishes, now, spent)
        except DatabaseUnavailable:
            self._metrics.in_doubt.inc(sum(not wish.ticket.answered for wish in wishes))
            raise

    def _claim(self, wishes: Sequence[_Wish], now: datetime, spent: dict[str, float]) -> None:
        """Take what is wished for, record what was granted, give back what was refused.

        Who is not granted a use is not answered: he is decided again, on a fresh read.
        """
        claims: dict[ObjectId, Claim] = {}
        for wish in wishes:
            promo = wish.promo
            if promo.id not in claims:
                claims[promo.id] = Claim(promo.id, promo.max_uses, wish.seen)
            claims[promo.id].tokens.append(wish.token)
        with timed(spent, "take"):
            taken = self._store.take(list(claims.values()), now)
        granted_tokens = {promo_id: set(tokens) for promo_id, tokens in taken.items()}
        granted = [wish for wish in wishes if wish.token in granted_tokens[wish.promo.id]]
        if not granted:
            return
        with timed(spent, "record"):
            refused = self._store.record([_use(wish, now) for wish in granted])
        for index, wish in enumerate(granted):
            if index not in refused:
                wish.ticket.answer(_redemption(wish.ticket, wish.promo, wish.grant))
        if refused:
            numbers = Counter(granted[index].promo.id for index in refused)
            self._metrics.given_back.inc(len(refused))
            self._store.give_back(
                {promo_id: (claims[promo_id].id, number) for promo_id, number in numbers.items()}
            )

    def _replay(self, replays: Sequence[tuple[Waiting, Promo, Replay]]) -> None:
        """Answer repetitions of what is recorded on a majority; the others have to wait."""
        durable = self._store.on_majority([replay.use.id for _, _, replay in replays])
        for ticket, promo, replay in replays:
            if replay.use.id in durable:
                self._metrics.replays.inc()
                ticket.answer(_redemption(ticket, promo, replay))


def _redemption(ticket: Waiting, promo: Promo, decision: Grant | Replay) -> Redemption:
    return Redemption(
        promo_code=ticket.item.request.code,
        discount_type=promo.discount_type,
        discount_value=promo.discount_value,
        discount_amount=decision.discount,
        final_amount=decision.final_amount,
        replayed=isinstance(decision, Replay),
    )


def _use(wish: _Wish, now: datetime) -> dict[str, Any]:
    request = wish.ticket.item.request
    use = {
        "_id": ObjectId(),
        "promoId": wish.promo.id,
        "userId": ObjectId(request.user_id),
        "orderId": request.order_id,
        "usedAt": now,
        "orderAmount": request.order_amount,
        "discountApplied": wish.grant.discount,
        "useSlot": wish.grant.slot,
    }
    if request.idempotency_key is not None:
        use["idempotencyKey"] = request.idempotency_key
    return use

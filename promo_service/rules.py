"""The decisions of the contract: one request, one batch. Pure; `now` is an argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from enum import Enum
from typing import Final

from msgspec import Struct

from promo_service import errors
from promo_service.errors import Rejection
from promo_service.javascript import js_text
from promo_service.promos import Number, Promo, Use, amount_after, discount
from promo_service.wire import ApplyRequest


class Undecided(Enum):
    """The answer depends on a use that is being recorded: decide again on a fresh read."""

    WAIT = "wait"


WAIT: Final = Undecided.WAIT


class Order(Struct, frozen=True):
    """One request of a batch; `consume` tells apply from validate."""

    request: ApplyRequest
    consume: bool


class Grant(Struct, frozen=True):
    """The request may have a use, as its user's use number `slot`, if one is left to take."""

    slot: int
    discount: Number
    final_amount: Number


class Replay(Struct, frozen=True):
    """The request repeats a recorded use, and gets the recorded amounts."""

    use: Use
    discount: Number
    final_amount: Number


Decision = Rejection | Grant | Replay | Undecided


def claim_token(user_id: str, slot: int) -> bytes:
    """Name one user's n-th use of a code, in 16 bytes: what a take claims and a record fills."""
    return bytes.fromhex(user_id) + slot.to_bytes(4, "big")


def decide_batch(
    promo: Promo | None,
    uses: Mapping[str, Sequence[Use]],
    orders: Sequence[Order],
    now: datetime,
    in_flight: AbstractSet[bytes] = frozenset(),
) -> list[Decision]:
    """Decide each order of a batch on the same read.

    `uses` are the recorded ones by user, `in_flight` the tokens of those that other processes are
    recording at this moment.

    At most one new use per user and batch: whether a second one is a repetition, one too many or
    due depends on the first one being recorded. It also keeps the slots of a user filled from
    below, on which "at most one use per orderId" rests: whoever picks slot n has seen all slots
    below it filled by uses with other orderIds, and a filled slot never changes.
    """
    if promo is None:
        return [errors.INVALID_CODE] * len(orders)
    decisions: list[Decision] = []
    granted: set[str] = set()
    for order in orders:
        user = order.request.user_id
        recorded = uses.get(user, ())
        decision = decide(promo, recorded, order.request, now)
        wanted = order.consume and isinstance(decision, Grant)
        if in_flight and claim_token(user, _lowest_free_slot(recorded)) in in_flight:
            # It may be this very order that is being recorded: a double click shows no error.
            if wanted or (_is_idempotent(order.request) and not _repeated(recorded, order.request)):
                decision = WAIT
        elif wanted:
            if user in granted:
                decision = WAIT
            granted.add(user)
        decisions.append(decision)
    return decisions


def decide(promo: Promo, uses: Sequence[Use], request: ApplyRequest, now: datetime) -> Decision:
    """Decide one request; the checks and their order are those of the contract."""
    repeated = _repeated(uses, request) if uses else None
    if repeated is not None:
        return _replay(repeated, request)
    if promo.valid_until is not None and promo.valid_until < now:
        return errors.EXPIRED
    if promo.valid_from is not None and promo.valid_from > now:
        return errors.NOT_YET_ACTIVE
    if promo.sold_out:
        return errors.USAGE_LIMIT_REACHED
    if promo.max_uses_per_user is not None and len(uses) >= promo.max_uses_per_user:
        return errors.USER_LIMIT_REACHED
    return _not_eligible(promo, request) or _grant(promo, request, _lowest_free_slot(uses))


def is_running(promo: Promo, now: datetime) -> bool:
    """Tell whether the code is within its dates, so that its count of uses matters."""
    started = promo.valid_from is None or promo.valid_from <= now
    return started and (promo.valid_until is None or promo.valid_until >= now)


def _is_idempotent(request: ApplyRequest) -> bool:
    return request.order_id is not None or request.idempotency_key is not None


def _repeated(uses: Sequence[Use], request: ApplyRequest) -> Use | None:
    if request.order_id is not None:
        return next((use for use in uses if use.order_id == request.order_id), None)
    if request.idempotency_key is not None:
        key = request.idempotency_key
        return next((use for use in uses if use.idempotency_key == key), None)
    return None


def _replay(use: Use, request: ApplyRequest) -> Decision:
    if use.order_amount is None or use.order_amount != request.order_amount:
        return errors.ORDER_CONFLICT
    return Replay(use, use.discount, amount_after(use.order_amount, use.discount))


def _lowest_free_slot(uses: Sequence[Use]) -> int:
    if not uses:
        return 0
    filled = {use.slot for use in uses}
    return next(slot for slot in range(len(uses) + 1) if slot not in filled)


def _not_eligible(promo: Promo, request: ApplyRequest) -> Rejection | None:
    if request.order_amount < promo.min_order_amount:
        return errors.minimum_not_met(js_text(promo.min_order_amount))
    types = promo.order_types
    if types is not None and "all" not in types and request.order_type not in types:
        return errors.ORDER_TYPE_NOT_ELIGIBLE
    if promo.merchants and request.merchant_id and request.merchant_id not in promo.merchants:
        return errors.MERCHANT_NOT_ELIGIBLE
    return None


def _grant(promo: Promo, request: ApplyRequest, slot: int) -> Grant:
    amount = discount(promo, request.order_amount)
    return Grant(slot, amount, amount_after(request.order_amount, amount))

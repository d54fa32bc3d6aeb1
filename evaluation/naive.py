"""The naive yardstick: find, count, guarded `$inc` and insert for every request, on its own.

What a careful team writes first: never more uses than maxUses, with the indexes, the request
parsing and the answers of the service. It knows no replays: a repeated order is one use too many.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

from bson import ObjectId
from flask import Flask, Response, request
from pymongo import MongoClient
from pymongo.database import Database

from promo_service import errors
from promo_service.errors import InvalidRequest, Rejection
from promo_service.javascript import js_number
from promo_service.promos import Promo, amount_after, discount
from promo_service.wire import ApplyRequest, decode_apply, render_error, render_success

Document = dict[str, Any]

PREFIX = "/api/promo-codes"
POOL_SIZE = 50
PROJECTION = dict.fromkeys(
    (
        "discountType",
        "discountValue",
        "maxUses",
        "maxUsesPerUser",
        "minOrderAmount",
        "validFrom",
        "validUntil",
        "applicableOrderTypes",
        "applicableMerchants",
        "currentUses",
    ),
    1,
)


def from_env() -> Flask:
    """Build the app from MONGODB_URI and PROMO_DATABASE."""
    client: MongoClient[Document] = MongoClient(
        os.environ["MONGODB_URI"], maxPoolSize=POOL_SIZE, w="majority"
    )
    return create_app(client[os.environ["PROMO_DATABASE"]])


def create_app(database: Database[Document]) -> Flask:
    """Build the app on a database that has been migrated."""
    app = Flask(__name__)
    naive = NaiveService(database)

    @app.post(f"{PREFIX}/apply")
    def apply() -> Response:
        return _answer(naive, consume=True)

    @app.post(f"{PREFIX}/validate")
    def validate() -> Response:
        return _answer(naive, consume=False)

    return app


class NaiveService:
    """Redeem each request by itself, with four commands."""

    def __init__(self, database: Database[Document]) -> None:
        self._promos = database["promo_codes"]
        self._uses = database["promo_usage"]

    def redeem(self, asked: ApplyRequest, *, consume: bool) -> bytes | Rejection:
        """Check a request and, with `consume`, take and record a use; return what to answer."""
        document = self._promos.find_one({"code": asked.code, "isActive": True}, PROJECTION)
        if document is None:
            return errors.INVALID_CODE
        promo, user_id = Promo.from_document(document), ObjectId(asked.user_id)
        used = self._uses.count_documents({"promoId": promo.id, "userId": user_id})
        refusal = _check(promo, used, asked, _now())
        if refusal:
            return refusal
        amount = discount(promo, asked.order_amount)
        if consume:
            if not self._take(promo):
                return errors.USAGE_LIMIT_REACHED
            self._record(promo, user_id, asked, amount)
        left = amount_after(asked.order_amount, amount)
        return render_success(asked.code, promo.discount_type, promo.discount_value, amount, left)

    def _take(self, promo: Promo) -> bool:
        guard: Document = {"_id": promo.id, "isActive": True}
        if promo.max_uses is not None:
            guard["currentUses"] = {"$lt": promo.max_uses}
        return self._promos.update_one(guard, {"$inc": {"currentUses": 1}}).matched_count == 1

    def _record(
        self, promo: Promo, user_id: ObjectId, asked: ApplyRequest, amount: int | float
    ) -> None:
        self._uses.insert_one(
            {
                "promoId": promo.id,
                "userId": user_id,
                "orderId": asked.order_id,
                "usedAt": _now(),
                "orderAmount": asked.order_amount,
                "discountApplied": amount,
            }
        )


def _answer(naive: NaiveService, *, consume: bool) -> Response:
    try:
        asked = decode_apply(request.get_data(), None)
    except InvalidRequest as error:
        return _reply(render_error(error.message, error.code), error.status)
    answer = naive.redeem(asked, consume=consume)
    if isinstance(answer, Rejection):
        return _reply(render_error(answer.error, answer.code), answer.status)
    return _reply(answer)


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def _check(promo: Promo, used: int, asked: ApplyRequest, now: datetime) -> Rejection | None:
    if promo.valid_until is not None and promo.valid_until < now:
        return errors.EXPIRED
    if promo.valid_from is not None and promo.valid_from > now:
        return errors.NOT_YET_ACTIVE
    if promo.sold_out:
        return errors.USAGE_LIMIT_REACHED
    if promo.max_uses_per_user is not None and used >= promo.max_uses_per_user:
        return errors.USER_LIMIT_REACHED
    return _check_order(promo, asked)


def _check_order(promo: Promo, asked: ApplyRequest) -> Rejection | None:
    if asked.order_amount < promo.min_order_amount:
        return errors.minimum_not_met(js_number(promo.min_order_amount))
    types = promo.order_types
    if types is not None and "all" not in types and asked.order_type not in types:
        return errors.ORDER_TYPE_NOT_ELIGIBLE
    if promo.merchants and asked.merchant_id and asked.merchant_id not in promo.merchants:
        return errors.MERCHANT_NOT_ELIGIBLE
    return None


def _reply(body: bytes, status: int = 200) -> Response:
    return Response(body, status, mimetype="application/json")

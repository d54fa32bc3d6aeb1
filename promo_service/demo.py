"""Promo codes of every kind to try the service with, and some uses of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta

from bson import ObjectId
from pymongo.database import Database

from promo_service.promos import Promo
from promo_service.seed import Document, promo_document, use_document

# What no demo code is short of.
MONTH = timedelta(days=30)
FLAT: Document = {"discountType": "flat"}
SHIPPING: Document = {"discountType": "free_shipping", "discountValue": 0}
BURGERS: Document = {"applicableMerchants": ["merchant-burgers", "merchant-fries"]}

# Code, uses recorded, and what differs from the defaults: 10 percent, active, no limit but one use
# for each user. Dates are given in months from now.
DEMO: list[tuple[str, int, Document]] = [
    ("WELCOME10", 1200, {}),
    ("SPRING15", 210, {"discountValue": 15}),
    ("SUMMER20", 340, {"discountValue": 20, "minOrderAmount": 50}),
    ("VIP25", 75, {"discountValue": 25, "minOrderAmount": 100}),
    ("HALFPRICE", 60, {"discountValue": 50, "maxUses": 5000}),
    ("PENNIES", 12, {"discountValue": 7.5}),
    ("FLAT5", 180, {**FLAT, "discountValue": 5}),
    ("FLAT20", 90, {**FLAT, "discountValue": 20, "minOrderAmount": 99.5}),
    ("TENNER", 45, {**FLAT, "maxUses": 1000}),
    ("FREESHIP", 260, SHIPPING),
    ("FREESHIP35", 85, {**SHIPPING, "minOrderAmount": 35}),
    ("COFFEE", 150, {**FLAT, "discountValue": 2, "maxUsesPerUser": 5}),
    ("LOYAL3", 120, {"maxUsesPerUser": 3}),
    ("TWICE", 40, {"maxUsesPerUser": 2, "maxUses": 400}),
    ("SOLDOUT", 100, {"maxUses": 100}),
    ("FLASH500", 500, {"discountValue": 30, "maxUses": 500}),
    ("LASTONE", 249, {"maxUses": 250}),
    ("ALMOSTGONE", 47, {"maxUses": 50}),
    ("ONLYONE", 0, {"maxUses": 1}),
    ("DELIVERY5", 66, {**FLAT, "discountValue": 5, "applicableOrderTypes": ["delivery"]}),
    ("PICKUP10", 31, {"applicableOrderTypes": ["pickup"]}),
    ("EATIN", 9, {"applicableOrderTypes": ["dine_in", "pickup"]}),
    ("BURGER10", 52, BURGERS),
    ("BURGERNIGHT", 17, {**BURGERS, "applicableOrderTypes": ["delivery"], "minOrderAmount": 15}),
    ("PIZZA2", 28, {**FLAT, "discountValue": 2, "applicableMerchants": ["merchant-pizza"]}),
    ("WINTERSALE", 320, {"discountValue": 40, "validUntil": -1}),
    ("LASTWEEK", 23, {"validUntil": -0.25}),
    ("NEXTMONTH", 0, {"discountValue": 35, "validFrom": 1}),
    ("ANNIVERSARY", 0, {**FLAT, "discountValue": 50, "validFrom": 3, "maxUses": 100}),
    ("PAUSED", 14, {"isActive": False}),
    ("RELAUNCH", 33, {"isActive": False, "discountValue": 5}),
    ("RELAUNCH", 21, {"discountValue": 10}),
]


def load_demo(database: Database[Document], now: datetime) -> int:
    """Load the demo into a database without promo codes; return how many codes were loaded."""
    if database["promo_codes"].find_one({}, {"_id": 1}):
        return 0
    # The numbers are always the same, so that what was tried once can be tried again.
    rng = random.Random(10)
    promos = [_promo(number, now) for number in range(len(DEMO))]
    # The codes last: until they are there, the demo is loaded again from the start.
    recorded = database["promo_usage"]
    recorded.delete_many({"promoId": {"$in": [promo["_id"] for promo in promos]}})
    recorded.insert_many([use for promo in promos for use in _uses(rng, promo, now)])
    database["promo_codes"].insert_many(promos)
    return len(promos)


def _promo(number: int, now: datetime) -> Document:
    code, uses, given = DEMO[number]
    fields: Document = {"validUntil": 24, **given}
    for name in {"validFrom", "validUntil"} & fields.keys():
        fields[name] = now + fields[name] * MONTH
    document = promo_document(code, now - 6 * MONTH, **fields, createdBy="demo")
    return {"_id": ObjectId(f"de40c0de{number:016x}"), **document, "currentUses": uses}


def _uses(rng: random.Random, promo: Document, now: datetime) -> Iterator[Document]:
    value = Promo.from_document(promo)
    start, end = now - 6 * MONTH, min(now, promo["validUntil"])
    for nth in range(promo["currentUses"]):
        user, slot = divmod(nth, promo["maxUsesPerUser"])
        amount = round(promo["minOrderAmount"] + 5 + rng.random() * 75, 2)
        used_at = start + (end - start) * rng.random()
        use = use_document(
            value, ObjectId(f"de4005e4{user:016x}"), f"demo-{promo['code']}-{nth}", used_at, amount
        )
        yield {**use, "useSlot": slot}

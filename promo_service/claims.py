"""The claims on a promo: which uses are being recorded at this moment, and by which process.

A promo document holds, beside `currentUses`, `claims.moves`, which grows with every change of the
count, and `claims.inFlight`, the last claim of each process:

    {id, by, after, until, uses, taken}

`by` is the process and `after` its claim before this one. Until the time `until`, nobody else may
take the `uses`, which are tokens of user and slot. All of them are taken, or as many as `taken`
says.

What was read as recorded may be relied on when a use is taken if nobody can have claimed and
recorded that use since. The last claim of every other process is there to be looked at; who has
made more than one since the read has outrun us. Then only that is taken which we had claimed
before we read. To this end a claim can be made without taking anything, as a lease on its uses
(Gray and Cheriton, "Leases", SOSP 1989): a process that is far from the database is slower than
the others, and not shut out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from bson import ObjectId

from promo_service.errors import MalformedPromo

Document = dict[str, Any]
Update = Document | list[Document]

IN_FLIGHT = "claims.inFlight"
# What a read must bring: the claims, and the time as the database has it, which is everybody's.
READ_FIELDS: Document = {"claims": 1, "now": "$$NOW"}


@dataclass(frozen=True, slots=True)
class Seen:
    """The claims on a promo as they were read, at the database's time `at`.

    `ids` are everybody's claims and `last` is our own; `elsewhere` are the uses that others have
    in flight, and `alone` says that there are no others.
    """

    at: datetime = field(compare=False)
    moves: int
    ids: list[ObjectId]
    last: ObjectId | None
    elsewhere: frozenset[bytes]
    alone: bool


@dataclass(frozen=True, slots=True)
class Claim:
    """The uses that a batch wants of one promo, by their tokens, on what it has seen of it."""

    promo_id: ObjectId
    max_uses: int | None
    seen: Seen
    tokens: list[bytes] = field(default_factory=list)
    id: ObjectId = field(default_factory=ObjectId)


def seen_in(document: Mapping[str, Any], me: ObjectId) -> Seen:
    """Read the claims of a promo document, for the process `me`; raises MalformedPromo."""
    now = document["now"]
    claims = document.get("claims", {})
    try:
        in_flight = claims.get("inFlight", [])
        others = [claim for claim in in_flight if claim["by"] != me and claim["until"] > now]
        return Seen(
            at=now,
            moves=moves_in(document) or 0,
            ids=[claim["id"] for claim in in_flight],
            last=next((claim["id"] for claim in in_flight if claim["by"] == me), None),
            elsewhere=frozenset(token for claim in others for token in claim["uses"]),
            alone=not others,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise MalformedPromo("claims") from error


def moves_in(document: Mapping[str, Any]) -> int | None:
    """Read how often the count has changed, None before any change; raises MalformedPromo."""
    claims = document.get("claims", {})
    if not isinstance(claims, Mapping):
        raise MalformedPromo("claims")
    if "moves" not in claims:
        return None
    moves = claims["moves"]
    is_number = isinstance(moves, (int, float)) and not isinstance(moves, bool)
    # What is no whole number cannot be compared in a query: nothing would ever be taken.
    if not is_number or not float(moves).is_integer():
        raise MalformedPromo("claims")
    return int(moves)


def running(promo_id: ObjectId, now: datetime) -> Document:
    """Return the query for a promo that may be used now.

    It repeats what was decided on: a code that was switched off meanwhile grants nothing.
    """
    return {
        "_id": promo_id,
        "isActive": True,
        "currentUses": {"$gte": 0},
        "$nor": [{"validUntil": {"$lt": now}}, {"validFrom": {"$gt": now}}],
    }


class Claimant:
    """A process that makes claims; they are in flight for `milliseconds`."""

    def __init__(self, milliseconds: int) -> None:
        self.me = ObjectId()
        self._milliseconds = milliseconds

    def take_all(self, claim: Claim, now: datetime) -> tuple[Document, Update]:
        """Return the query and the update that take all that is claimed, or nothing."""
        wanted = len(claim.tokens)
        query = running(claim.promo_id, now)
        # The limit as it was read: an expression over the fields would cost mongod more, and
        # where somebody has lowered the limit meanwhile, what is left of it is taken instead.
        if claim.max_uses is None:
            query["maxUses"] = None
        else:
            query["maxUses"] = {"$gte": claim.max_uses}
            query["currentUses"] = {"$gte": 0, "$lte": claim.max_uses - wanted}
        if claim.seen.alone:
            # Nobody else was at it when it was read, nor since: half the work for mongod.
            query["claims.moves"] = claim.seen.moves or None
            return query, self._take_alone(claim)
        query[IN_FLIGHT] = {"$not": {"$elemMatch": self._in_our_way(claim)}}
        mine = self._claim(claim, {"uses": claim.tokens})
        return query, [{"$set": _moved(wanted, mine, _unexpired("$ne", self.me))}]

    def take_left(self, claim: Claim) -> list[Document]:
        """Return the update that takes what is left, first come first served.

        What may not be taken because we are outrun is claimed, where there is room for it.
        """
        wanted = len(claim.tokens)
        # A code that the legacy service oversold has no room, and its count stays as it is.
        left = {"$max": [0, {"$floor": {"$subtract": ["$maxUses", "$currentUses"]}}]}
        free = _without(claim.tokens, _uses_of("$_take.others"))
        barred = _without("$_take.free", _uses_of(_unexpired("$eq", self.me)))
        allowed = _without("$_take.free", "$_take.barred")
        taken = {"$size": "$_take.granted"}
        later = {"$cond": [{"$gt": ["$_take.room", taken]}, "$_take.barred", []]}
        mine = {"uses": {"$concatArrays": ["$_take.granted", later]}, "taken": taken}
        return [
            {
                "$set": {
                    "_take.others": _unexpired("$ne", self.me),
                    "_take.room": {"$cond": [{"$gt": ["$maxUses", None]}, left, wanted]},
                }
            },
            {"$set": {"_take.free": free}},
            {"$set": {"_take.barred": {"$cond": [self._is_outrun(claim), barred, []]}}},
            {"$set": {"_take.granted": {"$slice": [allowed, {"$min": [wanted, "$_take.room"]}]}}},
            {"$set": _moved(taken, self._claim(claim, mine), "$_take.others")},
            {"$unset": "_take"},
        ]

    def _take_alone(self, claim: Claim) -> Document:
        # The requests were there before the read, so they are over within a deadline of it.
        until = claim.seen.at + timedelta(milliseconds=self._milliseconds)
        mine = {"id": claim.id, "by": self.me, "after": claim.seen.last, "until": until}
        return {
            "$inc": {"currentUses": len(claim.tokens), "claims.moves": 1},
            "$set": {IN_FLIGHT: [{**mine, "uses": claim.tokens}]},
        }

    def _claim(self, claim: Claim, uses: Document) -> Document:
        last = {"$map": {"input": _in_flight({"$eq": ["$$this.by", self.me]}), "in": "$$this.id"}}
        return {
            "id": claim.id,
            "by": self.me,
            "after": {"$arrayElemAt": [last, 0]},
            "until": {"$add": ["$$NOW", self._milliseconds]},
            **uses,
        }

    def _in_our_way(self, claim: Claim) -> Document:
        """Match another process's claim on what we claim, or one by which it has outrun us."""
        seen = claim.seen.ids
        outrun = {"id": {"$nin": seen}, "after": {"$nin": [None, *seen]}}
        return {"by": {"$ne": self.me}, "$or": [{"uses": {"$in": claim.tokens}}, outrun]}

    def _is_outrun(self, claim: Claim) -> Document:
        seen = claim.seen.ids
        after = {"$ifNull": ["$$this.after", None]}
        outruns = {
            "$and": [
                {"$ne": ["$$this.by", self.me]},
                {"$not": [{"$in": ["$$this.id", seen]}]},
                {"$not": [{"$in": [after, [None, *seen]]}]},
            ]
        }
        return {"$gt": [{"$size": _in_flight(outruns)}, 0]}


def _moved(taken: Any, mine: Document, others: Any) -> Document:
    return {
        "currentUses": {"$add": ["$currentUses", taken]},
        "claims": {
            "moves": {"$add": [{"$ifNull": ["$claims.moves", 0]}, 1]},
            "inFlight": {"$concatArrays": [[mine], others]},
        },
    }


def _in_flight(condition: Document) -> Document:
    return {"$filter": {"input": {"$ifNull": ["$claims.inFlight", []]}, "cond": condition}}


def _unexpired(of: str, process: ObjectId) -> Document:
    return _in_flight({"$and": [{of: ["$$this.by", process]}, {"$gt": ["$$this.until", "$$NOW"]}]})


def _uses_of(claims: Any) -> Document:
    uses = {"$concatArrays": ["$$value", "$$this.uses"]}
    return {"$reduce": {"input": claims, "initialValue": [], "in": uses}}


def _without(tokens: Any, excluded: Any) -> Document:
    # Not $setDifference: it forgets the order, which is that of arrival.
    return {"$filter": {"input": tokens, "cond": {"$not": [{"$in": ["$$this", excluded]}]}}}

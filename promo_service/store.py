"""Every query, projection, index and driver error of the service."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ParamSpec, TypeVar

import bson
import pymongo
from bson import MinKey, ObjectId
from bson.codec_options import CodecOptions, DatetimeConversion
from pymongo import IndexModel, MongoClient, ReturnDocument, UpdateOne
from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    DuplicateKeyError,
    OperationFailure,
)
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from promo_service.errors import DatabaseUnavailable, DuplicateCode, MalformedPromo
from promo_service.promos import Promo, Use

log = logging.getLogger(__name__)

Document = dict[str, Any]
Update = Document | list[Document]
P = ParamSpec("P")
T = TypeVar("T")

DUPLICATE_KEY = 11000
LOOKUP_INTO_SHARDED = 28769

CODE_LOOKUP = IndexModel([("code", 1), ("_id", 1)], name="promo_code_lookup")
ACTIVE_CODE_UNIQUE = IndexModel(
    [("code", 1)],
    name="promo_active_code_unique",
    unique=True,
    partialFilterExpression={"isActive": True},
)
USES_OF_USER = IndexModel([("promoId", 1), ("userId", 1)], name="promo_uses_of_user")
USE_SLOT_UNIQUE = IndexModel(
    [("promoId", 1), ("userId", 1), ("useSlot", 1)],
    name="promo_use_slot_unique",
    unique=True,
    partialFilterExpression={"useSlot": {"$exists": True}},
)
# Without these the service is slow or wrong. ACTIVE_CODE_UNIQUE is not among them: production may
# hold two active promos with one code, and then it cannot be built.
REQUIRED_INDEXES = {
    "promo_codes": [CODE_LOOKUP],
    "promo_usage": [USES_OF_USER, USE_SLOT_UNIQUE],
}

# Dates that Python cannot hold are clamped for decisions and kept as they are for answers; text
# that is not UTF-8 must not make a document unreadable.
_DECIDING: CodecOptions[Document] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_CLAMP, unicode_decode_error_handler="replace"
)
_ANSWERING: CodecOptions[Document] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO, unicode_decode_error_handler="replace"
)
_PUBLIC = {"claims": 0}
_USE_FIELDS = {
    "promoId": 1,
    "userId": 1,
    "orderId": 1,
    "idempotencyKey": 1,
    "orderAmount": 1,
    "discountApplied": 1,
    "useSlot": 1,
}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was read of one code: the promo, if there is one, and uses by user.

    There is none either where the document is `malformed`.
    """

    promo: Promo | None
    uses: dict[str, list[Use]]
    malformed: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """The uses that a batch wants of one promo, by their tokens.

    With them the limit and the moves that were read; no moves where others are at it too.
    """

    promo_id: ObjectId
    tokens: list[bytes]
    max_uses: int | None
    moves: int | None


@dataclass(frozen=True, slots=True)
class Taken:
    """The count of a code, and the number of its changes, which only grows (None before any)."""

    code: str
    uses: int
    moves: int | None


def connect(uri: str, *, pool_size: int, timeout: float) -> MongoClient[Document]:
    """Return the process's client: a bounded pool, no wait longer than `timeout` seconds.

    Call it after the fork, in the worker. Every limit is set: PyMongo's own defaults are a pool
    of 100 without a bound on waiting for it, and 30 s to find a server.
    """
    milliseconds = int(timeout * 1000)
    return MongoClient(
        uri,
        appname="promo-service",
        maxPoolSize=pool_size,
        minPoolSize=min(2, pool_size),
        maxConnecting=2,
        waitQueueTimeoutMS=milliseconds,
        serverSelectionTimeoutMS=milliseconds,
        connectTimeoutMS=milliseconds,
        retryWrites=True,
        retryReads=True,
    )


def deadline(seconds: float) -> AbstractContextManager[None]:
    """Bound all database work inside by `seconds`; valid in the greenlet that opens it only."""
    # To PyMongo, 0 is no deadline at all and less is a mistake.
    return pymongo.timeout(max(seconds, 1e-6))


def translated(method: Callable[P, T]) -> Callable[P, T]:
    """Turn what the driver reports into DatabaseUnavailable, and let bugs of ours through."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except ConnectionFailure as error:
            log.warning("database out of reach in %s: %s", method.__name__, error)
            raise DatabaseUnavailable(str(error)) from error
        except OperationFailure as error:
            if not error.timeout and not error.has_error_label("RetryableWriteError"):
                log.error("database refused %s", method.__name__, exc_info=error)
            raise DatabaseUnavailable(str(error)) from error

    return call


class Store:
    """The two collections, as the service uses them."""

    def __init__(self, client: MongoClient[Document], database: str, claim_seconds: float) -> None:
        """Use `database`; `claim_seconds` is how long a claim of this process can be in flight."""
        majority = WriteConcern("majority")
        db = client.get_database(database, codec_options=_DECIDING, write_concern=majority)
        self.client = client
        self._db = db
        self._codes = db["promo_codes"]
        self._uses = db["promo_usage"]
        self._uses_on_majority = self._uses.with_options(read_concern=ReadConcern("majority"))
        self._codes_on_majority = self._codes.with_options(read_concern=ReadConcern("majority"))
        self._documents = self._codes.with_options(codec_options=_ANSWERING)
        self._claim_milliseconds = int(claim_seconds * 1000)
        self._me = ObjectId()  # of this process, in the claims that it has in flight
        self._read_fields = _read_fields(self._me)
        self._lookup_works = True

    # Reading

    @translated
    def read(self, users_by_code: Mapping[str, Iterable[str]]) -> dict[str, Snapshot]:
        """Read the active promo of each code and what the given users have recorded of it."""
        users = {ObjectId(user): user for names in users_by_code.values() for user in names}
        codes = list(users_by_code)
        if len(codes) == 1 and self._lookup_works:
            documents, uses = self._read_one(codes[0], list(users))
        else:
            documents, uses = self._read_many(codes, list(users))
        for document in documents:
            document["moves"] = _moves_if_alone(document, self._me)
        return _snapshots(codes, documents, uses, users)

    def _read_one(self, code: str, users: list[ObjectId]) -> tuple[list[Document], list[Document]]:
        # One round trip; for a lone request it costs half of what two finds cost.
        pipeline: list[Document] = [
            {"$match": {"code": code, "isActive": True}},
            {"$sort": {"_id": 1}},
            {"$limit": 1},
            {
                "$lookup": {
                    "from": "promo_usage",
                    "let": {"promo": "$_id"},
                    "pipeline": [
                        {
                            "$match": {
                                "userId": {"$in": users},
                                "$expr": {"$eq": ["$promoId", "$$promo"]},
                            }
                        },
                        {"$project": _USE_FIELDS},
                    ],
                    "as": "uses",
                }
            },
            {"$project": {**self._read_fields, "uses": 1}},
        ]
        try:
            documents = list(self._codes.aggregate(pipeline))
        except OperationFailure as error:
            if error.code != LOOKUP_INTO_SHARDED:
                raise
            self._lookup_works = False  # a sharded promo_usage before MongoDB 5.1
            return self._read_many([code], users)
        return documents, documents[0]["uses"] if documents else []

    def _read_many(
        self, codes: list[str], users: list[ObjectId]
    ) -> tuple[list[Document], list[Document]]:
        # Two round trips for all codes. The product of promos and users looks wasteful and is not:
        # the index is walked over what exists, and one $or branch per code costs twice as much.
        query = {"code": {"$in": codes}, "isActive": True}
        in_order = [("code", 1), ("_id", 1)]
        documents = list(self._codes.find(query, self._read_fields, sort=in_order))
        ids = [document["_id"] for document in documents]
        pairs = {"promoId": {"$in": ids}, "userId": {"$in": users}}
        return documents, list(self._uses.find(pairs, _USE_FIELDS)) if ids else []

    @translated
    def on_majority(self, use_ids: Sequence[ObjectId]) -> set[ObjectId]:
        """Return those of the uses that a majority of the replica set has recorded."""
        found = self._uses_on_majority.find({"_id": {"$in": list(use_ids)}}, {"_id": 1})
        return {document["_id"] for document in found}

    # Taking, recording, giving back

    @translated
    def take(self, claims: Sequence[Claim], now: datetime) -> dict[ObjectId, list[bytes]]:
        """Take the claimed uses where enough are left, and say by promo which were granted.

        One update for all codes. Where it could not take all that was claimed, what is left is
        taken, first come first served. Not granted is also what another process is recording.
        """
        batch = ObjectId()
        taken = self._update_all([self._take_all(claim, batch, now) for claim in claims])
        full = {claim.promo_id: claim.tokens for claim in claims}
        if taken < len(claims):
            granted = self._codes.find(
                {
                    "_id": {"$in": list(full)},
                    "claims.inFlight": {"$elemMatch": {"by": self._me, "batch": batch}},
                },
                {"_id": 1},
            )
            done = {document["_id"] for document in granted}
            for claim in claims:
                if claim.promo_id not in done:
                    full[claim.promo_id] = self._take_left(claim, batch, now)
        return full

    def _update_all(self, updates: Sequence[tuple[Document, Update]]) -> int:
        """Send all updates as one command, and return how many of them found their document."""
        if len(updates) == 1:
            # The same command; without the driver's machinery for many it takes 0.1 ms less.
            return self._codes.update_one(*updates[0]).matched_count
        try:
            requests = [UpdateOne(query, change) for query, change in updates]
            return self._codes.bulk_write(requests, ordered=False).matched_count
        except BulkWriteError as error:
            # A document that the update cannot compute with grants nothing, to nobody else's harm.
            if error.details["writeConcernErrors"]:
                raise
            return int(error.details["nMatched"])

    def _take_all(self, claim: Claim, batch: ObjectId, now: datetime) -> tuple[Document, Update]:
        wanted = len(claim.tokens)
        query = _running(claim.promo_id, now)
        # The limit as it was read: an expression over the fields would cost mongod more, and
        # where somebody has lowered the limit meanwhile, what is left of it is taken instead.
        if claim.max_uses is None:
            query["maxUses"] = None
        else:
            query["maxUses"] = {"$gte": claim.max_uses}
            query["currentUses"] = {"$gte": 0, "$lte": claim.max_uses - wanted}
        if claim.moves is not None:
            # Nobody else was at it when it was read, nor since: half the work for mongod.
            query["claims.moves"] = claim.moves or None
            until = now + timedelta(milliseconds=self._claim_milliseconds)
            mine = {"by": self._me, "batch": batch, "until": until, "uses": claim.tokens}
            return query, {
                "$inc": {"currentUses": wanted, "claims.moves": 1},
                "$set": {"claims.inFlight": [mine]},
            }
        query["claims.inFlight"] = {
            "$not": {"$elemMatch": {"by": {"$ne": self._me}, "uses": {"$in": claim.tokens}}}
        }
        return query, [{"$set": self._claimed(batch, claim.tokens, _others_in_flight(self._me))}]

    def _take_left(self, claim: Claim, batch: ObjectId, now: datetime) -> list[bytes]:
        wanted = len(claim.tokens)
        free: Document = {
            "$filter": {
                "input": claim.tokens,
                "cond": {"$not": [{"$in": ["$$this", _tokens_of("$claims.inFlight")]}]},
            }
        }
        room: Document = {
            "$cond": [
                {"$gt": ["$maxUses", None]},
                {"$floor": {"$subtract": ["$maxUses", "$currentUses"]}},
                wanted,
            ]
        }
        # A code that the legacy service oversold has no room, and its count stays as it is.
        granted = {"$slice": [free, {"$max": [0, {"$min": [wanted, room]}]}]}
        document = self._codes.find_one_and_update(
            _running(claim.promo_id, now),
            [
                {"$set": {"claims.inFlight": _others_in_flight(self._me)}},
                {"$set": {"claims.granted": granted}},
                {"$set": self._claimed(batch, "$claims.granted", "$claims.inFlight")},
                {"$unset": "claims.granted"},
            ],
            # The claim just made stands first.
            projection={"granted": {"$arrayElemAt": ["$claims.inFlight.uses", 0]}},
            return_document=ReturnDocument.AFTER,
        )
        return [] if document is None else [bytes(token) for token in document["granted"]]

    def _claimed(self, batch: ObjectId, tokens: Any, others: Any) -> Document:
        mine = {
            "by": self._me,
            "batch": batch,
            "until": {"$add": ["$$NOW", self._claim_milliseconds]},
            "uses": tokens,
        }
        return {
            "currentUses": {"$add": ["$currentUses", {"$size": [tokens]}]},
            "claims": {
                "moves": {"$add": [{"$ifNull": ["$claims.moves", 0]}, 1]},
                "inFlight": {"$concatArrays": [[mine], others]},
            },
        }

    @translated
    def record(self, uses: Sequence[Document]) -> set[int]:
        """Record uses, in one unordered insert; return the indexes of those refused for certain.

        Refused is a use whose user has another one in its slot. Any other failure leaves the
        outcome unknown and raises.
        """
        try:
            if len(uses) == 1:
                self._uses.insert_one(uses[0])  # the same command, and 0.1 ms less in the driver
            else:
                self._uses.insert_many(uses, ordered=False)
        except DuplicateKeyError as error:
            if not _slot_is_filled(error.details or {}):
                raise
            return {0}
        except BulkWriteError as error:
            refused = error.details["writeErrors"]
            if error.details["writeConcernErrors"] or not all(_slot_is_filled(e) for e in refused):
                raise
            return {e["index"] for e in refused}
        return set()

    @translated
    def give_back(self, refused: Mapping[ObjectId, int]) -> None:
        """Give back uses, by promo and number, whose record was refused for certain."""
        self._codes.bulk_write(
            [
                UpdateOne(
                    # One that the network holds back until reconcile has corrected the count
                    # finds its claim gone, and changes nothing.
                    {
                        "_id": promo_id,
                        "currentUses": {"$gte": number},
                        "claims.inFlight.by": self._me,
                    },
                    {
                        "$inc": {"currentUses": -number, "claims.moves": 1},
                        "$pull": {"claims.inFlight": {"by": self._me}},
                    },
                )
                for promo_id, number in refused.items()
            ],
            ordered=False,
        )

    @translated
    def count_once(self, promo_id: ObjectId) -> None:
        """Set `currentUses` of a document that has none yet, from the recorded uses."""
        uses = self._uses.count_documents({"promoId": promo_id})
        # A null matches a missing field too. Whoever was first has set it before taking any.
        self._codes.update_one(
            {"_id": promo_id, "currentUses": None}, {"$set": {"currentUses": uses}}
        )

    # Administration

    @translated
    def create(self, document: Document) -> Document:
        """Insert a promo; raises DuplicateCode when one with its code is active.

        The check beforehand counts only where the unique index could not be built.
        """
        message = f"There is already an active promo code {document['code']!r}"
        if self._codes.find_one({"code": document["code"], "isActive": True}, {"_id": 1}):
            raise DuplicateCode(message)
        try:
            self._codes.insert_one(document)
        except DuplicateKeyError as error:
            raise DuplicateCode(message) from error
        return document

    @translated
    def find_by_code(self, code: str) -> Document | None:
        """Return the promo with this code, active or not; the oldest where there are several."""
        return self._documents.find_one({"code": code}, _PUBLIC, sort=[("_id", 1)])

    def active(self) -> Iterator[list[Document]]:
        """Yield all active promos, a batch of the cursor at a time; each step is one operation."""
        batches: Iterator[Any] = self._documents.find_raw_batches(
            {"isActive": True}, _PUBLIC, batch_size=500
        )
        fetch = translated(lambda: next(batches, None))
        while (batch := fetch()) is not None:
            yield bson.decode_all(batch, _ANSWERING)

    @translated
    def deactivate(self, promo_id: ObjectId, admin_id: str | None, now: datetime) -> bool:
        """Switch a promo off for good; return whether there was one."""
        change = {"isActive": False, "deactivatedBy": admin_id, "deactivatedAt": now}
        result = self._codes.update_one({"_id": promo_id}, {"$set": {**change, "updatedAt": now}})
        return result.modified_count > 0

    # Readiness

    @translated
    def missing_indexes(self) -> list[str]:
        """Ask the database which of the required indexes are missing, as `collection.index`."""
        missing = []
        for collection, indexes in REQUIRED_INDEXES.items():
            present = self._db[collection].index_information()
            names = [index.document["name"] for index in indexes]
            missing += [f"{collection}.{name}" for name in names if name not in present]
        return missing

    # Reconciling: on a majority throughout, because what is rolled back can happen again otherwise

    @translated
    def taken(self, codes: Sequence[str] = ()) -> dict[ObjectId, Taken]:
        """Read the counts of these codes, or of all, where they have one."""
        query: Document = {"currentUses": {"$type": "number"}}
        if codes:
            query["code"] = {"$in": list(codes)}
        fields = {"code": 1, "currentUses": 1, "claims.moves": 1}
        found = self._codes_on_majority.find(query, fields)
        return {document["_id"]: _taken(document) for document in found}

    @translated
    def recorded(self, promo_ids: Sequence[ObjectId] | None = None) -> dict[ObjectId, int]:
        """Count the recorded uses of these promos, or of all; one without any is left out."""
        # The lower bound selects everything, and the index: the count reads no document.
        wanted = {"$gt": MinKey()} if promo_ids is None else {"$in": list(promo_ids)}
        pipeline: list[Document] = [
            {"$match": {"promoId": wanted}},
            {"$group": {"_id": "$promoId", "uses": {"$sum": 1}}},
        ]
        groups = self._uses_on_majority.aggregate(pipeline)
        return {group["_id"]: group["uses"] for group in groups}

    @translated
    def settle(self, promo_id: ObjectId, seen: Taken) -> int | None:
        """Set a count to the recorded uses and return it; None if it is not as it was seen."""
        moves = (seen.moves or 0) + 1
        with self.client.start_session(causal_consistency=True) as session:
            # A server that does not know yet that it is no longer the primary could leave out
            # uses. After a majority has taken this write, only those who know of it can count.
            held = self._codes.update_one(
                {"_id": promo_id, "currentUses": seen.uses, "claims.moves": seen.moves},
                {"$set": {"claims.moves": moves}},
                session=session,
            )
            if not held.matched_count:
                return None
            uses = self._uses_on_majority.count_documents({"promoId": promo_id}, session=session)
            settled = self._codes.update_one(
                {"_id": promo_id, "currentUses": seen.uses, "claims.moves": moves},
                {
                    "$set": {
                        "currentUses": uses,
                        "claims.moves": moves + 1,
                        "claims.inFlight": [],
                    }
                },
                session=session,
            )
        return uses if settled.matched_count else None


def _taken(document: Document) -> Taken:
    moves = document.get("claims", {}).get("moves")
    return Taken(str(document.get("code")), document["currentUses"], moves)


def _running(promo_id: ObjectId, now: datetime) -> Document:
    # Repeats what was decided on: a code that was switched off meanwhile grants nothing.
    return {
        "_id": promo_id,
        "isActive": True,
        "currentUses": {"$gte": 0},
        "$nor": [{"validUntil": {"$lt": now}}, {"validFrom": {"$gt": now}}],
    }


def _others_in_flight(me: ObjectId) -> Document:
    """Return the expression for the claims that other processes may still be recording."""
    return {
        "$filter": {
            "input": {"$ifNull": ["$claims.inFlight", []]},
            "cond": {"$and": [{"$ne": ["$$this.by", me]}, {"$gt": ["$$this.until", "$$NOW"]}]},
        }
    }


def _tokens_of(in_flight: Any) -> Document:
    return {
        "$reduce": {
            "input": in_flight,
            "initialValue": [],
            "in": {"$concatArrays": ["$$value", "$$this.uses"]},
        }
    }


def _read_fields(me: ObjectId) -> Document:
    sold_out = {"$and": [{"$gt": ["$maxUses", None]}, {"$gte": ["$currentUses", "$maxUses"]}]}
    return {
        "code": 1,
        "discountType": 1,
        "discountValue": 1,
        "maxUses": 1,
        "maxUsesPerUser": 1,
        "minOrderAmount": 1,
        "validFrom": 1,
        "validUntil": 1,
        "applicableOrderTypes": 1,
        "applicableMerchants": 1,
        "currentUses": 1,
        "claims.moves": 1,
        "claims.inFlight.by": 1,
        "claims.inFlight.until": 1,
        # Of interest only when all uses are taken, and not small then.
        "inFlight": {"$cond": [sold_out, _tokens_of(_others_in_flight(me)), "$$REMOVE"]},
    }


def _moves_if_alone(document: Document, me: ObjectId) -> int | None:
    claims = document.get("claims", {})
    if not isinstance(claims, dict):
        return None
    now = datetime.now(UTC).replace(tzinfo=None)
    if any(claim["by"] != me and claim["until"] > now for claim in claims.get("inFlight", ())):
        return None
    moves = claims.get("moves", 0)
    return moves if isinstance(moves, int) else None


def _snapshots(
    codes: Iterable[str],
    documents: Iterable[Document],
    uses: Iterable[Document],
    users: Mapping[ObjectId, str],
) -> dict[str, Snapshot]:
    recorded: dict[ObjectId, dict[str, list[Use]]] = {}
    for use in uses:
        # A query for one value also finds a list that holds it; nobody writes one.
        promo_id, user_id = use["promoId"], use["userId"]
        if not isinstance(promo_id, (list, dict)) and not isinstance(user_id, list):
            of_promo = recorded.setdefault(promo_id, {})
            of_promo.setdefault(users[user_id], []).append(Use.from_document(use))
    snapshots = {code: Snapshot(None, {}) for code in codes}
    seen: set[str] = set()
    for document in documents:  # by _id within a code: the smallest counts
        code = document["code"]
        if isinstance(code, str) and code not in seen:
            seen.add(code)
            snapshots[code] = _snapshot(document, recorded)
    return snapshots


def _snapshot(document: Document, recorded: Mapping[ObjectId, dict[str, list[Use]]]) -> Snapshot:
    try:
        promo = Promo.from_document(document)
    except MalformedPromo as error:
        log.error("promo %s cannot be understood: wrong %s", document["_id"], error)
        return Snapshot(None, {}, malformed=True)
    return Snapshot(promo, recorded.get(promo.id, {}))


def _slot_is_filled(write_error: Mapping[str, Any]) -> bool:
    filled = "useSlot" in write_error.get("keyPattern", {})
    return write_error.get("code") == DUPLICATE_KEY and filled

"""The queries of the service: reading, taking, recording and giving back uses; the catalog."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import bson
from bson import MinKey, ObjectId
from bson.codec_options import CodecOptions, DatetimeConversion
from pymongo import MongoClient, ReturnDocument, UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from promo_service import claims as claiming
from promo_service.claims import Claim, Claimant, Seen, Update, moves_in, seen_in
from promo_service.database import DUPLICATE_KEY, Document, translated
from promo_service.errors import DuplicateCode, MalformedPromo
from promo_service.indexes import REQUIRED_INDEXES, built
from promo_service.promos import Promo, Use

log = logging.getLogger(__name__)

LOOKUP_INTO_SHARDED = 28769

# Dates that Python cannot hold are clamped for decisions and kept as they are for answers; text
# that is not UTF-8 must not make a document unreadable.
_DECIDING: CodecOptions[Document] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_CLAMP, unicode_decode_error_handler="replace"
)
_ANSWERING: CodecOptions[Document] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO, unicode_decode_error_handler="replace"
)
_PUBLIC = {"claims": 0}
_PROMO_FIELDS: Document = {
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
    **claiming.READ_FIELDS,
}
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
    """What was read of one code: the promo with its claims, if there is one, and uses by user.

    There is none either where the document is `malformed`.
    """

    promo: Promo | None
    uses: dict[str, list[Use]]
    seen: Seen | None = None
    malformed: bool = False


@dataclass(frozen=True, slots=True)
class Taken:
    """The count of a code, and the number of its changes, which only grows (None before any)."""

    code: str
    uses: int
    moves: int | None


class Store:
    """The two collections, as the service uses them."""

    def __init__(self, client: MongoClient[Document], database: str, claim_seconds: float) -> None:
        """Use `database`; `claim_seconds` is how long a claim of this process can be in flight."""
        # The journal is named because a standalone MongoDB 4.4 does not wait for it otherwise, and
        # a crash takes back what was answered.
        majority = WriteConcern("majority", j=True)
        db = client.get_database(database, codec_options=_DECIDING, write_concern=majority)
        self.client = client
        self._db = db
        self._codes = db["promo_codes"]
        self._uses = db["promo_usage"]
        self._uses_on_majority = self._uses.with_options(read_concern=ReadConcern("majority"))
        self._codes_on_majority = self._codes.with_options(read_concern=ReadConcern("majority"))
        self._documents = self._codes.with_options(codec_options=_ANSWERING)
        self._claim_milliseconds = int(claim_seconds * 1000)
        self._claimant = Claimant(self._claim_milliseconds)
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
        return _snapshots(codes, documents, uses, users, self._claimant.me)

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
            {"$project": {**_PROMO_FIELDS, "uses": 1}},
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
        documents = list(self._codes.find(query, _PROMO_FIELDS, sort=in_order))
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
        with self._unsettled():
            updated = self._update_all([self._claimant.take_all(claim, now) for claim in claims])
            if updated == len(claims):
                return {claim.promo_id: claim.tokens for claim in claims}
            in_flight = {claiming.IN_FLIGHT + ".id": {"$in": [claim.id for claim in claims]}}
            in_full = {
                document["_id"]
                for document in self._codes.find(
                    {"_id": {"$in": [claim.promo_id for claim in claims]}, **in_flight}, {"_id": 1}
                )
            }
            return {
                claim.promo_id: claim.tokens
                if claim.promo_id in in_full
                else self._take_left(claim, now)
                for claim in claims
            }

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

    def _take_left(self, claim: Claim, now: datetime) -> list[bytes]:
        document = self._codes.find_one_and_update(
            claiming.running(claim.promo_id, now),
            self._claimant.take_left(claim),
            # The claim just made stands first. A command that the driver has to repeat is answered
            # with the whole document, so the projection must leave everything in its place.
            projection={"_id": 1, claiming.IN_FLIGHT: {"$slice": 1}},
            return_document=ReturnDocument.AFTER,
        )
        if document is None:
            return []
        mine = document["claims"]["inFlight"][0]
        return list(mine["uses"][: mine["taken"]])

    @contextmanager
    def _unsettled(self) -> Iterator[None]:
        """Leave claims whose outcome is not known to themselves, for as long as they last.

        Their uses can still be recorded. So what comes next is claimed in another name: a process
        replaces its own last claim, and no other.
        """
        try:
            yield
        except BaseException:
            self._claimant = Claimant(self._claim_milliseconds)
            raise

    @translated
    def record(self, uses: Sequence[Document]) -> set[int]:
        """Record uses, in one unordered insert; return the indexes of those refused for certain.

        Refused is a use whose user has another one in its slot. Any other failure leaves the
        outcome unknown and raises.
        """
        with self._unsettled():
            try:
                if len(uses) == 1:
                    self._uses.insert_one(
                        uses[0]
                    )  # the same command, and 0.1 ms less in the driver
                else:
                    self._uses.insert_many(uses, ordered=False)
            except DuplicateKeyError as error:
                if not _slot_is_filled(error.details or {}):
                    raise
                return {0}
            except BulkWriteError as error:
                refused = error.details["writeErrors"]
                unclear = error.details["writeConcernErrors"]
                if unclear or not all(_slot_is_filled(each) for each in refused):
                    raise
                return {each["index"] for each in refused}
            return set()

    @translated
    def give_back(self, refused: Mapping[ObjectId, tuple[ObjectId, int]]) -> None:
        """Give back uses whose record was refused for certain: by promo, the claim and the number.

        The claim stays: what was refused is recorded, and not to be taken by anybody.
        """
        self._codes.bulk_write(
            [
                UpdateOne(
                    # One that the network holds back until reconcile has corrected the count
                    # finds its claim gone, and changes nothing.
                    {
                        "_id": promo_id,
                        "currentUses": {"$gte": number},
                        claiming.IN_FLIGHT + ".id": claim_id,
                    },
                    {"$inc": {"currentUses": -number, "claims.moves": 1}},
                )
                for promo_id, (claim_id, number) in refused.items()
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
        """Ask the database which required indexes are not there yet, as `collection.index`."""
        missing = []
        for collection, indexes in REQUIRED_INDEXES.items():
            present = built(self._db[collection])
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
        taken = {}
        for document in self._codes_on_majority.find(query, fields):
            try:
                taken[document["_id"]] = _taken(document)
            except MalformedPromo as error:
                # Nothing is taken of it either; the others must not wait for its repair.
                _log_malformed(document, error)
        return taken

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
    return Taken(str(document.get("code")), document["currentUses"], moves_in(document))


def _log_malformed(document: Document, error: MalformedPromo) -> None:
    log.error("promo %s cannot be understood: wrong %s", document["_id"], error)


def _snapshots(
    codes: Iterable[str],
    documents: Iterable[Document],
    uses: Iterable[Document],
    users: Mapping[ObjectId, str],
    me: ObjectId,
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
            snapshots[code] = _snapshot(document, recorded, me)
    return snapshots


def _snapshot(
    document: Document, recorded: Mapping[ObjectId, dict[str, list[Use]]], me: ObjectId
) -> Snapshot:
    try:
        promo, seen = Promo.from_document(document), seen_in(document, me)
    except MalformedPromo as error:
        _log_malformed(document, error)
        return Snapshot(None, {}, malformed=True)
    return Snapshot(promo, recorded.get(promo.id, {}), seen)


def _slot_is_filled(write_error: Mapping[str, Any]) -> bool:
    filled = "useSlot" in write_error.get("keyPattern", {})
    return write_error.get("code") == DUPLICATE_KEY and filled

"""Mistakes that somebody could make in the service, each with the trial in which it shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class StaleMutant(Exception):
    """Raised when the text that a mutant replaces is not in the service exactly once."""


@dataclass(frozen=True)
class Mutant:
    """A mistake: what it is, where it is made, and the trial in which it shows."""

    name: str
    trial: str
    module: str
    old: str
    new: str

    def apply(self, package: Path) -> None:
        """Make the mistake in a copy of the service."""
        path = package / self.module
        text = path.read_text()
        if text.count(self.old) != 1:
            raise StaleMutant(f"{self.name}: found {text.count(self.old)} times in {self.module}")
        path.write_text(text.replace(self.old, self.new))


MUTANTS = [
    Mutant(
        "the guard of a take is dropped",
        "a crowd",
        "claims.py",
        'query["currentUses"] = {"$gte": 0, "$lte": claim.max_uses - wanted}',
        'query["currentUses"] = {"$gte": 0}',
    ),
    Mutant(
        "the grant is not limited to what is left",
        "a crowd",
        "claims.py",
        '{"$slice": [allowed, {"$min": [wanted, "$_take.room"]}]}',
        '{"$slice": [allowed, wanted]}',
    ),
    Mutant(
        "the last use is never sold",
        "a crowd",
        "promos.py",
        "(self.current_uses or 0) >= self.max_uses",
        "(self.current_uses or 0) >= self.max_uses - 1",
    ),
    Mutant(
        "a user's limit is not checked",
        "a crowd",
        "rules.py",
        "len(uses) >= promo.max_uses_per_user",
        "len(uses) >= 100",
    ),
    Mutant(
        "a user gets one use more than his limit",
        "a crowd",
        "rules.py",
        "len(uses) >= promo.max_uses_per_user",
        "len(uses) > promo.max_uses_per_user",
    ),
    Mutant(
        "a user gets one use less than his limit",
        "a crowd",
        "rules.py",
        "len(uses) >= promo.max_uses_per_user",
        "len(uses) + 1 >= promo.max_uses_per_user",
    ),
    Mutant(
        "a repeated order is taken for a new one",
        "a crowd",
        "rules.py",
        "    repeated = _repeated(uses, request) if uses else None\n    if",
        "    repeated = None\n    if",
    ),
    Mutant(
        "a repeated order is told other amounts",
        "a crowd",
        "rules.py",
        "return Replay(use, use.discount, amount_after(use.order_amount, use.discount))",
        "return Replay(use, 0, use.order_amount)",
    ),
    Mutant(
        "a repeated order is answered like a new one",
        "a crowd",
        "redeem.py",
        "replayed=isinstance(decision, Replay)",
        "replayed=False",
    ),
    Mutant(
        "the claims that others have in flight are ignored",
        "a crowd",
        "claims.py",
        'query[IN_FLIGHT] = {"$not": {"$elemMatch": self._in_our_way(claim)}}',
        "pass",
    ),
    Mutant(
        "a take does not see that others have moved",
        "a crowd",
        "claims.py",
        'query["claims.moves"] = claim.seen.moves or None',
        "pass",
    ),
    Mutant(
        "what was refused is not given back",
        "overtaken",
        "redeem.py",
        "        if refused:\n            numbers",
        "        if False:\n            numbers",
    ),
    Mutant(
        "one more is given back than was refused",
        "overtaken",
        "redeem.py",
        "(claims[promo_id].id, number)",
        "(claims[promo_id].id, number + 1)",
    ),
    Mutant(
        "who was refused is told that he has his use",
        "overtaken",
        "redeem.py",
        "if index not in refused:",
        "if True:",
    ),
    Mutant(
        "the slot of a use is not the one that was free",
        "overtaken",
        "redeem.py",
        '"useSlot": wish.grant.slot,',
        '"useSlot": wish.grant.slot + 1000,',
    ),
    Mutant(
        "the insert is ordered",
        "overtaken",
        "store.py",
        "self._uses.insert_many(uses, ordered=False)",
        "self._uses.insert_many(uses, ordered=True)",
    ),
    Mutant(
        "a use is given back whose record is in doubt",
        "every doubt",
        "redeem.py",
        "            self._metrics.in_doubt.inc(sum(not wish.ticket.answered for wish in wishes))",
        "            self._store._codes.update_one(\n"
        '                {"_id": wishes[0].promo.id}, {"$inc": {"currentUses": -len(wishes)}}\n'
        "            )",
    ),
    Mutant(
        "the answer goes out before the record",
        "every doubt",
        "redeem.py",
        '        with timed(spent, "record"):\n',
        "        for wish in granted:\n"
        "            wish.ticket.answer(_redemption(wish.ticket, wish.promo, wish.grant))\n"
        '        with timed(spent, "record"):\n',
    ),
    Mutant(
        "an unknown outcome is called a refusal",
        "every doubt",
        "redeem.py",
        'raise Unavailable("The database could not answer in time") from error',
        "from promo_service.errors import USAGE_LIMIT_REACHED; return USAGE_LIMIT_REACHED",
    ),
    Mutant(
        "a code is counted over the count of another process",
        "counted meanwhile",
        "store.py",
        '{"_id": promo_id, "currentUses": None}, {"$set": {"currentUses": uses}}',
        '{"_id": promo_id}, {"$set": {"currentUses": uses}}',
    ),
    Mutant(
        "reconcile does not wait for uses that are being recorded",
        "reconciled",
        "reconcile.py",
        "    sleep(wait_seconds)\n    standing",
        "    standing",
    ),
    Mutant(
        "reconcile does not see that the code has moved",
        "reconciled",
        "store.py",
        '{"_id": promo_id, "currentUses": seen.uses, "claims.moves": seen.moves},\n'
        '                {"$set": {"claims.moves": moves}},\n'
        "                session=session,\n"
        "            )",
        '{"_id": promo_id},\n'
        '                {"$set": {"claims.moves": moves}},\n'
        "                session=session,\n"
        "            )\n"
        "            seen = Taken(seen.code, seen.uses + 1, moves)",
    ),
    Mutant(
        "reconcile gives back one use too many",
        "reconciled",
        "store.py",
        '"currentUses": uses,\n                        "claims.moves"',
        '"currentUses": uses - 1,\n                        "claims.moves"',
    ),
    Mutant(
        "a repetition is not read on a majority",
        "rolled back",
        "store.py",
        'self._uses_on_majority.find({"_id": {"$in": list(use_ids)}}, {"_id": 1})',
        'self._uses.find({"_id": {"$in": list(use_ids)}}, {"_id": 1})',
    ),
    Mutant(
        "a use is not recorded on a majority",
        "rolled back",
        "store.py",
        'majority = WriteConcern("majority", j=True)',
        "majority = WriteConcern(1)",
    ),
]

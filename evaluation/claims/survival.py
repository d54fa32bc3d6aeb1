"""Claim 7: the last use is not taken twice, whatever fails meanwhile."""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from bson import ObjectId
from pymongo import MongoClient
from pymongo.database import Database

from evaluation.claims.chaos import Chaos, ReplicaSet, replica_set
from evaluation.claims.claim import Before, Claim, Finding, Unclear
from evaluation.claims.orders import with_one_left
from evaluation.lab import LEGACY_ON_NOTHING, OURS, PREFIX, Lab
from evaluation.load.client import ask
from evaluation.processes import Service, Variant
from evaluation.scale import Scale
from evaluation.scenarios import body
from promo_service import reconcile
from promo_service.database import connect
from promo_service.migrations import migrate
from promo_service.store import Store

Document = dict[str, Any]

CONTENDERS = 2
GRANTED = "200"
DEFINITE = ("200", "400")
ASK_SECONDS = 5.0
RETRY_SECONDS = 0.1
GIVE_UP_SECONDS = 40.0
AT_ONCE = 24
# Longer than a request lives here: all of them have ended before it is needed.
RECONCILE_SECONDS = 5.0
RECONCILE_TIMEOUT = 10.0
LEGACY_SHARE = 4


@dataclass(frozen=True, slots=True)
class Contest:
    """What became of the last use of one code: outcomes by user, and uses recorded at the end."""

    outcomes: dict[str, str]
    recorded_for: list[str]
    # Requests beyond the first of each user: those that a fault has hit.
    repeats: int = 0

    @property
    def winners(self) -> list[str]:
        """The users who were told that the use is theirs."""
        return [user for user, outcome in self.outcomes.items() if outcome == GRANTED]


def judge(contests: Sequence[Contest], unbalanced: Sequence[str]) -> list[str]:
    """Return what contradicts the claim."""
    faults = {
        "codes were applied twice": [c for c in contests if len(c.recorded_for) > 1],
        "codes were granted to two users": [c for c in contests if len(c.winners) > 1],
        "users were granted a use that is not recorded": [
            c for c in contests if set(c.winners) - set(c.recorded_for)
        ],
    }
    problems = [f"{len(found)} {meaning}" for meaning, found in faults.items() if found]
    late = [c for c in contests if any(o[:3] not in DEFINITE for o in c.outcomes.values())]
    if late:
        problems.append(Unclear(f"{len(late)} codes had a user who never got an answer"))
    return problems + [f"after reconcile: {line}" for line in unbalanced[:3]]


def measure(lab: Lab) -> Finding:
    """Contend on a replica set while it and the service fail, and then reconcile."""
    rounds, seconds = lab.scale.fault_rounds, lab.scale.fault_seconds
    with replica_set(lab.folder / "replica-set") as servers:
        contests, faults = _contend(lab, servers, OURS, rounds, seconds)
        unbalanced = _reconcile(servers.uri, contests)
    figures = {"faults": faults, "rounds": [asdict(contest) for contest in contests.values()]}
    return Finding(
        _measured(list(contests.values()), faults),
        judge(list(contests.values()), unbalanced),
        figures,
    )


def before(lab: Lab, _figures: dict[str, Any]) -> Before:
    """Contend for the uses of the legacy service, under the same faults."""
    rounds, seconds = lab.scale.fault_rounds // LEGACY_SHARE, lab.scale.fault_seconds / LEGACY_SHARE
    with replica_set(lab.folder / "replica-set-before") as servers:
        legacy, _ = _contend(lab, servers, LEGACY_ON_NOTHING, rounds, seconds)
    twice = sum(len(contest.recorded_for) > 1 for contest in legacy.values())
    return Before(
        f"applied twice in {twice} of {len(legacy)} rounds",
        {"rounds": len(legacy), "twice": twice},
    )


def _measured(contests: Sequence[Contest], faults: dict[str, int]) -> str:
    once = sum(len(contest.recorded_for) == 1 for contest in contests)
    twice = sum(len(contest.recorded_for) > 1 for contest in contests)
    hit = sum(contest.repeats > 0 for contest in contests)
    return (
        f"applied once in {once:,}, twice in {twice:,} of {len(contests):,} rounds, {hit:,} of "
        f"which were hit by a fault ({', '.join(f'{name}: {n:,}' for name, n in faults.items())})"
    )


def _contend(
    lab: Lab, servers: ReplicaSet, variant: Variant, rounds: int, seconds: float
) -> tuple[dict[str, Contest], dict[str, int]]:
    """Play the rounds on new codes; return the contests by code, and the faults."""
    with MongoClient[Document](servers.uri, w="majority") as client:
        database = client[variant.database]
        if variant is OURS:
            migrate(database, lambda _line: None)
        promos = with_one_left(database, "FAULT", rounds)
        with (
            lab.service(variant, uri=servers.uri) as service,
            Chaos(service, servers) as chaos,
        ):
            played = _play(lab, service, promos, seconds)
        recorded = _recorded(database, promos)
    contests = {
        promo["code"]: _contest(seen, recorded[promo["_id"]])
        for promo, seen in zip(promos, played, strict=True)
    }
    return contests, dict(chaos.faults)


def _recorded(
    database: Database[Document], promos: Sequence[Document]
) -> dict[ObjectId, list[str]]:
    """Return the users for whom uses of each promo are recorded."""
    users: dict[ObjectId, list[str]] = {promo["_id"]: [] for promo in promos}
    for use in database["promo_usage"].find({"promoId": {"$in": list(users)}}):
        users[use["promoId"]].append(str(use["userId"]))
    return users


def _contest(seen: dict[str, tuple[str, int]], recorded: Sequence[str]) -> Contest:
    return Contest(
        {user: outcome for user, (outcome, _) in seen.items()},
        [user for user in recorded if user in seen],
        sum(asked - 1 for _, asked in seen.values()),
    )


def _play(
    lab: Lab, service: Service, promos: Sequence[Document], seconds: float
) -> list[dict[str, tuple[str, int]]]:
    """Start the rounds evenly over the seconds, so that faults fall into some of them."""
    started = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE * CONTENDERS) as pool:
        playing = []
        for number, promo in enumerate(promos):
            time.sleep(max(0.0, started + number * seconds / len(promos) - time.monotonic()))
            users = [secrets.token_hex(12) for _ in range(CONTENDERS)]
            asked = {user: pool.submit(_insist, service, promo["code"], user) for user in users}
            playing.append(asked)
            if number % 20 == 0:
                lab.say(f"{service.variant.name}: round {number} of {len(promos)}")
        return [{user: one.result() for user, one in asked.items()} for asked in playing]


def _insist(service: Service, code: str, user: str) -> tuple[str, int]:
    """Repeat one order until the answer says what happened; return it, and how often was asked."""
    deadline = time.monotonic() + GIVE_UP_SECONDS
    order = body(code, user, f"order-{user}")
    asked = 0
    while True:
        asked += 1
        outcome = ask(service.url(PREFIX), service.port, "apply", order, ASK_SECONDS)
        if outcome[:3] in DEFINITE or time.monotonic() > deadline:
            return outcome, asked
        time.sleep(RETRY_SECONDS)


def _reconcile(uri: str, codes: Collection[str]) -> list[str]:
    """Give back what was taken and not recorded; return the codes that are still not right."""
    with connect(uri, pool_size=2, timeout=RECONCILE_TIMEOUT) as client:
        store = Store(client, OURS.database, claim_seconds=RECONCILE_SECONDS)
        reconcile.run_once(store, wait_seconds=RECONCILE_SECONDS, codes=list(codes))
        taken, recorded = store.taken(list(codes)), store.recorded()
    return [
        f"{seen.code} has {seen.uses} uses taken and {recorded.get(promo_id, 0)} recorded"
        for promo_id, seen in taken.items()
        if seen.uses != recorded.get(promo_id, 0)
    ]


def _bound(scale: Scale) -> str:
    return f"never applied twice in {scale.fault_rounds:,} rounds; no success without its record"


CLAIM = Claim(
    number=7,
    name="The last use, and everything fails",
    statement="A code with one use left is not applied twice, whatever fails meanwhile.",
    method=(
        "Two users want the last use of a code and repeat their order until they get an answer "
        "that says what happened, while worker processes are killed, the primary of a "
        "three-member replica set steps down, and the replies to one write in five are lost. "
        "Then the uses in the database are counted, and reconcile runs."
    ),
    bound=_bound,
    measure=measure,
    before=before,
)

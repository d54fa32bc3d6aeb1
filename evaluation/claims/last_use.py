"""Claim 4: two requests at the same moment for the last use of a code."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Sequence
from typing import Any

from evaluation import books
from evaluation.claims.claim import TOO_LATE, Before, Claim, Finding, Unclear
from evaluation.claims.orders import with_one_left
from evaluation.lab import LEGACY_ON_NOTHING, OURS, PREFIX, Lab
from evaluation.load.client import Client
from evaluation.processes import Service, Variant
from evaluation.scale import Scale
from evaluation.scenarios import body

Document = dict[str, Any]

GRANTED = "200"
REFUSED = "400 USAGE_LIMIT_REACHED"


def race(services: Sequence[Service], promos: Sequence[Document]) -> list[tuple[str, str]]:
    """Let two users ask for the last use of each promo at the same moment.

    Two rounds of three are across the services, in either order; one is within the first.
    """
    first, second = services
    with (
        Client(first.url(PREFIX), first.port) as one,
        Client(first.url(PREFIX), first.port) as same,
        Client(second.url(PREFIX), second.port) as other,
    ):
        pairs = [(one, other), (other, one), (one, same)]
        return [_round(*pairs[n % 3], promo["code"]) for n, promo in enumerate(promos)]


def _round(one: Client, other: Client, code: str) -> tuple[str, str]:
    for client in (one, other):
        user = secrets.token_hex(12)
        client.send("apply", body(code, user, f"order-{user}"))
    return one.receive(), other.receive()


def judge(rounds: Sequence[tuple[str, str]], violations: Sequence[str]) -> list[str]:
    """Return what contradicts the claim."""
    seen = Counter(tuple(sorted(pair)) for pair in rounds)
    wrong = [
        (Unclear if TOO_LATE.intersection(pair) else str)(f"{count} rounds ended {pair}")
        for pair, count in seen.items()
        if pair != (GRANTED, REFUSED)
    ]
    return wrong + ([books.summarise(violations)] if violations else [])


def measure(lab: Lab) -> Finding:
    """Race on two service processes."""
    ours, violations = _measure(lab, OURS, lab.scale.last_use_rounds)
    won = sum(GRANTED in pair and REFUSED in pair for pair in ours)
    return Finding(
        f"exactly one succeeded in {won:,} of {len(ours):,} rounds",
        judge(ours, violations),
        {"rounds": len(ours), "one_winner": won},
    )


def before(lab: Lab, _figures: dict[str, Any]) -> Before:
    """Race on two processes of the legacy service."""
    legacy, _ = _measure(lab, LEGACY_ON_NOTHING, lab.scale.legacy_rounds)
    twice = sum(pair == (GRANTED, GRANTED) for pair in legacy)
    return Before(
        f"both succeeded in {twice} of {len(legacy)} rounds (on an empty database)",
        {"rounds": len(legacy), "two_winners": twice},
    )


def _measure(lab: Lab, variant: Variant, rounds: int) -> tuple[list[tuple[str, str]], list[str]]:
    database = lab.database(variant)
    promos = with_one_left(database, "LAST", rounds)
    with lab.service(variant, workers=1) as one, lab.service(variant, workers=1) as other:
        seen = race((one, other), promos)
    ids = [promo["_id"] for promo in promos]
    return seen, books.violations(database, ids, counted=variant.counts)


def _bound(scale: Scale) -> str:
    return f"exactly one success in each of {scale.last_use_rounds:,} rounds"


CLAIM = Claim(
    number=4,
    name="The last use",
    statement="Of two simultaneous requests for the last use, exactly one succeeds.",
    method=(
        "Two users ask at the same moment for a code with one use left: in two of three rounds at "
        "two different service processes, in the third at one. Afterwards the uses in the "
        "database are counted."
    ),
    bound=_bound,
    measure=measure,
    before=before,
)
